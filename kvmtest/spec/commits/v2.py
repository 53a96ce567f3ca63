# SPDX-License-Identifier: GPL-2.0-only
"""The seven patches that only the series' second version has, of July 2021; subjects and ids as in its first version's list."""

from __future__ import annotations

from kvmtest.spec.commits.entry import KEPT, LESS, Entry, Sign, check, commit, items

__all__ = ("V2",)

_REFACTORING = "refactoring: the values that a vCPU ends up with are the same before and after"
_BOTH = "host guest"
#: Items that a SHUTDOWN intercept left unchanged: all of a vCPU that is not in its VMCB.
_KEPT = (
    "rax rbx rcx rdx rsi rdi rbp rsp r8 r9 r10 r11 r12 r13 r14 r15 cr2 cr8 dr0 dr1 dr2 dr3 dr6 dr7 "
    "lapic.tpr lapic.ppr lapic.ldr lapic.dfr lapic.svr lapic.isr2 lapic.timer_initial lapic.timer_divide "
    "lapic.lvt_timer lapic.lvt_thermal lapic.lvt_pmc lapic.lvt_error lapic.lvt_lint0 lapic.lvt_lint1 "
    "msr.kvm_system_time msr.kvm_system_time_new msr.kvm_steal_time msr.kvm_async_pf_en msr.kvm_async_pf_int"
)


def _patch(
    id: str, subject: str, path: str, what: str, *signs: Sign, hidden: str = "", before: str = "", after: str = ""
) -> Entry:
    return commit(id, "v5.15", subject, path, what, *signs, hidden=hidden, place="v2", before=before, after=after)


V2: tuple[Entry, ...] = (
    _patch(
        "df37ed38e6c2", "x86: Flush the guest's TLB on INIT", "common",
        "INIT flushes the guest's TLB entries on either vendor, which only Intel's manual asks for",
        check("init.msi.guest.memory", case="page-remapped"),
        hidden="kernels without it flush as well: VMX by INVVPID, SVM by a new ASID",
        before="flushed as well, by a new VPID or ASID", after="flushed",
    ),
    _patch(
        "4f117ce4aefc", "SVM: Zero out GDTR.base and IDTR.base on INIT", "SVM",
        "INIT clears both bases, where it used to set the limits only",
        items("init", "gdt.base idt.base", KEPT, views=_BOTH),
        # In SMM it is 0; RSM restores what was planted before the SMI.
        *(
            items("init", "idt.base", base, views=view, view=view, case="plant-guest-long,in-smi-handler")
            for view, base in (("host", 0x123443215000), ("guest", 0x43215000))
        ),
        check("init.msi.guest.delivered", "through the old table", case="idt-moved"),
        before="the bases from before", after="0x0",
    ),
    _patch(
        "908b7d43c02c", "x86/mmu: Skip the permission_fault() check on MMIO if CR0.PG=0", "common MMU",
        "saves a check that cannot fail without paging", hidden="it is faster, and nothing else",
    ),
    _patch(
        "e54949408abf", "VMX: Move RESET-only VMWRITE sequences to init_vmcs()", "VMX",
        "writes the fields that INIT keeps where the VMCS is made", hidden=_REFACTORING,
    ),
    _patch(
        "265e43530cb2", "SVM: Emulate #INIT in response to triple fault shutdown", "SVM",
        "a SHUTDOWN intercept makes a whole INIT, where it used to reset the VMCB and keep all the rest",
        items("shutdown", _KEPT, KEPT, "triple-fault"),
        items("shutdown", "events.exception_injected", 0x1, "triple-fault"),
        items("shutdown", "lapic.timer_current", LESS, "triple-fault"),
        check("shutdown.triple-fault.guest.runs", "an exception at CS:IP f000:fff0", case="at-triple-fault"),
        before="general and debug registers and the local APIC as they were", after="as after INIT",
    ),
    _patch(
        "46f4898b207f", "SVM: Drop redundant clearing of vcpu->arch.hflags at INIT/RESET", "SVM",
        "clears them once instead of three times", hidden=_REFACTORING,
    ),
    _patch(
        "4c72ab5aa6e0", "x86: Preserve guest's CR0.CD/NW on INIT", "common",
        "INIT keeps CR0.CD and CR0.NW as they are, where it used to set both",
        items("init", "cr0", 0x60000010, views=_BOTH),
        items("shutdown", "cr0", 0x60000010, "triple-fault", backends="svm"),
        before="0x60000010 whatever was there", after="CD and NW kept",
    ),
)
