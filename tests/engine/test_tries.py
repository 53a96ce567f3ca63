# SPDX-License-Identifier: GPL-2.0-only
"""A case that runs out of time is tried again alone, once; what passes only then is not a pass, and no error."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any

import pytest

from kvmtest.engine import guest, host, run, runner
from kvmtest.engine.error import TriggerError
from kvmtest.engine.machine import Machine, Machines
from kvmtest.engine.plan import Case
from kvmtest.engine.stress import Stopped
from kvmtest.guests import load
from kvmtest.judge import tries
from kvmtest.judge.evidence import Measured, Untried
from kvmtest.kvm import Kvm, RunTimeout, Vcpu
from kvmtest.lab import relay
from kvmtest.lab.stream import Decoder, Encoder
from kvmtest.model.record import Result
from kvmtest.state.guest_view import Report
from tests.cases import CASES, by_item, by_view, ran, the

GUEST = the("sipi.msi.guest/ap,intel,xapic,plant-sipi,vector-01")
RESET = the("reset.create.guest/bsp,full-irqchip,intel")
IRQFD = the("init.irqfd.host/ap,intel,xapic,plant-a")
FIRST = "no exit within 1 s at the first try"


class _Slow:
    """KVM_RUN on machines on which the guest does not come to an exit, the first ``times`` of them."""

    def __init__(self, times: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.machines: list[object] = []
        self.times = times
        self._real: Callable[..., Any] = Vcpu.run
        monkeypatch.setattr(Vcpu, "run", lambda vcpu, timeout_s=1.0: self._run(vcpu, timeout_s))

    def _run(self, vcpu: Vcpu, timeout_s: float) -> Any:
        if vcpu.vm not in self.machines:
            self.machines.append(vcpu.vm)
        if self.machines.index(vcpu.vm) < self.times:
            raise RunTimeout(vcpu, timeout_s)
        return self._real(vcpu, timeout_s)


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], _Slow]:
    return lambda times: _Slow(times, monkeypatch)


@pytest.mark.parametrize("case", [GUEST, RESET], ids=["sipi", "reset"])
def test_what_passes_only_at_the_second_try_is_no_pass(case: Case, machines: Machines, slow: Callable[[int], _Slow]) -> None:
    good = by_view(case, machines)
    made = slow(1)
    again = by_view(case, machines)
    assert len(made.machines) == 2  # the second try has a machine of its own
    assert good.keys() == again.keys()
    for key, result in again.items():
        expected = "info" if good[key].verdict == "pass" else good[key].verdict
        assert result.verdict == expected, key
        assert (FIRST in result.reason) == (good[key].verdict == "pass"), key
    assert sum(r.verdict == "info" for r in again.values()) > 20
    made.times = 0
    assert any(r.verdict == "pass" for r in ran(case, machines))


@pytest.mark.parametrize("case", [GUEST, RESET, the("init.self.host/ap,intel,xapic,plant-guest-long")], ids=lambda c: c.name)
def test_what_comes_at_no_try_is_an_error_of_its_own_kind(case: Case, machines: Machines, slow: Callable[[int], _Slow]) -> None:
    made = slow(99)
    # The host's view from before the guest begins is judged.
    results = [r for r in ran(case, machines) if r.view in ("guest", "views") or case.view == "host"]
    assert len(made.machines) == 2
    assert any(r.record.out_of_time for r in results)
    assert {r.verdict for r in results} <= {"error", "skip"}
    assert all(r.record.out_of_time for r in results if r.verdict == "error")


def test_a_failure_at_the_second_try_is_one(
    machines: Machines, slow: Callable[[int], _Slow], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = guest.Reporter.report

    def otherwise(*args: Any) -> Report:
        report = real(*args)
        return report._replace(values=report.values | {"rbx": report.values["rbx"] ^ 1}) if "rbx" in report.values else report

    monkeypatch.setattr(guest.Reporter, "report", otherwise)
    slow(1)
    verdicts = {(r.view, r.item): r.verdict for r in ran(GUEST, machines)}
    assert verdicts["guest", "rbx"] == "fail" and verdicts["guest", "rcx"] == "info"


STRESS = next(case for case in CASES.values() if case.sequence == "stress")
EACH_ONCE = Measured({"lost": (0, ""), "doubled": (0, ""), "astray": (0, "")})


def test_a_measurement_is_tried_again_too(machines: Machines, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = [Stopped("no word"), EACH_ONCE]

    def arrivals(*args: object) -> Measured:
        answer = seen.pop(0)
        if isinstance(answer, Exception):
            raise answer from TimeoutError()
        return answer

    monkeypatch.setitem(runner._MEASUREMENTS, "arrivals", arrivals)
    results = ran(STRESS, machines)
    assert [(r.verdict, r.observed, r.reason) for r in results] == [("info", "0x0", FIRST)] * 3 and not seen


def test_what_is_counted_is_not_tried_again(machines: Machines, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def arrivals(*args: object) -> Measured:
        calls.append(args)
        return Measured(EACH_ONCE.counts | {"lost": (1, "nothing came")})

    monkeypatch.setitem(runner._MEASUREMENTS, "arrivals", arrivals)
    assert [r.verdict for r in ran(STRESS, machines)] == ["fail", "pass", "pass"] and len(calls) == 1


def test_another_error_is_not_tried_again(machines: Machines, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def stop(self: guest.Reporter, *args: Any) -> Report:
        calls.append(self)
        return Report({}, {}, "an exception at CS:IP f000:fff0")

    monkeypatch.setattr(guest.Reporter, "report", stop)
    results = ran(GUEST, machines)
    assert len(calls) == 1 and not any(r.record.out_of_time for r in results)


def test_time_is_reported_by_type_through_all_that_came_of_it() -> None:
    def raised(*chain: Exception) -> Untried:
        error: Exception | None = None
        for one in chain:
            one.__cause__ = error
            error = one
        assert error
        return tries.untried(error)

    assert raised(TimeoutError("x"), Stopped("y"), TriggerError("z")) == Untried("error", "out of time: z", True)
    assert raised(OSError(5, "no exit within 1 s")) == Untried("error", "[Errno 5] no exit within 1 s", False)


def _refuse(*args: object, **more: object) -> Any:
    raise OSError(errno.EMFILE, "Too many open files")


@pytest.mark.parametrize(
    ("where", "case"),
    [("kvmtest.kvm.vcpu.thread_alarm", GUEST), ("mmap.mmap", RESET), ("os.eventfd", IRQFD)],
)
def test_what_the_system_refuses_is_an_error_of_the_case(
    where: str, case: Case, machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(where, _refuse)
        results = [r for r in ran(case, machines) if r.view == case.view or case is not GUEST]
    assert {r.verdict for r in results} == {"error"} and "Too many open files" in results[0].reason
    again = ran(case, machines)
    assert any(r.verdict == "pass" for r in again), again[:3]


def test_a_machine_that_an_error_was_seen_on_is_not_kept(machines: Machines, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = machines.kept(IRQFD.setup)
    with monkeypatch.context() as patched:
        patched.setattr("os.eventfd", _refuse)
        ran(IRQFD, machines)
    assert isinstance(kept, Machine) and machines.kept(IRQFD.setup) is not kept


def test_what_is_judged_elsewhere_is_judged_the_same(kvm: Kvm, slow: Callable[[int], _Slow]) -> None:
    slow(1)
    sent = bytearray()
    out = Encoder(sent.extend)
    facts = host.detect()
    (done,) = run.run(kvm, facts, [RESET], judging=relay.Sender(out).judging)
    assert not done.seen  # only evidence is sent
    out.flush()
    receiver = relay.Receiver()
    results: list[Result] = []
    for letter, fields in Decoder().feed(bytes(sent)):
        if letter == "O":
            look = receiver.look(RESET.name, RESET.view)
            results += [result for seen in receiver.observations(look, fields[0], facts) for result in seen.results]
        else:
            receiver.take(letter, fields[0])
    reported = {(r.view, r.item): r for r in results}
    assert reported["guest", "rbx"].verdict == "info" and reported["guest", "rbx"].reason == FIRST
    assert not any(r.verdict == "pass" for r in results)


def test_a_guest_that_hangs_for_good_is_tried_twice(machines: Machines, monkeypatch: pytest.MonkeyPatch) -> None:
    image = bytearray(load("spine"))
    image[0xFFF0 + 3 : 0xFFF0 + 5] = b"\xeb\xfe"  # after the OUT at the reset vector
    monkeypatch.setattr("kvmtest.guests.load", lambda name: bytes(image))
    results = by_item(RESET, machines, 0.05)
    assert results["cr0"].record.out_of_time and results["rax"].verdict == "pass"


def test_a_plant_by_guest_code_that_hangs_is_out_of_time(machines: Machines, slow: Callable[[int], _Slow]) -> None:
    slow(99)
    results = ran(the("init.msi.host/ap,intel,xapic,plant-guest-long"), machines)
    assert all(r.record.out_of_time for r in results if r.verdict != "skip")


def test_a_guest_that_stops_for_what_another_did_is_tried_on_a_new_vm(
    machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only for an emulated CPU that is known for it; elsewhere it is an error as any other."""
    case = the("init.msi.host/ap,intel,xapic,plant-a")
    real, used = runner.Player.run, list[Machine]()

    def stops(self: runner.Player, *args: Any) -> Any:
        used.append(self._machine)
        if len(used) == 1:
            raise TriggerError("KVM_EXIT_INTERNAL_ERROR KVM_INTERNAL_ERROR_DELIVERY_EV")
        return real(self, *args)

    monkeypatch.setattr(runner.Player, "run", stops)
    assert {r.verdict for r in ran(case, machines)} == {"error"} and len(used) == 1
    used.clear()
    monkeypatch.setattr(
        machines, "host", machines.host._replace(backend="svm", kernel="7.2.0", cpu_model="QEMU TCG CPU", lab=None)
    )
    results = ran(case, machines)
    assert len(used) == 2 and used[0] is not used[1]
    assert {r.verdict for r in results} >= {"info"} and not {r.verdict for r in results} & {"error", "pass"}
    assert all(
        "svm_check_emulate_instruction()" in r.reason for r in results if r.verdict == "info" and r.reason.endswith(FIRST[-16:])
    )
