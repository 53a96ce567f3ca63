# SPDX-License-Identifier: GPL-2.0-only
"""KVM 6.1 with a line that mends what an open deviation lists: where the line is in, the record passes."""

from __future__ import annotations

from typing import NamedTuple


class Counter(NamedTuple):
    """A ``statement`` before a ``line`` of ``file``, which mends KVM where MUTANT is true; the usual one keeps it from being
    executed on INIT. ``commit`` is the deviation's function, ``selector`` what passes then.
    """

    commit: str
    selector: str
    file: str
    line: str
    statement: str = "if (!(MUTANT && init_event))"
    backend: str = "svm"
    #: Of the backend's module, with which the deviation shows.
    parameters: str = ""


_X86, _LAPIC, _SVM, _NESTED, _VMX = "x86.c", "lapic.c", "svm/svm.c", "svm/nested.c", "vmx/vmx.c"
_R_INIT = (
    "({ u64 vm_cr = 0; kvm_get_msr(vcpu, MSR_VM_CR, &vm_cr); vm_cr & 2; }) "
    "&& test_and_clear_bit(KVM_APIC_INIT, &apic->pending_events)"
)
_SX = "kvm_queue_exception_e(vcpu, 30, 1)"
_AGAIN = "kvm_set_lapic_tscdeadline_msr(vcpu, kvm_get_lapic_tscdeadline_msr(vcpu));"

COUNTERS = (
    Counter("kvm_vcpu_reset()", "init.latched.host.msr.smi_count/*plant-a", _X86, "\tvcpu->arch.smi_count = 0;"),
    Counter(
        "kvm_vcpu_reset()", "init.latched.host.events.triple_fault_pending", _X86, "\tvcpu->arch.smi_pending = 0;",
        "if (MUTANT) kvm_clear_request(KVM_REQ_TRIPLE_FAULT, vcpu);",
    ),
    Counter("svm_vcpu_reset()", "init.latched.host.msr.spec_ctrl", _SVM, "\tsvm->spec_ctrl = 0;"),
    Counter("svm_vcpu_reset()", "init.latched.host.msr.virt_spec_ctrl", _SVM, "\tsvm->virt_spec_ctrl = 0;"),
    Counter(
        "svm_vcpu_reset()", "init.msi.host.msr.vm_cr/*svm-disabled", _SVM, "\tinit_vmcb(vcpu);",
        "if (MUTANT && init_event) svm->nested.vm_cr_msr &= ~SVM_VM_CR_SVM_DIS_MASK;",
    ),
    Counter(
        "svm_set_vm_cr()", "none.set-msrs.host.msr.vm_cr/*svm-disabled-and-enabled", _SVM,
        "\tif (svm->nested.vm_cr_msr & SVM_VM_CR_SVM_DIS_MASK)", "if (!MUTANT)",
    ),
    Counter(
        "kvm_init_msr_lists()", "none.migrate.host.msr.vm_cr", _X86, "\tfor (i = 0; i < ARRAY_SIZE(emulated_msrs_all); i++) {",
        "if (MUTANT) msrs_to_save[num_msrs_to_save++] = MSR_VM_CR;",
    ),
    Counter(
        "kvm_apic_accept_events()", "init.msi.guest.delivered/*,r-init*", _LAPIC,
        "\tif (test_and_clear_bit(KVM_APIC_INIT, &apic->pending_events)) {", f"if (MUTANT && {_R_INIT}) {{ {_SX}; return 0; }}",
    ),
    Counter("vmx_vcpu_reset()", "init.latched.host.msr.spec_ctrl", _VMX, "\tvmx->spec_ctrl = 0;", backend="vmx"),
    Counter(
        "vmx_vcpu_reset()", "init.latched.host.msr.umwait_control", _VMX, "\tvmx->msr_ia32_umwait_control = 0;", backend="vmx",
    ),
    Counter(
        "vmx_check_nested_events()", "sipi.msi.guest.runs/*in-vmx-l2-waiting", "vmx/nested.c",
        "\tif (nested_vmx_preemption_timer_pending(vcpu)) {",
        "if (MUTANT && vcpu->arch.mp_state == KVM_MP_STATE_INIT_RECEIVED) return 0;", backend="vmx",
    ),
    Counter(
        "__vmx_set_segment()", "none.plant.host.{ds,es,fs,gs}.{selector,base}/*plant-b*", _VMX, "\t\telse if (var->s)",
        "else if (MUTANT && !var->s) fix_rmode_seg(seg, &vmx->rmode.segs[seg]);",
        backend="vmx", parameters="unrestricted_guest=0",
    ),
    Counter("init_vmcb()", "init.latched.host.ss.dpl", _SVM, "\tsave->cs.selector = 0xf000;", "if (MUTANT) save->cpl = 0;"),
    Counter(
        "init_vmcb()", "init.latched.host.events.interrupt_shadow", _SVM, "\tinit_sys_seg(&save->ldtr, SEG_TYPE_LDT);",
        "if (MUTANT) control->int_state = 0;",
    ),
    Counter(
        "kvm_lapic_reset()", "init.{latched,self}.host.lapic.icr2/*,x2apic,*", _LAPIC,
        "\t\tkvm_lapic_set_reg64(apic, APIC_ICR, 0);",
        "if (MUTANT) kvm_lapic_set_reg(apic, APIC_ICR2, 0);",
    ),
    Counter(
        "svm_set_nested_state()", "none.nested-state.host.refused/*,l1-of-svm-l2-lma-without-lme", _NESTED,
        "\tif (!(save->cr0 & X86_CR0_PG) ||",
        "if (MUTANT && (save->efer & EFER_LMA) && !(save->efer & EFER_LME)) goto out_free;",
    ),
    Counter(
        "kvm_set_msr_common()", "none.set-msrs.guest.delivered/*,tsc-deadline-before-tsc", _X86,
        "\t\t\tkvm_synchronize_tsc(vcpu, data);",
        f"if (MUTANT) {{ kvm_synchronize_tsc(vcpu, data); if (lapic_in_kernel(vcpu)) {_AGAIN} }} else",
    ),
    Counter(
        "kvm_multiple_exception()", "none.vcpu-events.host.events.exception_has_payload/*,exception-pending", _X86,
        "\t\tif (!is_guest_mode(vcpu))", "if (!MUTANT || !vcpu->kvm->arch.exception_payload_enabled)",
    ),
    Counter(
        "kvm_arch_vcpu_ioctl_set_fpu()", "none.set-fpu.host/*,alone-on-new-vcpu", _X86,
        "\tmemcpy(fxsave->st_space, fpu->fpr, 128);",
        "if (MUTANT) vcpu->arch.guest_fpu.fpstate->regs.xsave.header.xfeatures |= XFEATURE_MASK_FPSSE;",
    ),
    Counter(
        "set_target_expiration()", "none.set-lapic.guest.delivered/*,timer-one-shot-0-left", _LAPIC,
        "\tif (!apic->lapic_timer.period) {",
        "if (MUTANT && count_reg != APIC_TMICT && apic_lvtt_oneshot(apic) && !kvm_lapic_get_reg(apic, count_reg)) return false;",
    ),
)  # fmt: skip
