# SPDX-License-Identifier: GPL-2.0-only
"""Each state is entered where this KVM can, and left again; one that is not reached ends its scenario in an error."""

from __future__ import annotations

import threading
from collections import Counter

import pytest

from kvmtest.engine.machine import Machines
from kvmtest.engine.plan import Case, Setup
from kvmtest.model.record import Result
from kvmtest.scenario import step as s
from kvmtest.scenario.items import LEAVE
from kvmtest.scenario.needs import NEEDS
from kvmtest.scenario.states import NEVER_RUN, STATES
from kvmtest.scenario.triggers import TRIGGERS
from kvmtest.state.inside import GUEST_PLANTS, PlantRefused
from tests.cases import by_item, ran
from tests.playing import steps

pytestmark = pytest.mark.usefixtures("steps_anew")

WITH_PLANTS = [(name, plant) for name, state in STATES.items() for plant in state.plants or ("a",)]


def _case(
    state: str, plant: str = "", target: str = "ap", event: str = "init", trigger: str = "msi", vendor: str = "amd"
) -> Case:
    """The case that has ``state``; a vCPU whose next instruction shuts it down is sent nothing else."""
    alone = next((name for name, one in TRIGGERS.items() if state and state in one.states), "")
    if alone:
        event, trigger = TRIGGERS[alone].events[0], alone
    vendor = "intel" if state == "in-vmx-root" else vendor
    plant = plant or (STATES[state].plants or ("a",))[0]
    return Case(event, trigger, "host", Setup("full", vendor, mce=True), target, "xapic", plant, state=state)


def _tried(results: list[Result]) -> Counter[str]:
    """The verdicts; skips the test where this KVM has not what the state needs."""
    verdicts: Counter[str] = Counter(result.verdict for result in results)
    if verdicts.keys() == {"skip"}:
        reasons = {result.reason for result in results}
        needs = {need.why for name in NEEDS for need in NEEDS[name]}
        assert len(reasons) == 1 and (reasons <= needs or "KVM_SET_SREGS did not keep CR0" in reasons.copy().pop()), reasons
        pytest.skip(results[0].reason)
    return verdicts


@pytest.mark.parametrize("name", STATES)
def test_a_state_says_what_there_is(name: str) -> None:
    state = STATES[name]
    assert set(state.plants) <= set(GUEST_PLANTS) and set(state.needs) <= NEEDS.keys() and set(state.targets) <= {"bsp", "ap"}
    assert not set(state.holds) & set(state.drops)
    assert state.leave or not state.holds


def _running() -> set[threading.Thread]:
    """The threads that there are, but for the one that closes VMs."""
    return {thread for thread in threading.enumerate() if thread.name != "closer"}


@pytest.mark.parametrize("target", ["bsp", "ap"])
@pytest.mark.parametrize(("state", "plant"), WITH_PLANTS)
def test_a_state_is_entered_and_its_event_comes(state: str, plant: str, target: str, machines: Machines) -> None:
    case, before = _case(state, plant, target), _running()
    verdicts = _tried(ran(case, machines))
    if case.event == "shutdown" and machines.host.backend not in ("vmx", "svm"):
        pytest.skip("nothing is known of what a shutdown leaves")
    assert verdicts["pass"] > 100 and not verdicts["error"], verdicts
    assert _running() == before


@pytest.mark.parametrize("state", [name for name in STATES if not any(name in one.states for one in TRIGGERS.values() if name)])
def test_an_event_that_does_not_come_is_no_pass(state: str, machines: Machines, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TRIGGERS, "msi", TRIGGERS["msi"]._replace(steps=lambda send, to: ()))
    verdicts = _tried(ran(_case(state), machines, 0.2))
    # If the event should be held, the departure is that it is not pending; the rest is not judged.
    assert verdicts.keys() == ({"fail"} if STATES[state].holds else {"error"}), verdicts


@pytest.mark.parametrize("state", [name for name, state in STATES.items() if state.holds])
def test_a_state_that_is_left_without_an_event_changes_nothing(state: str, machines: Machines) -> None:
    results = ran(_case(state, event="none", trigger=LEAVE), machines)
    _tried(results)
    assert [(r.item, r.verdict, r.observed) for r in results] == [("delivered", "pass", "nothing changed")]


def _runs(state: str) -> bool:
    """Something that the guest does is waited for."""
    return any(isinstance(step, s.Until) and step.run for step in (*STATES[state].prepare, *STATES[state].enter))


@pytest.mark.parametrize("state", [state for state in STATES if _runs(state)])
def test_a_guest_that_does_something_else_is_reported(state: str, machines: Machines, monkeypatch: pytest.MonkeyPatch) -> None:
    """It reads another device than it should, or one at all."""
    end, before = "mmio" if state == "in-port-read" else "in", _running()
    one = STATES[state]
    prepare, enter = (
        (*(step for step in part if not isinstance(step, (s.Resume, s.Set))),) for part in (one.prepare, one.enter)
    )
    monkeypatch.setitem(STATES, state, one._replace(prepare=(s.Resume(end), *prepare), enter=enter))
    results = ran(_case(state), machines, 0.2)
    verdicts = _tried(results)
    assert verdicts.keys() == {"error"} and "the guest " in results[0].reason
    assert "does not" in results[0].reason or "did not reach its loop" in results[0].reason
    assert _running() == before


def test_a_plant_has_the_ends_that_its_mode_has(machines: Machines) -> None:
    machine = machines.kept(Setup("full", "intel"))
    with pytest.raises(ValueError, match="no end 'dance64'"):
        steps(machine, s.Plant("guest-long"), s.Resume("dance"))


def test_a_vcpu_that_has_never_run_has_a_vm_of_its_own(machines: Machines, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Setup] = []
    fresh = Machines.fresh
    monkeypatch.setattr(Machines, "fresh", lambda self, setup: made.append(setup) or fresh(self, setup))
    assert _tried(ran(_case(NEVER_RUN), machines))["pass"] > 100
    assert len(made) == 1


def test_guest_debugging_ends_with_its_case(machines: Machines) -> None:
    """The next case of the same vCPU is not the host's any more: no KVM_EXIT_DEBUG, DR7 is the guest's."""
    case = _case("guest-debug", vendor="intel")
    results = by_item(case, machines)
    assert (results["dr7"].observed, results["dr7"].verdict) == ("0x400", "pass")
    after = by_item(case._replace(state="in-loop"), machines)
    assert after["dr7"].planted != "0x400" and after["dr7"].verdict == "pass"


@pytest.mark.parametrize("target", ["bsp", "ap"])
def test_a_running_vcpu_takes_its_init(target: str, machines: Machines) -> None:
    try:
        results = by_item(_case("in-loop", target=target), machines)
    except PlantRefused as error:
        pytest.skip(str(error))
    assert results["rip"].observed == "0xfff0" and results["cs.base"].observed == "0xffff0000"
    assert results["mp_state"].observed == ("RUNNABLE" if target == "bsp" else "INIT_RECEIVED")
    assert results["cr0"].verdict == results["xmm0"].verdict == "pass"
