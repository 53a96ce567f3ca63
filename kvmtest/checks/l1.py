# SPDX-License-Identifier: GPL-2.0-only
"""A VM with a hypervisor in it (guests/l1.inc and what includes it), which KVM_SET_SREGS puts into 64-bit mode."""

from __future__ import annotations

from types import ModuleType

from kvmtest.checks.check import Stopped, Subject
from kvmtest.checks.stage import Stage
from kvmtest.guests import l1
from kvmtest.kvm import Vcpu
from kvmtest.uapi.kvm import KVM_MP_STATE_RUNNABLE, kvm_dtable, kvm_regs, kvm_segment

__all__ = ("CR0", "CR4", "EFER", "Hypervisor")

#: PG WP NE ET MP PE; OSXMMEXCPT OSFXSR PAE; LMA LME.
CR0, CR4, EFER = 0x80010033, 0x620, 0x500


class Hypervisor(Stage):
    """Guest ``guest`` (a module of `kvmtest.guests` with NAME and the numbers of its source) in the subject's VM."""

    def __init__(self, subject: Subject, guest: ModuleType, topic: int) -> None:
        self.words = guest
        super().__init__(subject, topic)

    def _fill(self) -> None:
        self.ram.write(l1.CODE, l1.pages(self.words.NAME))
        self.ram.write(l1.PAGE_TABLES, l1.page_tables())

    def enter(self, *, efer: int = 0, cr4: int = 0) -> None:
        """Put the vCPU before the guest's beginning in 64-bit mode, with ``efer`` and ``cr4`` added. Raises KvmError."""
        vcpu = self.vcpu
        sregs = vcpu.get_sregs()
        flat = {"limit": 0xFFFFFFFF, "present": 1, "s": 1, "g": 1}
        sregs.cs = kvm_segment(selector=l1.CODE64, type=0xB, l=1, **flat)
        for name in ("ds", "es", "fs", "gs", "ss"):
            setattr(sregs, name, kvm_segment(selector=l1.DATA32, type=3, db=1, **flat))
        sregs.tr = kvm_segment(base=l1.TSS, limit=l1.TSS_LIMIT, selector=l1.TSS64, type=0xB, present=1)
        sregs.ldt = kvm_segment(unusable=1)
        sregs.gdt = kvm_dtable(base=l1.CODE + l1.AT_GDT, limit=l1.GDT_LIMIT)
        sregs.idt = kvm_dtable(base=l1.CODE + l1.AT_IDT, limit=l1.IDT_LIMIT)
        sregs.cr0, sregs.cr3, sregs.cr4, sregs.efer = CR0, l1.PAGE_TABLES, CR4 | cr4, EFER | efer
        vcpu.set_sregs(sregs)
        vcpu.set_regs(kvm_regs(rip=l1.CODE + l1.AT_ENTRY, rsp=l1.STACK, rflags=2))
        vcpu.set_mp_state(KVM_MP_STATE_RUNNABLE)

    def next(self, vcpu: Vcpu | None = None) -> tuple[int, int]:
        """The guest's next word: port and value. Raises Stopped for anything else that it does, exceptions as well."""
        port, value = self.word(vcpu)
        if port == l1.PORT_FAULT:
            raise Stopped(f"the guest stopped: exception {value >> 24}, error code or RIP {value & 0xFFFFFF:#x}")
        return port, value
