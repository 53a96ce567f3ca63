# SPDX-License-Identifier: GPL-2.0-only
"""The stress case: a schedule that its seed gives back, arrivals that are counted, threads that end."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from kvmtest.engine import stress
from kvmtest.engine.machine import Machines
from kvmtest.model.record import Result
from kvmtest.scenario.program import DEFAULT_ROUNDS, StressRounds
from tests.cases import CASES, ran

Judge = Callable[..., dict[str, Result]]
STRESS = {case.setup.vendor: case for case in CASES.values() if case.sequence == "stress"}


@pytest.fixture
def judged(machines: Machines) -> Judge:
    """The results of the case, by item."""

    def judge(vendor: str = "intel", timeout_s: float = 1.0, stress_rounds: StressRounds = DEFAULT_ROUNDS) -> dict[str, Result]:
        return {result.item: result for result in ran(STRESS[vendor], machines, timeout_s, stress_rounds)}

    return judge


def _verdicts(results: dict[str, Result]) -> tuple[str, ...]:
    return tuple(str(results[item].verdict) for item in ("lost", "doubled", "astray"))


def test_a_seed_gives_its_schedule_back_and_another_one_another() -> None:
    made = list(stress.schedule(7, 5, 40))
    assert made == list(stress.schedule(7, 5, 40)) and made[:10] == list(stress.schedule(7, 5, 10))
    assert made != list(stress.schedule(8, 5, 40))


@pytest.mark.parametrize("vcpus", range(2, 9))
def test_a_round_pairs_all_vcpus_but_one_at_most(vcpus: int) -> None:
    for cycles in stress.schedule(1, vcpus, 50):
        taking_part = [id for cycle in cycles for id in (cycle.sender, cycle.target)]
        assert len(set(taking_part)) == len(taking_part) == vcpus // 2 * 2
        assert max(taking_part) < vcpus


def test_a_schedule_has_all_that_there_is() -> None:
    cycles = [cycle for cycles in stress.schedule(1, 4, 100) for cycle in cycles]
    assert {cycle.state for cycle in cycles} == set(stress._STATES)
    assert {cycle.target for cycle in cycles} == set(range(4)) == {cycle.sender for cycle in cycles}
    assert len({cycle.vector for cycle in cycles}) > 20


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[..., None]], None]:
    """Calls a function after each round, which then happened as it should."""
    real = stress._play

    def after_each(then: Callable[..., None]) -> None:
        def play(stress_vm: stress._StressVm, runners: list[stress._Runner], cycles: stress.Round) -> None:
            real(stress_vm, runners, cycles)
            then(stress_vm, cycles[0])

        monkeypatch.setattr(stress, "_play", play)

    return after_each


def _ended() -> bool:
    return not any(thread.name.startswith("vcpu ") for thread in threading.enumerate())


@pytest.mark.parametrize("vcpus", [2, 3, 6])
def test_more_vcpus_than_cpus(vcpus: int, judged: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stress.os, "sched_getaffinity", lambda pid: set(range(vcpus)))
    for vendor in ("intel", "amd"):
        results = judged(vendor, stress_rounds=StressRounds(30, 3))
        assert _verdicts(results) == ("pass", "pass", "pass")
        assert {r.reason for r in results.values()} == {f"seed 3, {vcpus} vCPUs, {30 * (vcpus // 2)} sent"}
    assert _ended()


def test_one_that_comes_twice_fails(judged: Judge, play: Callable[..., None]) -> None:
    def again(stress_vm: stress._StressVm, cycle: stress.Cycle) -> None:
        stress_vm.order(cycle.target, ARRIVED=stress_vm.arrived(cycle.target) + 1)

    play(again)
    results = judged(stress_rounds=StressRounds(10, 9))
    result = results["doubled"]
    assert _verdicts(results) == ("pass", "fail", "pass") and result.observed == f"{stress._ENOUGH:#x}"
    assert "seed 9" in result.reason and "round 0: arrived 2 times: vcpu" in result.reason


def test_one_that_comes_by_another_vector_fails(judged: Judge, play: Callable[..., None]) -> None:
    play(lambda stress_vm, cycle: stress_vm.order(cycle.target, ARRIVED_CS=0x100))
    results = judged(stress_rounds=StressRounds(3, 1))
    assert _verdicts(results) == ("pass", "pass", "fail") and "arrived with CS 0100" in results["astray"].reason


def test_one_that_comes_uncalled_fails(judged: Judge, play: Callable[..., None]) -> None:
    def uncalled(stress_vm: stress._StressVm, cycle: stress.Cycle) -> None:
        stress_vm.order(cycle.sender, ARRIVED=stress_vm.arrived(cycle.sender) + 1)

    play(uncalled)
    results = judged(stress_rounds=StressRounds(1, 1))
    assert results["astray"].verdict == "fail" and "without a message to it" in results["astray"].reason


def test_one_that_is_lost_fails_in_bounded_time(judged: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    real = stress._StressVm.order

    def order(stress_vm: stress._StressVm, id: int, **words: int) -> None:
        if "DESTINATION" in words:
            words["DESTINATION"] = 77
        real(stress_vm, id, **words)

    monkeypatch.setattr(stress._StressVm, "order", order)
    results = judged(timeout_s=0.02, stress_rounds=StressRounds(1000, 1))
    assert _verdicts(results) == ("fail", "pass", "pass") and results["lost"].reason.count("lost: vcpu") == stress._ENOUGH
    assert _ended()


def test_a_sender_that_does_not_send_is_an_error(judged: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stress.stress, "DO_SEND", stress.stress.DO_SPIN)
    for result in judged(timeout_s=0.02).values():
        assert result.record.out_of_time and "round 0 of seed 1, " in result.reason and "cs:rip" in result.reason
    assert _ended()


def test_ctrl_c_leaves_no_thread(judged: Judge, play: Callable[..., None]) -> None:
    def interrupt(stress_vm: stress._StressVm, cycle: stress.Cycle) -> None:
        raise KeyboardInterrupt

    play(interrupt)
    with pytest.raises(KeyboardInterrupt):
        judged()
    assert _ended()
