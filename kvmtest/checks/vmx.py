# SPDX-License-Identifier: GPL-2.0-only
"""A VM with a hypervisor in it (L1, guests/vmx.S) that enters VMX operation and has a guest of its own (L2)."""

from __future__ import annotations

from typing import NamedTuple

from kvmtest.checks.check import Stopped, Subject, Untestable
from kvmtest.checks.l1 import Hypervisor
from kvmtest.guests import l1, vmx
from kvmtest.kvm import Exit, Vcpu
from kvmtest.kvm.where import where
from kvmtest.model.value import MP_STATES
from kvmtest.uapi.kvm import KVM_CAP_NESTED_STATE, KVM_EXIT_IO, KVM_STATE_NESTED_GUEST_MODE

__all__ = ("TURNS", "WHILE_S", "Exited", "Nested", "in_l2", "need_vmx", "offered", "state")

#: Turns of a loop without exits: some milliseconds at least.
TURNS = 1_000_000
#: How long a vCPU that must execute nothing, or that must get somewhere, is run.
WHILE_S = 0.02
_CPUID_VMX = 1 << 5
#: Of an exit reason: a VM entry that failed.
_ENTRY_FAILURE = 1 << 31


def need_vmx(subject: Subject) -> None:
    """Raises Untestable where the vCPU has no VMX."""
    if subject.vendor == "amd":
        raise Untestable("the guest's CPU is one of AMD's, which have no VMX")
    if not any(leaf.function == 1 and leaf.ecx & _CPUID_VMX for leaf in subject.vcpu.get_cpuid2()):
        raise Untestable("CPUID.1:ECX.VMX is clear: this KVM offers no VMX to its guests (kvm_intel's parameter nested=1)")
    if not subject.vcpu.vm.check_extension(KVM_CAP_NESTED_STATE):
        raise Untestable("KVM_CAP_NESTED_STATE is not there")


def offered(vcpu: Vcpu, index: int, bit: int) -> bool:
    """Whether capability MSR ``index`` that KVM shows its guest has ``bit``."""
    return bool(vcpu.get_msrs([index]).get(index, 0) & bit)


def in_l2(vcpu: Vcpu) -> bool:
    """Whether the vCPU runs a nested guest."""
    return bool(int.from_bytes(vcpu.get_nested_state()[:2], "little") & KVM_STATE_NESTED_GUEST_MODE)


def state(vcpu: Vcpu) -> str:
    """The activity state's name."""
    return MP_STATES.get(vcpu.get_mp_state(), "unknown")


class Exited(NamedTuple):
    """What L1 sees of a VM exit: VMCS fields, L2's RBX, and what SLDT gives."""

    reason: int
    qualification: int
    interruption: int
    activity: int
    pending_debug: int
    rip: int
    rbx: int
    ldtr: int

    def __str__(self) -> str:
        return f"exit reason {self.reason}"

    @property
    def kept(self) -> str:
        """What became of L2's registers."""
        return "kept" if self.rbx == vmx.MARK and vmx.CODE <= self.rip < vmx.CODE + vmx.CODE_SIZE else "changed"


class Nested(Hypervisor):
    """L1 before its entry into VMX operation, and L2 that does ``l2``. Raises Untestable."""

    def __init__(self, subject: Subject, topic: int, l2: int | None = None, **arguments: int) -> None:
        need_vmx(subject)
        super().__init__(subject, vmx, topic)
        self.set(ARG_L2=vmx.L2_SPIN if l2 is None else l2, ARG_TURNS=TURNS, **arguments)
        self.enter()
        self.expect(l1.PORT_READY)

    def begin(self) -> None:
        """Let L1 enter L2, up to L2's first word. Raises Stopped."""
        port, value = self.next()
        if port == vmx.PORT_VMFAIL:
            raise Stopped(f"L1's VM entry fails with VM-instruction error {value:#x}")
        if port != l1.PORT_NESTED:
            raise Stopped(f"L1 gets no word of L2: {value:#x} by port {port:#x}")
        if not in_l2(self.vcpu):
            raise Stopped(f"KVM_GET_NESTED_STATE shows no nested guest while it runs ({where(self.vcpu)})")

    def until_state(self, mp_state: int) -> Exit | None:
        """until() the activity state is KVM_MP_STATE_* ``mp_state``."""
        return self.until(lambda: self.vcpu.get_mp_state() == mp_state)

    def exited(self, seen: Exit | None = None) -> Exited | str:
        """Run to L2's next VM exit, or from ``seen``: what L1 says of it, or what came instead. Raises Stopped."""
        seen = seen or self.listen()
        if seen is None:
            return "no VM exit"
        if seen.reason == KVM_EXIT_IO and seen.port == l1.PORT_RESET:
            return "restarts"
        if seen.reason != KVM_EXIT_IO or seen.port != l1.PORT_EXIT:
            raise Stopped(f"no VM exit to L1, but {seen} ({where(self.vcpu)})")
        reason = int.from_bytes(seen.data[:4], "little")
        if reason & _ENTRY_FAILURE:
            return f"VM entry failed, reason {reason & ~_ENTRY_FAILURE}"
        return Exited(reason, *(self.expect(l1.PORT_VALUE) for _ in Exited._fields[1:]))
