# SPDX-License-Identifier: GPL-2.0-only
"""KVM 6.1 with a line broken in what a VMM's reset, restore and migration use, and what must show it."""

from __future__ import annotations

from tests.lab.mutants import Mutant

_X86, _LAPIC, _SVM, _NESTED, _IOAPIC = "x86.c", "lapic.c", "svm/svm.c", "svm/nested.c", "ioapic.c"
_RESTART = "\t__start_apic_timer(apic, APIC_TMCCT);"
_SEARCH = "\tapic->highest_isr_cache = -1;"

RESTORED = (
    # One KVM_SET_* alone, or in an order that few VMMs have.
    Mutant(
        "rflags-without-fixed-bit", _X86, "\tkvm_set_rflags(vcpu, regs->rflags | X86_EFLAGS_FIXED);",
        "none.set-regs.host.rflags/ap,intel,registers-smallest", "0x0",
        "if (MUTANT) kvm_set_rflags(vcpu, regs->rflags); else",
    ),
    Mutant(
        "cpuid-lags-behind-cr4", _SVM, "\tif ((cr4 ^ old_cr4) & (X86_CR4_OSXSAVE | X86_CR4_PKE))",
        "none.set-sregs.host.delivered/*,alone-*", "*cpuid.1.ecx*", "if (!MUTANT)",
    ),
    Mutant(
        "cpuid-lags-behind-xcr0", _X86, "\tif ((xcr0 ^ old_xcr0) & XFEATURE_MASK_EXTEND)",
        "none.set-xcrs.host.delivered/*,either-side-*", "*cpuid.d.ebx*",
    ),
    Mutant(
        "nmi-comes-after-events", _X86, "\tif (events->flags & KVM_VCPUEVENT_VALID_SMM &&",
        "none.vcpu-events.host.events.nmi_pending/*,over-ioctl-nmi", "0x1",
        "if (MUTANT && atomic_read(&vcpu->arch.nmi_queued)) { int n = atomic_xchg(&vcpu->arch.nmi_queued, 0), "
        "r = kvm_vcpu_ioctl_x86_set_vcpu_events(vcpu, events); atomic_set(&vcpu->arch.nmi_queued, n); "
        "kvm_make_request(KVM_REQ_NMI, vcpu); return r; }",
    ),
    Mutant(
        "latched-init-not-taken-back", _X86, "\t\t\t\tclear_bit(KVM_APIC_INIT, &vcpu->arch.apic->pending_events);",
        "none.vcpu-events.host.pending/*", "0x1", "if (!MUTANT)",
    ),
    Mutant(
        "l2-outlives-nested-state", _NESTED, "\tif (!(kvm_state->flags & KVM_STATE_NESTED_GUEST_MODE)) {",
        "none.nested-state.host.nested.flags/*,out-of-svm-l2", "0x101",
        "if (MUTANT && !(kvm_state->flags & KVM_STATE_NESTED_GUEST_MODE)) { "
        "svm_set_gif(svm, kvm_state->flags & KVM_STATE_NESTED_GIF_SET); return 0; }",
    ),
    Mutant(
        "gif-not-restored", _NESTED, "\t\tsvm_set_gif(svm, !!(kvm_state->flags & KVM_STATE_NESTED_GIF_SET));",
        "*/*,amd,*gif-clear*", "*",
    ),
    Mutant(
        "fpu-loses-control-word", _X86, "\tfxsave->cwd = fpu->fcw;", "none.set-fpu.host.fcw/*", "0x*",
    ),
    Mutant(
        "fpu-loses-xmm", _X86, "\tmemcpy(fxsave->xmm_space, fpu->xmm, sizeof(fxsave->xmm_space));",
        "none.set-fpu.host.xmm0/*", "0x*",
    ),
    # Code after it: what reads back, and is not in force.
    Mutant(
        "restored-irr-not-seen", _LAPIC, _SEARCH, "none.set-lapic.guest.delivered/*,requested", "none",
        "if (MUTANT) apic->irr_pending = false;",
    ),
    Mutant(
        "restored-isr-not-counted", _LAPIC, _SEARCH, "none.set-lapic.guest.delivered/*,requested-below-one-in-service",
        "an interrupt", "if (MUTANT) apic->isr_count = 0;",
    ),
    Mutant(
        "timer-has-old-divider", _LAPIC, _RESTART, "none.set-lapic.guest.delivered/*,timer-one-shot-divided-by-128",
        "an interrupt", "if (MUTANT) apic->divide_count = 1;",
    ),
    Mutant(
        "waiting-irq-lost", _IOAPIC, "\tkvm_ioapic_inject_all(ioapic, state->irr);",
        "none.migrate.host.irqchip/*,at-masked-pin-migrated", "*bytes of KVM_IRQCHIP_IOAPIC*",
    ),
    Mutant(
        "cpl-of-before", _SVM, "\t\tsvm->vmcb->save.cpl = (var->dpl & 3);",
        "none.plant.host.ss.dpl/ap,amd,*,plant-*", "0x*", "if (!MUTANT)",
    ),
    Mutant(
        "tsc-adjust-moves-tsc", _X86, "\t\t\tif (!msr_info->host_initiated) {", "none.migrate.host.msr.tsc/*plant-a*", "*",
        "if (MUTANT) adjust_tsc_offset_guest(vcpu, data - vcpu->arch.ia32_tsc_adjust_msr); else",
    ),
    # Values that KVM has to refuse.
    Mutant(
        "x2apic-without-cpuid", _X86, "\tif ((msr_info->data & reserved_bits) != 0 || new_mode == LAPIC_MODE_INVALID)",
        "none.set-sregs.host.refused/*,apic-base-extd-without-x2apic", "accepted", "if (MUTANT) reserved_bits &= ~X2APIC_ENABLE;",
    ),
    Mutant(
        "boot-id-after-vcpus", _X86, "\t\t\tr = -EBUSY;", "none.set-boot-cpu-id.host.refused/*,after-vcpus", "accepted",
        "if (MUTANT) kvm->arch.bsp_vcpu_id = arg; else",
    ),
    Mutant(
        "reserved-pat-accepted", _SVM, "\t\tif (!kvm_mtrr_valid(vcpu, MSR_IA32_CR_PAT, data))",
        "none.set-msrs.host.refused/*,pat-reserved", "*accepted", "if (!MUTANT)",
    ),
    Mutant(
        "reserved-mtrr-accepted", _X86, "\t\treturn kvm_mtrr_set_msr(vcpu, msr, data);",
        "none.set-msrs.host.refused/*,mtrr-types-reserved", "*accepted",
        "if (MUTANT && !kvm_mtrr_valid(vcpu, msr, data)) return 0;",
    ),
    Mutant(
        "address-not-canonical-accepted", _X86, "\t\tif (is_noncanonical_address(data, vcpu))",
        "none.set-msrs.host.refused/*,addresses-not-canonical", "*accepted", "if (!MUTANT)",
    ),
    Mutant(
        "reserved-efer-accepted", _X86, "\tu64 efer = msr_info->data;", "none.set-msrs.host.refused/*,bits-reserved", "*accepted",
        "if (MUTANT) msr_info->data &= ~efer_reserved_bits;",
    ),
)  # fmt: skip
