# SPDX-License-Identifier: GPL-2.0-only
"""A guest on one vCPU of the VM that sends an interprocessor interrupt (guests/sender.S)."""

from __future__ import annotations

from kvmtest import guests
from kvmtest.engine.error import TriggerError
from kvmtest.kvm import RunTimeout, Vcpu
from kvmtest.uapi.kvm import (
    KVM_EXIT_IO,
    KVM_MP_STATE_RUNNABLE,
    KVM_VCPUEVENT_VALID_NMI_PENDING,
    KVM_VCPUEVENT_VALID_PAYLOAD,
    KVM_VCPUEVENT_VALID_SHADOW,
    KVM_VCPUEVENT_VALID_TRIPLE_FAULT,
    kvm_regs,
    kvm_segment,
    kvm_vcpu_events,
)
from kvmtest.x86 import lapic

__all__ = ("prepare", "run", "send")

#: A page of its own between the pages that kvm_intel needs and the ROM.
_GPA, _SIZE, _SLOT = 0xFFFE0000, 0x1000, 7
_BSP, _XAPIC, _X2APIC = 0x100, 0xFEE00800, 0xFEE00C00
_PE_ET = 0x11
_DR7 = 0x400
_ICR_MSR = 0x830
_TIMEOUT_S = 1.0
#: What the guest needs not and must not change: one byte pattern a register.
_GPRS = ("rbx", "rsi", "rdi", "rbp", "rsp", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15")


def send(target: Vcpu, icr: int, *, x2apic: bool, destination: int | None = None) -> None:
    """Let the VM's other vCPU write ``icr`` (bits 31:0) to its ICR, with ``destination``, by default ``target``'s APIC id.

    All state of that vCPU is lost, and it has no logical APIC id of its own in xAPIC mode. Raises TriggerError where the
    guest did not get to its end, KvmError.
    """
    vcpu = next(other for other in target.vm.vcpus if other.id != target.id)
    prepare(vcpu, icr, target.id if destination is None else destination, x2apic=x2apic)
    run(vcpu)


def prepare(vcpu: Vcpu, icr: int, destination: int, *, x2apic: bool) -> None:
    """Make ``vcpu`` ready to write ``icr`` and ``destination``, the 8-bit (xAPIC) or 32-bit (x2APIC) destination, to its ICR.

    Flat 32-bit protected mode without paging, nothing pending, its local APIC in the mode asked for and software-enabled,
    without a logical id. What else it holds stays. Raises KvmError.
    """
    if not any(memory.slot == _SLOT for memory in vcpu.vm.memory):
        code = guests.load("sender")[:_SIZE]
        vcpu.vm.add_memory(_SLOT, _GPA, _SIZE).write(_GPA, code)
    _set_up(vcpu, x2apic)
    entry = guests.symbol("sender", "x2apic" if x2apic else "xapic")
    high = destination if x2apic else destination << 24
    patterns = {name: 0x5A5A5A00 + i for i, name in enumerate(_GPRS)}
    vcpu.set_regs(kvm_regs(rax=icr, rcx=_ICR_MSR, rdx=high, rip=_GPA + entry, rflags=2, **patterns))


def run(vcpu: Vcpu) -> None:
    """Let ``vcpu``, which prepare() has made ready, send. Raises TriggerError where it did not get to its end, KvmError."""
    try:
        seen = vcpu.run(_TIMEOUT_S)
    except RunTimeout as error:
        raise TriggerError(f"the sending guest: {error}") from error
    if seen.reason != KVM_EXIT_IO or seen.port != guests.symbol("sender", "PORT_SENT"):
        raise TriggerError(f"the sending guest did not write its ICR: {seen}")
    vcpu.complete_io()


def _set_up(vcpu: Vcpu, x2apic: bool) -> None:
    sregs = vcpu.get_sregs()
    flat = {"base": 0, "limit": 0xFFFFFFFF, "present": 1, "s": 1, "db": 1, "g": 1}
    sregs.cs = kvm_segment(selector=8, type=0xB, **flat)
    for name in ("ds", "es", "fs", "gs", "ss"):
        setattr(sregs, name, kvm_segment(selector=16, type=3, **flat))
    sregs.tr = kvm_segment(base=0, limit=0x67, type=0xB, present=1)
    sregs.ldt = kvm_segment(unusable=1)
    sregs.cr0, sregs.cr3, sregs.cr4, sregs.efer = _PE_ET, 0, 0, 0
    sregs.apic_base = (_X2APIC if x2apic else _XAPIC) | sregs.apic_base & _BSP
    vcpu.set_sregs(sregs)
    # What it was given for another case: also makes KVM look at the APIC ids again.
    state = vcpu.get_lapic()
    if not x2apic:
        lapic.put(state.regs, "ldr", 0)
    vcpu.set_lapic(state)
    flags = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW
    optional = KVM_VCPUEVENT_VALID_PAYLOAD | KVM_VCPUEVENT_VALID_TRIPLE_FAULT
    flags |= vcpu.get_vcpu_events().flags & optional
    vcpu.set_vcpu_events(kvm_vcpu_events(flags=flags))
    # No breakpoint armed: QEMU's TCG crashes when VMRUN loads one.
    debug = vcpu.get_debugregs()
    debug.dr7 = _DR7
    vcpu.set_debugregs(debug)
    vcpu.set_mp_state(KVM_MP_STATE_RUNNABLE)
