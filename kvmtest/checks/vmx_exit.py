# SPDX-License-Identifier: GPL-2.0-only
"""What a VM exit leaves of the hypervisor's LDTR, and whether a move to CR3 makes one."""

from __future__ import annotations

import errno

from kvmtest.checks.check import Check, Stopped, Subject, Untestable
from kvmtest.checks.vmx import Nested, need_vmx, offered
from kvmtest.guests import l1, vmx
from kvmtest.kvm import KvmError
from kvmtest.spec.cite import S_VMX_BASIC, S_VMX_CONDITIONAL, S_VMX_HOST_SEGMENTS

__all__ = ("CHECKS",)

#: Primary processor-based controls.
_HLT_EXITING, _CR3_LOAD_EXITING = 1 << 7, 1 << 15
#: IA32_VMX_PROCBASED_CTLS2: what may be 1 is in the upper half.
_MSR_VMX_PROCBASED2, _MAY_BE_UNRESTRICTED = 0x48B, 1 << (32 + 7)
_CR0_PG, _EFER_LME, _EFER_LMA = 1 << 31, 1 << 8, 1 << 10


def _ldtr(subject: Subject) -> str:
    stage = Nested(subject, vmx.TOPIC_NESTED, vmx.L2_HLT, ARG_CONTROLS=_HLT_EXITING)
    before = stage.vcpu.get_sregs().ldt
    if before.selector != vmx.LDT or before.unusable:
        raise Stopped(f"L1's LLDT left selector {before.selector:#x}, unusable {before.unusable}")
    stage.begin()
    exited = stage.exited()
    if isinstance(exited, str):
        raise Stopped(f"L2's HLT leads elsewhere: {exited}")
    after = stage.vcpu.get_sregs().ldt
    return f"SLDT {exited.ldtr:#x}, KVM_GET_SREGS {after.selector:#x} unusable {after.unusable}"


def _cr3(subject: Subject) -> str:
    stage = Nested(subject, vmx.TOPIC_NESTED, vmx.L2_CR3, ARG_CONTROLS=_CR3_LOAD_EXITING)
    stage.begin()
    return _moved(stage)


def _moved(stage: Nested) -> str:
    """What comes of L2's MOV to CR3."""
    port, reason = stage.next()
    if port == l1.PORT_NESTED:
        return "no VM exit"
    if port != l1.PORT_EXIT:
        raise Stopped(f"{reason:#x} by port {port:#x} behind L2's MOV to CR3")
    return f"exit reason {reason}, qualification {stage.expect(l1.PORT_VALUE):#x}"


def _cr3_behind_paging(subject: Subject) -> str:
    """KVM without unrestricted guests intercepts CR3 while a guest does not page: it must not stop then for one whose L1 does."""
    need_vmx(subject)
    vcpu = subject.vcpu
    if offered(vcpu, _MSR_VMX_PROCBASED2, _MAY_BE_UNRESTRICTED):
        raise Untestable("a guest without paging is the CPU's business here: needs kvm_intel's parameter unrestricted_guest=0")
    stage = Nested(subject, vmx.TOPIC_NESTED, vmx.L2_CR3, ARG_CONTROLS=_CR3_LOAD_EXITING)
    stage.begin()
    vcpu.complete_io()
    sregs, paged = vcpu.get_sregs(), vcpu.get_sregs()
    sregs.cr0 &= ~_CR0_PG
    sregs.efer &= ~(_EFER_LME | _EFER_LMA)
    sregs.cs.l, sregs.cs.db = 0, 1
    try:
        vcpu.set_sregs(sregs)
    except KvmError as error:
        if error.errno != errno.EINVAL:
            raise
        raise Untestable("KVM_SET_SREGS refuses to clear CR0.PG of a nested guest that is not unrestricted") from error
    vcpu.set_sregs(paged)
    return _moved(stage)


_EXITS = (S_VMX_CONDITIONAL, S_VMX_BASIC)
#: Qualification: CR3, MOV to it, RAX.
_CR3_EXIT = "exit reason 28, qualification 0x3"

CHECKS = (
    Check(
        "none", "vm-exit", "ldtr-in-vmx-root", (), "SLDT 0x0, KVM_GET_SREGS 0x0 unusable 1", _ldtr, (S_VMX_HOST_SEGMENTS,),
        target="bsp", view="guest", alone=True,
    ),
    Check("none", "vm-exit", "cr3-load-in-vmx-guest", (), _CR3_EXIT, _cr3, _EXITS, target="bsp", view="guest", alone=True),
    Check(
        "none", "vm-exit", "cr3-load-in-repaged-vmx-guest", (), _CR3_EXIT, _cr3_behind_paging, _EXITS,
        target="bsp", view="guest", alone=True,
    ),
)  # fmt: skip
