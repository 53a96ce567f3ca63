# SPDX-License-Identifier: GPL-2.0-only
"""A vCPU that does what a script says, for checks of what this host's KVM may lack: SMM, SVM.

It knows no rule: `Script.accept` says what KVM_GET_MP_STATE makes of what is pending, and each step what one KVM_RUN comes back
with and what it has changed.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

from kvmtest.checks import Subject
from kvmtest.kvm import CpuidEntry, Exit, GuestMemory, KvmError, RunTimeout
from kvmtest.uapi.kvm import (
    KVM_EXIT_IO,
    KVM_EXIT_SHUTDOWN,
    KVM_MP_STATE_INIT_RECEIVED,
    KVM_MP_STATE_RUNNABLE,
    KVM_RUN,
    KVM_STATE_NESTED_FORMAT_SVM,
    KVM_STATE_NESTED_GIF_SET,
    kvm_debugregs,
    kvm_lapic_state,
    kvm_nested_state,
    kvm_regs,
    kvm_sregs,
    kvm_vcpu_events,
)

__all__ = ("SHUTDOWN", "TIMEOUT", "Script", "Step", "init", "start", "subject", "word")

GIF = KVM_STATE_NESTED_GIF_SET


class Step(NamedTuple):
    """What one KVM_RUN comes back with, and what it did: a function of the vCPU, or memory words by address."""

    port: int = 0
    value: int = 0
    reason: int = KVM_EXIT_IO
    do: Callable[[Script], None] | None = None
    memory: dict[int, int] = {}
    timeout: bool = False


def word(port: int, value: int = 0, do: Callable[[Script], None] | None = None, **memory: int) -> Step:
    """The guest's word; ``memory`` is address (``at_540``, in hex) to 32-bit value."""
    return Step(port, value, do=do, memory={int(at.removeprefix("at_"), 16): to for at, to in memory.items()})


TIMEOUT = Step(timeout=True)


def SHUTDOWN(do: Callable[[Script], None] | None = None) -> Step:
    """KVM_EXIT_SHUTDOWN."""
    return Step(reason=KVM_EXIT_SHUTDOWN, do=do)


class Script:
    """The vCPU; it is its own VM and KVM as well."""

    def __init__(
        self,
        steps: Iterable[Step] = (),
        accept: Callable[[Script], None] | None = None,
        refuses: Sequence[str] = (),
        has: bool = True,
        bsp: bool = True,
    ) -> None:
        self.id = 0
        self.vm: Any = self
        self.kvm: Any = self
        self.steps = iter(steps)
        self.memory: list[GuestMemory] = []
        self.regs, self.sregs, self.debugregs = kvm_regs(), kvm_sregs(), kvm_debugregs()
        self.lapic, self.events = kvm_lapic_state(), kvm_vcpu_events()
        self.mp_state, self.flags = KVM_MP_STATE_RUNNABLE, GIF
        self.sipi: int | None = None
        self.msrs: dict[int, int] = {}
        self.xsave = bytes(4096)
        self.bsp = bsp
        self._accept = accept
        self._refuses = refuses
        self._has = has

    # The VM's

    def check_extension(self, cap: int) -> int:
        return int(self._has)

    def add_memory(self, slot: int, gpa: int, size: int, flags: int = 0) -> GuestMemory:
        self.memory.append(GuestMemory(slot, gpa, size, flags))
        return self.memory[-1]

    def signal_msi(self, addr_lo: int, data: int, addr_hi: int = 0) -> int:
        if data & 0x700 == 0x500:
            self.events.smi.latched_init = 1
            self.sipi = None
        else:
            self.sipi = data & 0xFF
        return 1

    def msr_index_list(self) -> list[int]:
        return sorted(self.msrs)

    # The vCPU's

    def run(self, timeout_s: float = 1.0) -> Exit:
        self._check("run", KVM_RUN)
        step = next(self.steps)
        if step.timeout:
            raise RunTimeout(SimpleNamespace(id=0), timeout_s)  # type: ignore[arg-type]
        if step.do:
            step.do(self)
        for at, value in step.memory.items():
            next(m for m in reversed(self.memory) if m.gpa <= at < m.gpa + m.size).write_int(at, value, 4)
        exit_ = Exit(step.reason)
        exit_.port, exit_.data = step.port, step.value.to_bytes(4, "little")
        return exit_

    def complete_io(self) -> None:
        pass

    def smi(self) -> None:
        pass

    def get_regs(self) -> kvm_regs:
        return kvm_regs.from_buffer_copy(self.regs)

    def set_regs(self, value: kvm_regs) -> None:
        self.regs = value

    def get_sregs(self) -> kvm_sregs:
        return kvm_sregs.from_buffer_copy(self.sregs)

    def set_sregs(self, value: kvm_sregs) -> None:
        self._check("set_sregs")
        self.sregs = value

    def get_debugregs(self) -> kvm_debugregs:
        return self.debugregs

    def get_lapic(self) -> kvm_lapic_state:
        return self.lapic

    def set_lapic(self, value: kvm_lapic_state) -> None:
        self.lapic = value

    def get_xsave(self) -> bytes:
        return self.xsave

    def get_vcpu_events(self) -> kvm_vcpu_events:
        return kvm_vcpu_events.from_buffer_copy(self.events)

    def set_vcpu_events(self, value: kvm_vcpu_events) -> None:
        if value.smi.smm or value.smi.pending:
            self._check("set_vcpu_events")
        self.events = value

    def get_mp_state(self) -> int:
        if self._accept:
            self._accept(self)
        return self.mp_state

    def set_mp_state(self, state: int) -> None:
        if state == KVM_MP_STATE_INIT_RECEIVED:
            self._check("set_mp_state")
        self.mp_state = state

    def get_nested_state(self) -> bytes:
        return bytes(kvm_nested_state(flags=self.flags, format=KVM_STATE_NESTED_FORMAT_SVM, size=128))

    def set_nested_state(self, state: bytes) -> None:
        flags = kvm_nested_state.from_buffer_copy(state).flags
        if not flags & GIF:
            self._check("set_nested_state")
        self.flags = flags

    def get_msrs(self, indices: Sequence[int]) -> dict[int, int]:
        return {index: self.msrs[index] for index in indices if index in self.msrs}

    def set_msrs(self, values: dict[int, int]) -> int:
        self.msrs |= values
        return len(values)

    def mce_cap_supported(self) -> int:
        return 0

    def x86_setup_mce(self, mcg_cap: int) -> None:
        pass

    def x86_set_mce(self, mce: object) -> None:
        pass

    def get_cpuid2(self) -> list[CpuidEntry]:
        return [CpuidEntry(0x80000001, ecx=4 if self._has else 0)]

    def _check(self, name: str, request: int = 0) -> None:
        if name in self._refuses:
            raise KvmError(errno.EINVAL, request, "made up")


def init(vcpu: Script) -> None:
    """The INIT state, as far as these checks look."""
    vcpu.regs, vcpu.sregs = kvm_regs(rip=0xFFF0), kvm_sregs()
    vcpu.sregs.cs.selector = 0xF000
    vcpu.events.smi.smm = vcpu.events.smi.latched_init = 0
    vcpu.flags = GIF
    vcpu.mp_state = KVM_MP_STATE_RUNNABLE if vcpu.bsp else KVM_MP_STATE_INIT_RECEIVED


def start(vcpu: Script) -> None:
    """What a pending SIPI does to a vCPU that waits for one; to another, nothing."""
    if vcpu.sipi is not None and vcpu.mp_state == KVM_MP_STATE_INIT_RECEIVED:
        vcpu.mp_state, vcpu.regs.rip, vcpu.sregs.cs.selector = KVM_MP_STATE_RUNNABLE, 0, vcpu.sipi << 8
    vcpu.sipi = None


def subject(vcpu: Script, backend: str = "svm") -> Subject:
    """For a check's observe()."""
    return Subject(vcpu, backend=backend)  # type: ignore[arg-type]
