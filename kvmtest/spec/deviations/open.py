# SPDX-License-Identifier: GPL-2.0-only
"""Departures of every kernel that were found in KVM's source, without any statement that they are intended."""

from __future__ import annotations

from kvmtest.spec.commits.entry import KEPT, Version
from kvmtest.spec.deviations.deviation import Deviation

__all__ = ("OPEN",)

_FNINIT = "a new vCPU's FPU is in the FNINIT configuration, in all kernels; the architectural RESET image is another"
_TPR = "on an exit KVM reads TPR from the VMCB's V_TPR, which has its priority class only: bits 3:0 are lost"
_PPR = "KVM_SET_LAPIC computes PPR before it looks at the ISR that it was given; a guest's read computes it anew"
_VMX_CONTROLS = "KVM_GET_MSRS adds the bits that are always 1 to the four VMX controls without TRUE, whatever they hold; the API says 0"
_NO_LOGICAL = "KVM's map of logical ids leaves out a local APIC that software has disabled, which INIT, SIPI and NMI reach all the same"
_SVR_TAKEN = "KVM checks the id after it has written the spurious-interrupt vector register, which stays when it refuses the rest"
_HALF_DONE = "KVM checks this flag after all others, and has written the rest when it refuses it"
_HASHED = (
    "with vector_hashing KVM chooses one bit of a logical destination for a lowest-priority message, and drops it if that is nobody's"
)

#: Causes of these departures; a change of one line fixes each on 6.1: tests/lab/counter.py.
_L1_LMA = "KVM_SET_NESTED_STATE accepts an L1 with EFER.LMA and without EFER.LME"
_NOT_REARMED = "the deadline was armed by the old TSC, and writing the TSC does not arm it again"
_FIRES_AGAIN = "a one-shot timer with nothing left has fired already; KVM arms it for now"
_SMI_COUNT = "KVM resets the count with INIT as well, which runs since the last RESET"
_SPEC_CTRL = "KVM resets it with INIT as well as with RESET"
_CPL = "SS.DPL is the VMCB's CPL, which nothing writes in INIT or RESET"
_SHADOW = "the VMCB's interrupt shadow outlives INIT: nothing writes it"
_TRIPLE_FAULT = "a triple fault that a VMM has made pending outlives INIT, and shuts the vCPU down when it runs"
#: Since 73b42dc69be8.
_ICR2 = "in x2APIC mode the upper half of the 64-bit ICR, where KVM_GET_LAPIC shows it, outlives INIT"
_VM_CR = "nothing resets VM_CR: its SVMDIS outlives INIT without LOCK"
_SVMDIS = "SVMDIS once set is not cleared, by a VMM neither"
_WAITS = "an L2 that waits for a SIPI exits by an NMI and an interrupt, which that state blocks"
_UNLISTED = "KVM_GET_MSR_INDEX_LIST does not name VM_CR, so that a VMM does not save it"
_R_INIT = "KVM keeps VM_CR.R_INIT and looks at it nowhere: INIT resets the vCPU, where it is to be #SX"
#: 265e43530cb2 made an INIT of it, and 5d2d7e41e3b8 of the same release left the MMU to that; passes with "KVM: x86:
#: Unconditionally reset MMU context when emulating INIT", and with kvm_mmu_reset_context() in shutdown_interception().
_STALE_MMU = "shutdown_interception() clears the VMCB, and with it the CR0.PG without which INIT does not reset the MMU"
_NO_WINDOW = "with vgif KVM does not intercept STGI for an INIT that waits, as it does for NMI and SMI: it comes after the next exit"
#: Cases in which INIT waits for STGI; with kvm_amd.vgif=0 it comes in time.
_AT_STGI = (
    *(f"after-{name}-in-svm-l2" for name in ("rdmsr", "out", "gp", "pf", "vmrun")),
    *("in-svm-l2-intercepted", "after-refused-vmrun", "after-nested-page-fault"),
)


def _open(
    item: str, event: str, observed: int | str, commit: str, why: str, backends: str = "", view: str = "", case: str = "",
    since: Version = (0, 0), backports: tuple[Version, ...] = (), sometimes: bool = False, mode: str = "",
) -> Deviation:  # fmt: skip
    return Deviation(
        item, event, observed, commit, why, "open", backends, view=view, since=since, case=case, backports=backports,
        sometimes=sometimes, mode=mode,
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
    _open(
        "init.msi.guest.runs", "init", "executes nothing", "kvm_vcpu_reset()", _STALE_MMU, "svm", case="in-shutdown",
        since=(5, 15), backports=((6, 12),),
    ),
    _open(
        "none.nested-state.host.refused", "none", "accepted", "svm_set_nested_state()", _L1_LMA, "svm",
        case="l1-of-svm-l2-lma-without-lme", backports=((6, 12),),
    ),
    _open("none.set-msrs.guest.delivered", "none", "none", "kvm_set_msr_common()", _NOT_REARMED, case="tsc-deadline-before-tsc"),
    _open("none.set-lapic.guest.delivered", "none", "an interrupt", "set_target_expiration()", _FIRES_AGAIN, case="timer-one-shot-0-left"),
    _open("msr.smi_count", "init", 0, "kvm_vcpu_reset()", _SMI_COUNT),
    _open("msr.smi_count", "shutdown", 0, "kvm_vcpu_reset()", _SMI_COUNT, "svm"),
    *(_open(f"msr.{name}", "init", 0, "svm_vcpu_reset()", _SPEC_CTRL, "svm") for name in ("spec_ctrl", "virt_spec_ctrl")),
    *(_open(f"msr.{name}", "init", 0, "vmx_vcpu_reset()", _SPEC_CTRL, "vmx") for name in ("spec_ctrl", "umwait_control")),
    # In L2 the planted ones are in its VMCB, which INIT goes out of.
    _open("ss.dpl", "init", KEPT, "init_vmcb()", _CPL, "svm", sometimes=True),
    _open("events.interrupt_shadow", "init", KEPT, "init_vmcb()", _SHADOW, "svm", sometimes=True),
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
    _open("lapic.tpr", "sipi", 0xD0, "sync_cr8_to_lapic()", _TPR, backends="svm", view="guest"),
    _open("lapic.tpr", "views", 0xD0, "sync_cr8_to_lapic()", _TPR, backends="svm"),
    _open("lapic.ppr", "views", 0xF0, "kvm_apic_set_state()", _PPR),
)
