# SPDX-License-Identifier: GPL-2.0-only
"""Checks in VMX operation pass and fail by what the hypervisor and its guest say: each is played with words made up here."""

from __future__ import annotations

import errno
from types import SimpleNamespace
from typing import Any

import pytest

from kvmtest.checks import CHECKS, Stopped, Subject, Untestable, vmx_exit, vmx_guest, vmx_root, vmx_state
from kvmtest.guests import l1
from kvmtest.guests import vmx as guest
from kvmtest.kvm import CpuidEntry, Exit, KvmError, RunTimeout
from kvmtest.triggers import msi
from kvmtest.uapi.kvm import (
    KVM_EXIT_IO,
    KVM_EXIT_IO_OUT,
    KVM_EXIT_SHUTDOWN,
    KVM_RUN,
    KVM_SET_MP_STATE,
    KVM_SET_SREGS,
    kvm_nested_state,
    kvm_regs,
    kvm_sregs,
    kvm_vcpu_events,
)
from tests.cases import judged_check

RUNNABLE, WAITING, HALTED = 0, 2, 3
MARK = guest.MARK
VMX_MISC, PROCBASED2 = 0x485, 0x48B
UNRESTRICTED = 1 << 39


def word(port: int, value: int = 0) -> Exit:
    """One 32-bit OUT of the guest."""
    exit_ = Exit(KVM_EXIT_IO)
    exit_.direction, exit_.port, exit_.size, exit_.count = KVM_EXIT_IO_OUT, port, 4, 1
    exit_.data = value.to_bytes(4, "little")
    return exit_


def exited(
    reason: int, qualification: int = 0, activity: int = 0, *, pending: int = 0, rip: int = 0x1400, rbx: int = MARK, ldtr: int = 0
) -> list[Exit]:
    """What L1 says of a VM exit."""
    values = (qualification, 0x80000B0E, activity, pending, rip, rbx, ldtr)
    return [word(l1.PORT_EXIT, reason), *(word(l1.PORT_VALUE, value) for value in values), READY]


READY, VALUE, LEFT, RESET = (word(port, 2_000_000) for port in (l1.PORT_READY, l1.PORT_VALUE, l1.PORT_LEFT, l1.PORT_RESET))
L2, SIPI, NMI = word(l1.PORT_NESTED), word(l1.PORT_SIPI, 0x100), word(guest.PORT_NMI)
NOTHING, DOWN = None, Exit(KVM_EXIT_SHUTDOWN)
#: More runs than fit into the time that play() gives.
FOR_EVER: list[Exit | None] = [NOTHING] * 100_000
ENTRY_FAILED = [word(l1.PORT_EXIT, 0x80000021)]


class Ram:
    """Memory in which L2 counts by ``step`` between two looks."""

    def __init__(self, step: int) -> None:
        self.count, self.step = 0, step

    def write(self, gpa: int, data: bytes) -> None: ...

    def write_int(self, gpa: int, value: int, size: int = 8) -> None: ...

    def read_int(self, gpa: int, size: int = 8) -> int:
        self.count += self.step
        return self.count


class Actor:
    """A vCPU that says ``words``, one a run and None for a run without an exit, whose ioctls give what is set here."""

    id = 0

    def __init__(self, words: list[Exit | None], **facts: Any) -> None:
        self.words = iter(words)
        self.nested, self.mp_state, self.latched, self.after_mp_state = 1, RUNNABLE, 1, 1
        self.cpuid, self.cap, self.msr, self.ldt = 1 << 5, 1, 1 << 8, (0x28, 0)
        self.ldt_after = (0, 1)
        self.set_errno = self.run_errno = 0
        self.step = 1
        self.reads = self.changes = 0
        self.rip = (0x1234, 0xFFF0)
        self.__dict__.update(facts)
        self.vm = SimpleNamespace(check_extension=lambda cap: self.cap, add_memory=lambda *args: Ram(self.step))
        self.left = False

    def run(self, timeout_s: float = 1.0) -> Exit:
        if self.run_errno:
            raise KvmError(self.run_errno, KVM_RUN)
        said = next(self.words)
        if said is None:
            raise RunTimeout(self, timeout_s)  # type: ignore[arg-type]
        if said.port == l1.PORT_EXIT:
            self.ldt = self.ldt_after
        return said

    def complete_io(self) -> None: ...

    def get_cpuid2(self) -> list[CpuidEntry]:
        return [CpuidEntry(1, ecx=self.cpuid)]

    def get_msrs(self, indices: list[int]) -> dict[int, int]:
        return {index: self.msr for index in indices}

    def get_nested_state(self) -> bytes:
        return bytes(kvm_nested_state(flags=self.nested))

    def set_nested_state(self, state: bytes) -> None:
        self.left = kvm_nested_state.from_buffer_copy(state).hdr.vmx.vmxon_pa == (1 << 64) - 1

    def get_mp_state(self) -> int:
        self.nested &= self.after_mp_state
        return self.mp_state

    def set_mp_state(self, state: int) -> None:
        if state and self.set_errno:
            raise KvmError(self.set_errno, KVM_SET_MP_STATE)

    def get_vcpu_events(self) -> kvm_vcpu_events:
        events = kvm_vcpu_events()
        events.smi.latched_init = self.latched
        return events

    def set_vcpu_events(self, events: kvm_vcpu_events) -> None: ...

    def get_sregs(self) -> kvm_sregs:
        sregs = kvm_sregs(cr0=0x80010033, efer=0x500)
        sregs.ldt.selector, sregs.ldt.unusable = self.ldt
        return sregs

    def set_sregs(self, sregs: kvm_sregs) -> None:
        if self.set_errno and not sregs.cr0 & 1 << 31:
            raise KvmError(self.set_errno, KVM_SET_SREGS)

    def get_regs(self) -> kvm_regs:
        self.reads += 1
        return kvm_regs(rip=self.rip[self.left], rflags=2, rbx=self.reads * self.changes)

    def get_debugregs(self) -> bytes:
        return b""

    def get_lapic(self) -> bytes:
        return b""

    def set_regs(self, regs: object) -> None: ...


@pytest.fixture(autouse=True)
def sent(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """INITs and SIPIs go nowhere."""
    events: list[str] = []
    monkeypatch.setattr(msi, "init", lambda vcpu: events.append("INIT"))
    monkeypatch.setattr(msi, "send", lambda vcpu, data: events.append(f"{data:#x}"))
    monkeypatch.setattr(vmx_guest, "set_svr", lambda vcpu, value: None)
    monkeypatch.setattr(msi, "sipi", lambda vcpu, vector: events.append(f"SIPI {vector:#x}"))
    monkeypatch.setattr(vmx_state, "run_at", lambda vcpu: None)
    return events


def play(id: str, words: list[Exit | None], vendor: str = "intel", **facts: Any) -> tuple[str, str | None, str]:
    check = CHECKS[id]
    result = judged_check(check, check.observe(Subject(Actor(words, **facts), vendor, 0.01)))  # type: ignore[arg-type]
    return result.verdict, result.observed, result.reason


G = "init.msi.guest."
S = "sipi.msi.guest."
ROOT = [READY, VALUE]
NESTED = [READY, L2]
PLAYS: tuple[tuple[str, list[Exit | None], dict[str, Any], str, str], ...] = (
    (G + "latched-in-vmx-root", ROOT, {}, "pass", "goes on, latched"),
    (G + "latched-in-vmx-root", ROOT, {"latched": 0}, "fail", "goes on, lost"),
    (G + "latched-in-vmx-root", [READY, RESET], {}, "fail", "taken in VMX root operation"),
    (G + "halted-in-vmx-root", [READY, NOTHING, NOTHING], {"mp_state": HALTED}, "pass", "HALTED"),
    (G + "halted-in-vmx-root", [READY, NOTHING, VALUE], {"mp_state": HALTED}, "fail", "HLT ends"),
    (G + "halted-in-vmx-root", [READY, NOTHING, RESET], {"mp_state": HALTED}, "fail", "restarts"),
    (G + "taken-at-vmxoff", [*ROOT, RESET], {}, "pass", "restarts"),
    (G + "taken-at-vmxoff", [*ROOT, LEFT, RESET], {}, "fail", "goes on, restarts later"),
    (G + "taken-at-vmxoff", [*ROOT, LEFT, NOTHING], {}, "fail", "goes on"),
    (G + "exit-from-vmx-guest", [*NESTED, *exited(3), LEFT], {}, "pass", "exit reason 3, registers kept, consumed"),
    (G + "exit-from-vmx-guest", [*NESTED, *exited(3), RESET], {}, "fail",
     "exit reason 3, registers kept, taken again behind VMXOFF"),
    (G + "exit-from-vmx-guest", [*NESTED, *exited(3, rbx=0), LEFT], {}, "fail", "exit reason 3, registers changed, consumed"),
    (G + "exit-from-vmx-guest", [*NESTED, *exited(3, rip=0xFFF0), LEFT], {}, "fail",
     "exit reason 3, registers changed, consumed"),
    (G + "exit-from-vmx-guest", [*NESTED, *exited(4), LEFT], {}, "fail", "exit reason 4, registers kept, consumed"),
    (G + "exit-from-vmx-guest", [*NESTED, NOTHING], {}, "fail", "no VM exit"),
    (G + "exit-from-vmx-guest", [*NESTED, RESET], {}, "fail", "restarts"),
    (G + "exit-from-halted-vmx-guest", [*NESTED, NOTHING, *exited(3, activity=1)], {"mp_state": HALTED}, "pass",
     "exit reason 3, activity state 1"),
    (G + "exit-from-halted-vmx-guest", [*NESTED, NOTHING, *exited(3)], {"mp_state": HALTED}, "fail",
     "exit reason 3, activity state 0"),
    (G + "exit-from-halted-vmx-guest", [*NESTED, NOTHING, NOTHING], {"mp_state": HALTED}, "fail", "no VM exit"),
    (G + "exit-at-vmx-entry", [READY, *exited(3)], {}, "pass", "exit reason 3"),
    (G + "exit-at-vmx-entry", [READY, NOTHING], {}, "fail", "no VM exit"),
    (G + "get-mp-state-in-vmx-guest", [*NESTED, *exited(3)], {}, "info", "exit reason 3 in KVM_RUN"),
    (G + "get-mp-state-in-vmx-guest", [*NESTED, *exited(3)], {"after_mp_state": 0}, "info", "exit reason 3 in KVM_GET_MP_STATE"),
    (G + "get-mp-state-in-vmx-guest", [*NESTED, NOTHING], {}, "fail", "no VM exit"),
    (G + "pending-debug-in-vmx-guest", [*NESTED, *exited(3, pending=0x4000)], {}, "pass",
     "exit reason 3, pending debug exceptions 0x4000"),
    (G + "pending-debug-in-vmx-guest", [*NESTED, *exited(3)], {}, "fail", "exit reason 3, pending debug exceptions 0x0"),
    (G + "blocked-in-waiting-vmx-guest", [READY, NOTHING, NOTHING, *exited(4)], {"mp_state": WAITING}, "pass",
     "no VM exit, then by a SIPI exit reason 4"),
    (G + "blocked-in-waiting-vmx-guest", [READY, NOTHING, *exited(3)], {"mp_state": WAITING}, "fail", "exit reason 3"),
    (G + "blocked-in-waiting-vmx-guest", [READY, NOTHING, RESET], {"mp_state": WAITING}, "fail", "restarts"),
    (G + "blocked-in-waiting-vmx-guest", [READY, NOTHING, NOTHING, NOTHING], {"mp_state": WAITING}, "fail",
     "no VM exit, then by a SIPI no VM exit"),
    (S + "exit-from-waiting-vmx-guest", [READY, NOTHING, *exited(4, 0x9A, 3)], {"mp_state": WAITING}, "pass",
     "exit reason 4, qualification 0x9a, activity state 3"),
    (S + "exit-from-waiting-vmx-guest", [READY, NOTHING, *exited(4, 0, 0)], {"mp_state": WAITING}, "fail",
     "exit reason 4, qualification 0x0, activity state 0"),
    (S + "exit-from-waiting-vmx-guest", [READY, NOTHING, NOTHING], {"mp_state": WAITING}, "fail", "no VM exit"),
    (S + "exit-from-waiting-vmx-guest", [READY, *ENTRY_FAILED], {"mp_state": WAITING}, "fail",
     "L2 does not wait: VM entry failed, reason 33"),
    *(
        (f"{S}{what}-in-waiting-vmx-guest", [READY, NOTHING, *words], {"mp_state": WAITING}, verdict, observed)
        for what, reason in (("nmi", 0), ("interrupt", 1))
        for words, verdict, observed in (
            ([NOTHING, *exited(4)], "pass", "no VM exit, then by a SIPI exit reason 4"),
            ([NOTHING, *exited(reason)], "fail", f"no VM exit, then by a SIPI exit reason {reason}"),
            (exited(reason), "fail", f"exit reason {reason}"),
        )
    ),
    (S + "nmi-in-waiting-vmx-guest", [READY, NOTHING, NOTHING, NMI, *exited(4)], {"mp_state": WAITING}, "pass",
     "no VM exit, then by a SIPI exit reason 4"),
    (S + "nmi-in-waiting-vmx-guest", [READY, NOTHING, NMI], {"mp_state": WAITING}, "fail", "the NMI in L2"),
    (S + "nmi-in-waiting-vmx-guest", [READY, NOTHING, NOTHING, NOTHING, NOTHING], {"mp_state": WAITING}, "fail",
     "no VM exit, then by a SIPI no VM exit"),
    (S + "beside-nmi-in-vmx-guest", [*NESTED, *exited(0)], {}, "pass", "exit reason 0"),
    (S + "beside-nmi-in-vmx-guest", [*NESTED, NMI], {}, "fail", "the NMI in L2"),
    (S + "beside-nmi-in-vmx-guest", [*NESTED, *exited(4)], {}, "fail", "exit reason 4"),
    (S + "beside-nmi-in-vmx-guest", [*NESTED, NOTHING], {}, "fail", "no VM exit"),
    (S + "dropped-in-vmx-guest", [*NESTED, NOTHING, *exited(3)], {}, "pass", "goes on, then by INIT exit reason 3"),
    (S + "dropped-in-vmx-guest", [*NESTED, *exited(4)], {}, "fail", "exit reason 4"),
    (S + "dropped-in-vmx-guest", [*NESTED, NOTHING, *exited(4)], {}, "fail", "goes on, then by INIT exit reason 4"),
    (S + "dropped-in-vmx-root", [*ROOT, LEFT], {"mp_state": WAITING}, "pass", "goes on, behind INIT INIT_RECEIVED"),
    (S + "dropped-in-vmx-root", [*ROOT, LEFT], {}, "fail", "goes on, behind INIT RUNNABLE"),
    (S + "dropped-in-vmx-root", [READY, SIPI], {}, "fail", "started by the SIPI"),
    (S + "dropped-behind-init-in-vmx-root", [*ROOT, NOTHING], {"mp_state": WAITING}, "pass", "behind VMXOFF INIT_RECEIVED"),
    (S + "dropped-behind-init-in-vmx-root", [*ROOT, LEFT], {"mp_state": WAITING}, "pass", "behind VMXOFF INIT_RECEIVED"),
    (S + "dropped-behind-init-in-vmx-root", [*ROOT, LEFT], {}, "fail", "behind VMXOFF RUNNABLE"),
    (S + "dropped-behind-init-in-vmx-root", [*ROOT, SIPI], {}, "fail", "started by the SIPI"),
    *(
        (f"shutdown.{trigger}.guest.exit-from-vmx-guest", [*NESTED, *words], {}, verdict, observed)
        for trigger in ("triple-fault", "vcpu-events")
        for words, verdict, observed in (
            (exited(2), "pass", "exit reason 2"),
            (exited(0), "fail", "exit reason 0"),
            ([DOWN], "fail", "KVM_EXIT_SHUTDOWN"),
        )
    ),
    ("none.vm-entry.host.waiting-vmx-guest", [], {}, "info", "offered"),
    ("none.vm-entry.host.waiting-vmx-guest", [], {"msr": 0}, "info", "not offered"),
    ("none.vm-exit.guest.ldtr-in-vmx-root", [*NESTED, *exited(12)], {}, "pass", "SLDT 0x0, KVM_GET_SREGS 0x0 unusable 1"),
    ("none.vm-exit.guest.ldtr-in-vmx-root", [*NESTED, *exited(12, ldtr=0x28)], {"ldt_after": (0x28, 0)}, "fail",
     "SLDT 0x28, KVM_GET_SREGS 0x28 unusable 0"),
    ("none.vm-exit.guest.ldtr-in-vmx-root", [*NESTED, *exited(12)], {"ldt_after": (0, 0)}, "fail",
     "SLDT 0x0, KVM_GET_SREGS 0x0 unusable 0"),
    *(
        (f"none.vm-exit.guest.cr3-load-in-{which}vmx-guest", [*NESTED, *words], {}, verdict, observed)
        for which in ("", "repaged-")
        for words, verdict, observed in (
            (exited(28, 3), "pass", "exit reason 28, qualification 0x3"),
            (exited(28, 0x103), "fail", "exit reason 28, qualification 0x103"),
            ([L2], "fail", "no VM exit"),
        )
    ),
    *(
        (f"init.{trigger}.host.latched-in-vmx-root", [], facts, verdict, observed)
        for trigger in ("latched", "msi")
        for facts, verdict, observed in (
            ({"latched": 0}, "fail", "not pending, RUNNABLE, all as it was, then RUNNABLE 0000:fff0"),
            ({"changes": 1}, "fail", "pending, RUNNABLE 0000:1234, then RUNNABLE 0000:fff0"),
            ({"rip": (0x1234, 0x1234)}, "fail", "pending, RUNNABLE, all as it was, then RUNNABLE 0000:1234"),
        )
    ),
    *(
        (f"none.mp-state.host.{state}-received-in-vmx-root", [NOTHING], facts, "info", observed)
        for state in ("init", "sipi")
        for facts, observed in (
            ({"set_errno": errno.EINVAL}, "EINVAL"),
            ({"run_errno": errno.EINVAL}, "taken, KVM_RUN: EINVAL"),
            ({}, "taken, KVM_RUN: waits"),
        )
    ),
)  # fmt: skip


@pytest.mark.parametrize(("id", "words", "facts", "verdict", "observed"), PLAYS)
def test_a_check_judges_what_is_said(
    id: str, words: list[Exit | None], facts: dict[str, Any], verdict: str, observed: str
) -> None:
    assert play(id, words, **facts)[:2] == (verdict, observed)


def test_each_check_is_shown_failing_and_passing() -> None:
    by_id: dict[str, set[str]] = {}
    for id, _, _, verdict, _ in PLAYS:
        by_id.setdefault(id, set()).add(verdict)
    checks = {check.id: check for topic in (vmx_root, vmx_guest, vmx_exit, vmx_state) for check in topic.CHECKS}
    assert by_id.keys() == checks.keys()
    assert all("fail" in by_id[id] for id, check in checks.items() if not check.undefined)


@pytest.mark.parametrize("id", sorted({id for id, *_ in PLAYS}))
@pytest.mark.parametrize(
    ("vendor", "facts", "why"), [("intel", {"cpuid": 0}, "nested=1"), ("amd", {}, "AMD"), ("intel", {"cap": 0}, "KVM_CAP")]
)
def test_without_vmx_there_is_nothing_to_show(id: str, vendor: str, facts: dict[str, int], why: str) -> None:
    with pytest.raises(Untestable, match=why):
        play(id, [], vendor, **facts)


@pytest.mark.parametrize(
    ("id", "facts", "why"),
    [
        (G + "blocked-in-waiting-vmx-guest", {"msr": 0}, "IA32_VMX_MISC"),
        (S + "exit-from-waiting-vmx-guest", {"msr": 0}, "IA32_VMX_MISC"),
        ("none.vm-exit.guest.cr3-load-in-repaged-vmx-guest", {"msr": UNRESTRICTED}, "unrestricted_guest=0"),
        ("none.vm-exit.guest.cr3-load-in-repaged-vmx-guest", {"set_errno": errno.EINVAL}, "refuses to clear CR0.PG"),
    ],
)
def test_what_the_cpu_lacks_is_skipped(id: str, facts: dict[str, int], why: str) -> None:
    with pytest.raises(Untestable, match=why):
        play(id, NESTED, **facts)


@pytest.mark.parametrize(
    ("id", "words", "facts", "why"),
    [
        (G + "exit-from-vmx-guest", [word(l1.PORT_FAULT, 6 << 24 | 0x1480)], {}, "exception 6"),
        (G + "exit-from-vmx-guest", [word(guest.PORT_VMFAIL, 0xFFFFFFFF)], {}, "port 0xfb"),
        (G + "exit-from-vmx-guest", [READY, word(guest.PORT_VMFAIL, 7)], {}, "VM-instruction error 0x7"),
        (G + "exit-from-vmx-guest", [READY, word(l1.PORT_EXIT, 0x80000021)], {}, "no word of L2"),
        (G + "exit-from-vmx-guest", NESTED, {"nested": 0}, "no nested guest"),
        (G + "exit-from-vmx-guest", [*NESTED, L2], {}, "no VM exit to L1"),
        (G + "halted-in-vmx-root", [READY, VALUE], {}, "ends without INIT"),
        (G + "exit-from-halted-vmx-guest", [*NESTED, L2], {}, "does not halt"),
        (S + "exit-from-waiting-vmx-guest", [READY, L2], {"mp_state": WAITING}, "no VM exit to L1"),
        (S + "exit-from-waiting-vmx-guest", [READY, *FOR_EVER], {}, "does not get"),
        (S + "exit-from-waiting-vmx-guest", [READY, NOTHING], {"mp_state": WAITING, "nested": 0}, "does not wait"),
        (S + "dropped-in-vmx-guest", [*NESTED, *FOR_EVER], {"step": 0}, "does not get"),
        (G + "exit-from-halted-vmx-guest", [*NESTED, *FOR_EVER], {}, "does not get"),
        (G + "exit-from-vmx-guest", [*NESTED, *exited(3), SIPI], {}, "port 0xf3"),
        (G + "latched-in-vmx-root", [READY, SIPI], {}, "port 0xf3"),
        (G + "taken-at-vmxoff", [*ROOT, SIPI], {}, "port 0xf3"),
        ("shutdown.triple-fault.guest.exit-from-vmx-guest", [*NESTED, NOTHING], {}, "no VM exit"),
        ("none.vm-exit.guest.ldtr-in-vmx-root", [READY], {"ldt": (0, 1)}, "LLDT left selector 0x0"),
        ("none.vm-exit.guest.ldtr-in-vmx-root", [*NESTED, NOTHING], {}, "no VM exit"),
        ("none.vm-exit.guest.cr3-load-in-vmx-guest", [*NESTED, LEFT], {}, "behind L2's MOV"),
    ],
)
def test_what_did_not_come_about_is_no_result(id: str, words: list[Exit | None], facts: dict[str, int], why: str) -> None:
    with pytest.raises(Stopped, match=why):
        play(id, words, **facts)
