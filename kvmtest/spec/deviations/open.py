# SPDX-License-Identifier: GPL-2.0-only
"""Departures of every kernel that were found in KVM's source, without any statement that they are intended."""

from __future__ import annotations

from kvmtest.spec.commits.entry import KEPT, Version
from kvmtest.spec.deviations.deviation import Deviation
from kvmtest.spec.rule import VENDORS

__all__ = ("OPEN",)

_FNINIT = "a new vCPU has the FPU of FNINIT, with FCW 37FH and all registers empty; after RESET FCW is 40H and FTW 5555H"
_TPR = "on a VM exit KVM reads TPR from the VMCB's V_TPR, which has its priority class alone: bits 3:0 are lost"
_PPR = "KVM_SET_LAPIC computes PPR from the ISR of before, and KVM_GET_LAPIC shows that; a guest that reads PPR gets the right one"
_VMX_CONTROLS = "KVM_GET_MSRS shows the default1 bits in a new vCPU's four VMX control MSRs without TRUE, which are 0 by KVM's API without its quirk"
_NO_LOGICAL = "an NMI to a logical id does not reach a local APIC that is software-disabled: KVM's map of logical ids leaves it out"
_SVR_TAKEN = "KVM_SET_LAPIC that fails for its APIC id has written the spurious-interrupt vector register before"
_HALF_DONE = "KVM_SET_VCPU_EVENTS that fails for KVM_VCPUEVENT_VALID_TRIPLE_FAULT has written the other events before"
_HASHED = (
    "with vector_hashing a lowest-priority message to several logical ids is lost if KVM chooses one of them that nobody has"
)

#: Of the VMCS's fields, which vmx_get_segment() reads then.
_STALE_SEGMENT = (
    "with unrestricted_guest=0 and CR0.PE clear KVM writes selector and base of an unusable segment to no field of the VMCS, "
    "and reads those of before back"
)
#: Those of RESET, of guest code in protected mode, of plant-a and of plant-c.
_STALE_SEGMENTS = {
    "ds.selector": (0, 0x10, 0x5A5F, 0xA5A0),
    "ds.base": (0, 0x5A5A1000, 0xA5A00),
    "es.selector": (0, 0x10, 0xA5A3, 0x5A5C),
    "es.base": (0, 0xA5A52000, 0x5A5C0),
    "fs.selector": (0, 0x10, 0x5A53, 0xA5AC),
    "fs.base": (0, 0x5A5AA5A51234, 0xA5AC0),
    "gs.selector": (0, 0x10, 0xA5AF, 0x5A50),
    "gs.base": (0, 0x25A55A5A1234, 0x5A500),
}
_NO_UD2 = "with unrestricted_guest=0 KVM emulates what virtual-8086 mode cannot execute, as the code in SMM, and its emulator has no UD2"
_UNRESTRICTED = "unrestricted_guest"
_VM86 = "with unrestricted_guest=0 real mode is virtual-8086 mode with IOPL 3, which a guest's PUSHF shows"

#: Causes of these departures; a change of one line fixes each on 6.1: tests/lab/counter.py.
_L1_LMA = "KVM_SET_NESTED_STATE accepts an L1 with EFER.LMA and without EFER.LME"
_NOT_REARMED = "a VMM's write of the TSC leaves the TSC-deadline timer armed for the TSC of before: no interrupt comes when it is due"
_FIRES_AGAIN = "KVM_SET_LAPIC starts a one-shot timer whose current count is 0, which has fired already: it fires a second time"
_SMI_COUNT = "INIT clears MSR_SMI_COUNT, which counts the SMIs since the last RESET"
_SPEC_CTRL = "INIT clears this MSR, which only RESET is to clear"
_CPL = "INIT keeps SS.DPL: KVM shows the VMCB's CPL there, which init_vmcb() does not write"
_SHADOW = "INIT keeps the interrupt shadow: init_vmcb() does not write the VMCB's"
_TRIPLE_FAULT = "INIT keeps a triple fault that KVM_SET_VCPU_EVENTS has made pending: the vCPU shuts down when it runs"
#: Since 73b42dc69be8.
_ICR2 = "in x2APIC mode INIT keeps bits 63:32 of the ICR in the place where KVM_GET_LAPIC shows them"
_VM_CR = "INIT keeps VM_CR.SVMDIS where LOCK is clear: KVM resets VM_CR nowhere"
_SVMDIS = "KVM_SET_MSRS does not clear VM_CR.SVMDIS once it is set"
_WAITS = "an L2 in wait-for-SIPI exits to L1 for an NMI or an interrupt, which that state blocks"
_PAYLOAD = "KVM_SET_VCPU_EVENTS with a pending #DB delivers its payload at once, with KVM_CAP_EXCEPTION_PAYLOAD too, by which it stays pending"
_SET_FPU = "KVM_SET_FPU has no effect while the x87 and SSE state is its initial one: it does not set XSTATE_BV, by which XRSTOR loads it"
_UNLISTED = "KVM_GET_MSR_INDEX_LIST does not name VM_CR, so that a VMM loses it in a migration"
_R_INIT = "INIT with VM_CR.R_INIT set resets the vCPU, where it is to raise #SX: KVM keeps the bit and reads it nowhere"
#: 265e43530cb2 made an INIT of it, and 5d2d7e41e3b8 of the same release left the MMU to that; passes with "KVM: x86:
#: Unconditionally reset MMU context when emulating INIT", and with kvm_mmu_reset_context() in shutdown_interception().
_STALE_MMU = "a vCPU that shut down in paging mode executes nothing after INIT: shutdown_interception() clears CR0.PG, and INIT then keeps the old MMU"
#: In 7.2 it passes with SVM_EXITINTINFO_VALID for SVM_EXITINTINFO_TYPE_MASK.
_STALE_TYPE = (
    "KVM emulates no access while EXITINTINFO has the type of an event, valid or not: QEMU's TCG leaves that of one that KVM has injected"
)
_NO_WINDOW = "an INIT that waits for GIF comes not at STGI but after the next VM exit: with vgif KVM intercepts STGI for NMI and SMI alone"
#: Cases in which INIT waits for STGI; with kvm_amd.vgif=0 it comes in time.
_AT_STGI = (
    *(f"after-{name}-in-svm-l2" for name in ("rdmsr", "out", "gp", "pf", "vmrun")),
    *("in-svm-l2-intercepted", "after-refused-vmrun", "after-nested-page-fault"),
)


def _open(
    item: str, event: str, observed: int | str, commit: str, why: str, backends: str = "", view: str = "", case: str = "",
    since: Version = (0, 0), backports: tuple[Version, ...] = (), sometimes: bool = False, mode: str = "",
    without: str = "",
) -> Deviation:  # fmt: skip
    return Deviation(
        item, event, observed, commit, why, "open", backends, view=view, since=since, case=case, backports=backports,
        sometimes=sometimes, mode=mode, without=without,
    )  # fmt: skip


OPEN = (
    _open("fcw", "reset", 0x37F, "fpstate_init_user()", _FNINIT),
    _open("ftw", "reset", 0x0, "fpstate_init_user()", _FNINIT),
    *(
        _open(
            f"reset.create.host.msr.vmx_{name}_ctls", "reset", value, "vmx_get_vmx_msr()", _VMX_CONTROLS, backends="vmx",
            case="feature-msrs-unquirked",
        )
        for name, value in (("pinbased", "0x16"), ("procbased", "0x401e172"), ("exit", "0x36dff"), ("entry", "0x11ff"))
    ),
    _open(
        "nmi.icr-xapic.host.delivered", "nmi", "no vCPU", "kvm_recalculate_apic_map()", _NO_LOGICAL,
        case="to-logical-and-nobody-flat-one-software-disabled",
    ),
    *(
        _open("none.ioapic.host.delivered", "none", "no vCPU", "kvm_apic_map_get_dest_lapic()", _HASHED, case=f"lowest-to-{case}")
        for case in ("logical-and-nobody-x2apic", "logical-several-flat-one-disabled", "logical-several-cluster-one-software-disabled")
    ),
    _open(
        "none.vcpu-events.host.delivered", "none", "events.nmi_injected, events.nmi_masked changed",
        "kvm_vcpu_ioctl_x86_set_vcpu_events()", _HALF_DONE, case="triple-fault-without-capability",
    ),
    _open(
        "none.set-lapic.host.delivered", "none", "lapic.svr changed", "kvm_apic_set_state()", _SVR_TAKEN,
        case="other-id-with-32-bit-ids",
    ),
    *(
        _open("init.msi.guest.runs", "init", f"L1 after STGI, turns {turns}", "svm_apic_init_signal_blocked()", _NO_WINDOW, "svm", case=case)
        for turns, case in (*(("0x0", case) for case in _AT_STGI), ("0x3d0900", "at-stgi"))
    ),
    # A vCPU that guest code has planted comes out of it: it is no part of those cases' names.
    *(
        _open(
            "init.msi.guest.runs", "init", "executes nothing", "kvm_vcpu_reset()", _STALE_MMU, "svm", case=f"{vendor},in-shutdown",
            since=(5, 15), backports=((6, 12),),
        )
        for vendor in VENDORS
    ),
    _open(
        "none.nested-state.host.refused", "none", "accepted", "svm_set_nested_state()", _L1_LMA, "svm",
        case="l1-of-svm-l2-lma-without-lme", backports=((6, 12),),
    ),
    _open("none.set-msrs.guest.delivered", "none", "none", "kvm_set_msr_common()", _NOT_REARMED, case="tsc-deadline-before-tsc"),
    _open("none.set-lapic.guest.delivered", "none", "an interrupt", "set_target_expiration()", _FIRES_AGAIN, case="timer-one-shot-0-left"),
    *(
        _open(
            "none.mmio.guest.runs", "none",
            f"KVM_EXIT_INTERNAL_ERROR KVM_INTERNAL_ERROR_DELIVERY_EV ndata=5 words=[0xfee00030, {exit_}, 0xfee00030, 0x0]",
            "svm_check_emulate_instruction()", _STALE_TYPE, "svm", case="first-after-exception", since=(6, 14), sometimes=True,
        )
        # With nested paging and without.
        for exit_ in ("0x400, 0x100000004", "0x4e, 0x0")
    ),
    _open("msr.smi_count", "init", 0, "kvm_vcpu_reset()", _SMI_COUNT),
    # Since 265e43530cb2.
    _open("msr.smi_count", "shutdown", 0, "kvm_vcpu_reset()", _SMI_COUNT, "svm", since=(5, 15)),
    *(_open(f"msr.{name}", "init", 0, "svm_vcpu_reset()", _SPEC_CTRL, "svm") for name in ("spec_ctrl", "virt_spec_ctrl")),
    *(_open(f"msr.{name}", "init", 0, "vmx_vcpu_reset()", _SPEC_CTRL, "vmx") for name in ("spec_ctrl", "umwait_control")),
    # In L2 the planted ones are in its VMCB, which INIT goes out of.
    _open("ss.dpl", "init", KEPT, "init_vmcb()", _CPL, "svm", sometimes=True),
    _open("events.interrupt_shadow", "init", KEPT, "init_vmcb()", _SHADOW, "svm", sometimes=True),
    # QEMU reads events before KVM_GET_MP_STATE takes the vCPU out of L2 by an INIT: restored are L2's, with the INIT pending.
    _open(
        "events.interrupt_shadow", "migrate", 3, "init_vmcb()", _SHADOW, "svm", case="in-svm-l2,migrated-after-qemu", sometimes=True,
    ),
    _open("events.triple_fault_pending", "init", KEPT, "kvm_vcpu_reset()", _TRIPLE_FAULT),
    *(
        _open("lapic.icr2", "init", seen, "kvm_lapic_reset()", _ICR2, "svm", case=case, since=(5, 18), mode="x2apic")
        for seen, case in ((KEPT, ""), (1, "plant-guest-long"))
    ),
    _open("msr.vm_cr", "init", KEPT, "svm_vcpu_reset()", _VM_CR, "svm", case="svm-disabled"),
    _open("none.set-msrs.host.msr.vm_cr", "none", "0x10", "svm_set_vm_cr()", _SVMDIS, "svm", case="svm-disabled-and-enabled"),
    _open("msr.vm_cr", "migrate", 0, "kvm_init_msr_lists()", _UNLISTED, "svm"),
    _open(
        "init.msi.guest.delivered", "init", "the first instruction at the reset vector", "kvm_apic_accept_events()", _R_INIT, "svm",
        case="r-init",
    ),
    *(
        _open("sipi.msi.guest.runs", "sipi", f"a VM exit to L1, reason {reason}", "vmx_check_nested_events()", _WAITS, "vmx", case=f"after-{name}-in-vmx-l2-waiting")
        for reason, name in (("0x0", "nmi"), ("0x1", "interrupt"))
    ),
    # With unrestricted_guest=1, the usual, these pass.
    *(
        _open(
            f"none.plant.host.{field}", "none", f"{value:#x}", "__vmx_set_segment()", _STALE_SEGMENT, "vmx", sometimes=True, without=_UNRESTRICTED,
        )
        for field, stale in _STALE_SEGMENTS.items() for value in stale
    ),
    *(
        _open(
            field, "migrate", 0, "__vmx_set_segment()", _STALE_SEGMENT, "vmx", case="plant-b", sometimes=True, without=_UNRESTRICTED,
        )
        for field in (*_STALE_SEGMENTS, "msr.fs_base", "msr.gs_base")
    ),
    *(
        _open(f"none.set-fpu.host.{item}", "none", "0x37f" if item == "fcw" else "0x0", "kvm_arch_vcpu_ioctl_set_fpu()", _SET_FPU, case="on-new-vcpu")
        for item in ("fcw", "fsw", "ftw", "fop", "fip", "fdp", *(f"st{i}" for i in range(8)), *(f"xmm{i}" for i in range(16)))
    ),
    # That of 5.10 does not say which instruction.
    *(
        _open(
            "shutdown.triple-fault.guest.runs", "shutdown", f"KVM_EXIT_INTERNAL_ERROR KVM_INTERNAL_ERROR_EMULATION {insn} flags=0x1",
            "handle_emulation_failure()", _NO_UD2, "vmx", case="in-smm", sometimes=True, without=_UNRESTRICTED,
        )
        for insn in ("ndata=8 insn=0f 0b f4 f4 f4 f4 f4 f4 f4 f4 f4 f4 f4 f4 f4", "ndata=0 words=[]")
    ),
    _open("rflags", "init", 0x3002, "enter_rmode()", _VM86, "vmx", view="guest", sometimes=True, without=_UNRESTRICTED),
    _open("rflags", "views", 0x3002, "enter_rmode()", _VM86, "vmx", sometimes=True, without=_UNRESTRICTED),
    _open("lapic.tpr", "sipi", 0xD0, "sync_cr8_to_lapic()", _TPR, backends="svm", view="guest"),
    # After a migration both views may show it.
    _open("lapic.tpr", "views", 0xD0, "sync_cr8_to_lapic()", _TPR, backends="svm", sometimes=True),
    _open("lapic.ppr", "views", 0xF0, "kvm_apic_set_state()", _PPR, sometimes=True),
    # Debian's 6.12.118 and 7.2.13 leave it pending: kvm_handle_exception_payload_quirk().
    _open(
        "none.vcpu-events.host.events.exception_has_payload", "none", "0x0", "kvm_multiple_exception()", _PAYLOAD,
        case="exception-pending", sometimes=True,
    ),
)
