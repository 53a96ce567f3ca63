# SPDX-License-Identifier: GPL-2.0-only
"""A KVM_GET_* that fails makes nothing of KVM's state a verdict: what needed it is an error or a skip that names ioctl and errno.

On the real /dev/kvm, with the one function that calls ioctl(2) replaced.
"""

from __future__ import annotations

import ctypes
import errno
import re
from collections.abc import Callable
from typing import Any

import pytest

from kvmtest.engine import native, plan
from kvmtest.engine.machine import Machines
from kvmtest.kvm import ioctl as calls
from kvmtest.model.record import Result
from kvmtest.state.sections import Snapshot
from kvmtest.state.snapshot import Reader
from kvmtest.uapi import kvm as uapi
from tests.cases import CASES, ran, the

MSI = the("init.msi.host/ap,intel,xapic,plant-a")
X2APIC = the("init.latched.host/ap,intel,x2apic,plant-a")
BROADCAST = the("init.broadcast.host/ap,intel,8-vcpus,xapic,plant-a")
RESET = the("reset.vmm-reset.host/ap,full-irqchip,intel,xapic,plant-a")
#: One of each kind, a second one of a setup that is kept, and checks that read by themselves.
CHOSEN = [
    the("reset.create.host/bsp,full-irqchip,amd"),
    the("reset.create.guest/bsp,full-irqchip,intel"),
    RESET,
    the("reset.vmm-reset.guest/bsp,full-irqchip,intel,xapic,plant-a"),
    the("init.latched.host/bsp,intel,xapic,plant-b"),
    MSI,
    X2APIC,
    the("init.msi.guest/bsp,intel,xapic,plant-a"),
    the("init.ioapic.host/ap,amd,xapic,plant-a"),
    the("init.icr-xapic.host/ap,intel,xapic,plant-a,logical"),
    the("init.self.host/ap,intel,xapic,plant-guest-long"),
    the("init.msi.host/bsp,intel,xapic,plant-guest-long,in-loop"),
    the("init.triple-fault.host/ap,amd,xapic,plant-guest-long,in-shutdown"),
    BROADCAST,
    the("sipi.msi.host/ap,intel,xapic,plant-sipi,vector-9f"),
    the("none.mp-state.host/ap,intel,xapic,plant-a"),
    *[case for case in CASES.values() if case.sequence in ("running", "with-vector")],
]
#: All that is read of a vCPU or its VM.
READS = {
    name: getattr(uapi, name)
    for name in (
        *("KVM_GET_MP_STATE", "KVM_GET_REGS", "KVM_GET_SREGS", "KVM_GET_DEBUGREGS", "KVM_GET_VCPU_EVENTS", "KVM_GET_XCRS"),
        *("KVM_GET_LAPIC", "KVM_GET_XSAVE", "KVM_GET_XSAVE2", "KVM_GET_MSRS", "KVM_GET_CPUID2", "KVM_GET_NESTED_STATE"),
        *("KVM_GET_ONE_REG", "KVM_GET_IRQCHIP"),
    )
}


class Failing:
    """Fails ``request`` with ``error`` each ``every``-th time, or once after ``skip`` calls that succeed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.request = self.error = self.failed = self._calls = 0
        self._when: Callable[[int], bool] = lambda call: False
        real = calls.raw_ioctl

        def call(fd: int, request: int, argument: Any = None) -> int:
            if request == self.request:
                self._calls += 1
                if self._when(self._calls):
                    self.failed += 1
                    ctypes.set_errno(self.error)
                    return -1
            result: int = real(fd, request, argument)
            return result

        monkeypatch.setattr(calls, "raw_ioctl", call)
        # The C code has calls of its own.
        monkeypatch.setattr(native, "library", lambda: None)

    def start(self, name: str, error: int, when: Callable[[int], bool]) -> None:
        self.request, self.error, self.failed, self._calls, self._when = READS[name], error, 0, 0, when

    def stop(self) -> None:
        self.request = 0


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Failing:
    return Failing(monkeypatch)


def _run(cases: list[plan.Case], machines: Machines) -> dict[tuple[str, str], Result]:
    return {(r.id, r.case): r for case in cases for r in ran(case, machines, 2.0)}


def _others(quiet: dict[tuple[str, str], Result], seen: dict[tuple[str, str], Result], *words: str) -> list[Result]:
    """Return the results with another verdict than in the quiet run, except errors and skips with ``words`` in the reason."""
    changed = [r for key, r in seen.items() if key not in quiet or r.verdict != quiet[key].verdict]
    return [r for r in changed if r.verdict not in ("error", "skip") or not all(word in r.reason for word in words)]


@pytest.fixture
def quiet(machines: Machines) -> dict[tuple[str, str], Result]:
    return _run(CHOSEN, machines)


@pytest.mark.parametrize("name", READS)
def test_a_read_that_fails_is_reported_by_its_errno(
    name: str, quiet: dict[tuple[str, str], Result], machines: Machines, failing: Failing
) -> None:
    for error, every in ((errno.EINVAL, 1), (errno.ENOMEM, 1), (errno.EINVAL, 7), (errno.ENOMEM, 5), (errno.EINTR, 3)):
        machines.close()
        fresh = Machines(machines.kvm, machines.host)
        failing.start(name, error, lambda call, every=every: call % every == 0)  # type: ignore[misc]
        seen = _run(CHOSEN, fresh)
        fresh.close()
        if every == 1 and not failing.failed:
            pytest.skip(f"{name} is not used here")
        failing.stop()
        changed = _others(quiet, seen, name, errno.errorcode[error])
        assert not changed, (error, every, [(r.id, r.case, r.verdict, r.observed, r.reason) for r in changed[:9]])
        if error == errno.EINTR:
            assert {key: r.verdict for key, r in seen.items()} == {key: r.verdict for key, r in quiet.items()}


def _after(
    monkeypatch: pytest.MonkeyPatch, machines: Machines, case: plan.Case, failing: Failing, name: str, nth: int
) -> list[Result]:
    """The results of ``case`` where ``name`` fails in the ``nth`` snapshot that is taken in it."""
    ran(case, machines)  # so that machine and plant are there
    real, taken = Reader.read, 0

    def read(reader: Reader) -> Snapshot:
        nonlocal taken
        taken += 1
        if taken == nth:
            failing.start(name, errno.EINVAL, lambda call: True)
        try:
            return real(reader)
        finally:
            failing.stop()

    monkeypatch.setattr(Reader, "read", read)
    results = ran(case, machines)
    monkeypatch.setattr(Reader, "read", real)
    assert failing.failed
    return results


def test_without_mp_state_no_init_was_taken(machines: Machines, failing: Failing, monkeypatch: pytest.MonkeyPatch) -> None:
    """KVM_GET_MP_STATE makes KVM process the INIT: registers read without it are from before."""
    for case, nth in ((MSI, 2), (BROADCAST, 10)):
        results = _after(monkeypatch, machines, case, failing, "KVM_GET_MP_STATE", nth)
        assert {r.verdict for r in results} == {"error"}
        assert all("if the INIT was accepted: KVM_GET_MP_STATE: Invalid argument [EINVAL]" in r.reason for r in results)


@pytest.mark.parametrize("nth", [1, 2])
def test_what_a_failed_read_would_have_shown_is_an_error_and_the_rest_is_judged(
    nth: int, machines: Machines, failing: Failing, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = {r.item: r for r in _after(monkeypatch, machines, MSI, failing, "KVM_GET_REGS", nth)}
    assert {results[item].verdict for item in ("rax", "rdx", "rip", "rflags")} == {"error"}
    assert "KVM_GET_REGS: Invalid argument [EINVAL]" in results["rax"].reason
    assert results["cr0"].verdict == results["mp_state"].verdict == "pass"


@pytest.mark.parametrize("nth", [1, 2])
def test_the_mode_of_the_local_apic_is_known_without_sregs(
    nth: int, machines: Machines, failing: Failing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the MSR; else the logical ID, which x2APIC mode derives, is held against xAPIC mode's."""
    quiet = {r.item: r.verdict for r in ran(X2APIC, machines) if r.event == "init"}
    seen = [r for r in _after(monkeypatch, machines, X2APIC, failing, "KVM_GET_SREGS", nth) if r.event == "init"]
    results = {r.item: r for r in seen}
    assert results["cr0"].verdict == "error" and results["lapic.ldr"].verdict == quiet["lapic.ldr"] == "skip"
    assert not [r for r in seen if r.verdict not in ("error", "skip", quiet[r.item])]


@pytest.mark.parametrize("nth", [8, 16])
def test_a_sender_that_could_not_be_read_is_not_called_changed(
    nth: int, machines: Machines, failing: Failing, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = {r.item: r for r in _after(monkeypatch, machines, BROADCAST, failing, "KVM_GET_REGS", nth)}
    sender = results["delivered"]
    assert (sender.verdict, sender.observed) == ("error", None) and "KVM_GET_REGS" in sender.reason
    assert results["rax"].verdict == "pass"


def test_one_target_that_could_not_be_read_is_an_error_of_its_own(
    machines: Machines, failing: Failing, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = {r.item: r for r in _after(monkeypatch, machines, BROADCAST, failing, "KVM_GET_REGS", 12)}
    assert results["rax"].verdict == "error" and re.match("vcpus [0-7] of 7: KVM_GET_REGS", results["rax"].reason)
    assert results["cr0"].verdict == "pass" and results["delivered"].verdict == "pass"


@pytest.mark.parametrize("name", ["KVM_GET_REGS", "KVM_GET_MP_STATE", "KVM_GET_LAPIC", "KVM_GET_XSAVE2", "KVM_GET_VCPU_EVENTS"])
def test_a_failure_while_a_kept_machine_is_made_ends_with_its_case(name: str, machines: Machines, failing: Failing) -> None:
    whole = _run([MSI], Machines(machines.kvm, machines.host))
    for error in (errno.EINVAL, errno.ENOMEM):
        for call in range(1, 8):
            failing.start(name, error, lambda n, call=call: n == call)  # type: ignore[misc]
            first = _run([MSI], machines)
            if not failing.failed:
                break
            failing.stop()
            assert not _others(whole, first, name, errno.errorcode[error])
            assert {key: r.verdict for key, r in _run([MSI], machines).items()} == {key: r.verdict for key, r in whole.items()}
            machines.close()


def test_an_init_that_stays_pending_was_not_taken(machines: Machines, monkeypatch: pytest.MonkeyPatch) -> None:
    real, taken = Reader.read, 0

    def pending(reader: Reader) -> Snapshot:
        nonlocal taken
        taken += 1
        snapshot = real(reader)
        events = bytearray(snapshot.sections["events"])
        reader.layout.fields["events.smi_latched_init"].put(events, 1)
        return snapshot._replace(sections=snapshot.sections | {"events": bytes(events)})

    ran(MSI, machines)
    monkeypatch.setattr(Reader, "read", pending)
    monkeypatch.setattr(native, "library", lambda: None)
    results = ran(MSI, machines)
    assert taken == 2 and {r.verdict for r in results} == {"error"}
    assert "is still pending" in results[0].reason
