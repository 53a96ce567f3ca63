# SPDX-License-Identifier: GPL-2.0-only
"""Places of KVM 6.1 to break, in RESET, INIT, SIPI, latched INIT, save and restore, for random scenarios to find.

As the mutants of the lab's tests they are a statement before a line of arch/x86/kvm, which breaks KVM where MUTANT is true; the
usual one keeps the line from being executed.
"""

from __future__ import annotations

from typing import NamedTuple


class Place(NamedTuple):
    """A ``line`` of ``function`` in ``file``, and the ``statement`` before it; ``breaks`` is what that does, in words."""

    name: str
    file: str
    function: str
    line: str
    breaks: str
    statement: str = "if (!MUTANT)"


_X86, _LAPIC, _SVM = "x86.c", "lapic.c", "svm/svm.c"
_RESET, _APIC, _ACCEPT = "kvm_vcpu_reset", "kvm_lapic_reset", "kvm_apic_accept_events"
_GET, _SET = "kvm_vcpu_ioctl_x86_get_vcpu_events", "kvm_vcpu_ioctl_x86_set_vcpu_events"
_GET_SREGS, _SET_SREGS, _APIC_STATE = "__get_sregs_common", "__set_sregs_common", "kvm_apic_set_state"

PLACES = (
    # What INIT resets.
    Place("nmi-pending-kept", _X86, _RESET, "\tvcpu->arch.nmi_pending = 0;", "a pending NMI outlives INIT"),
    Place("nmi-injected-kept", _X86, _RESET, "\tvcpu->arch.nmi_injected = false;", "an injected NMI outlives INIT",
          "if (!(MUTANT && init_event))"),
    Place("smi-pending-kept", _X86, _RESET, "\tvcpu->arch.smi_pending = 0;", "a pending SMI outlives INIT"),
    Place("db-kept", _X86, _RESET, "\tmemset(vcpu->arch.db, 0, sizeof(vcpu->arch.db));", "DR0 to DR3 outlive INIT"),
    Place("dr6-kept", _X86, _RESET, "\tvcpu->arch.dr6 = DR6_ACTIVE_LOW;", "DR6 outlives INIT"),
    Place("dr7-kept", _X86, _RESET, "\tvcpu->arch.dr7 = DR7_FIXED_1;", "DR7 outlives INIT"),
    Place("cr2-kept", _X86, _RESET, "\tvcpu->arch.cr2 = 0;", "CR2 outlives INIT"),
    Place("gprs-kept", _X86, _RESET, "\tmemset(vcpu->arch.regs, 0, sizeof(vcpu->arch.regs));", "GPRs outlive INIT",
          "if (!(MUTANT && init_event))"),
    Place("rdx-default", _X86, _RESET, "\tkvm_rdx_write(vcpu, cpuid_0x1 ? cpuid_0x1->eax : 0x600);", "RDX is not CPUID.1:EAX",
          "if (MUTANT) cpuid_0x1 = NULL;"),
    Place("rflags-zf", _X86, _RESET, "\tnew_cr0 = X86_CR0_ET;", "RFLAGS.ZF is set after INIT",
          "if (MUTANT) kvm_set_rflags(vcpu, X86_EFLAGS_FIXED | X86_EFLAGS_ZF);"),
    Place("rip-kept", _X86, _RESET, "\tkvm_rip_write(vcpu, 0xfff0);", "RIP is 0 after INIT", "if (!(MUTANT && init_event))"),
    Place("cr3-kept", _X86, _RESET, "\tvcpu->arch.cr3 = 0;", "CR3 outlives INIT", "if (!(MUTANT && init_event))"),
    Place("cd-nw-set", _X86, _RESET, "\t\tnew_cr0 |= (old_cr0 & (X86_CR0_NW | X86_CR0_CD));", "CR0.CD and NW change with INIT"),
    Place("cr4-de", _X86, _RESET, "\tif (old_cr0 & X86_CR0_PG) {", "CR4.DE is set after INIT",
          "if (MUTANT) static_call(kvm_x86_set_cr4)(vcpu, X86_CR4_DE);"),
    Place("efer-kept", _X86, _RESET, "\tstatic_call(kvm_x86_set_efer)(vcpu, 0);", "EFER outlives INIT"),
    Place("misc-features-reset", _X86, _RESET, "\t/* All GPRs except RDX (handled below) are zeroed on RESET/INIT. */",
          "MSR_MISC_FEATURES_ENABLES is 0 after INIT", "if (MUTANT) vcpu->arch.msr_misc_features_enables = 0;"),
    Place("pat-reset", _X86, _RESET, "\tcpuid_0x1 = kvm_find_cpuid_entry(vcpu, 1);", "PAT is its reset value after INIT",
          "if (MUTANT) vcpu->arch.pat = 0x0007040600070406ULL;"),
    Place("lvt-error-vector", _LAPIC, _APIC, "\tkvm_lapic_set_reg(apic, APIC_TMICT, 0);", "the error LVT has a vector after INIT",
          "if (MUTANT) kvm_lapic_set_reg(apic, APIC_LVTERR, 0x10033);"),
    Place("dfr-kept", _LAPIC, _APIC, "\tkvm_apic_set_dfr(apic, 0xffffffffU);", "DFR outlives INIT"),
    Place("svr-kept", _LAPIC, _APIC, "\tapic_set_spiv(apic, 0xff);", "SVR outlives INIT"),
    Place("tpr-kept", _LAPIC, _APIC, "\tkvm_lapic_set_reg(apic, APIC_TASKPRI, 0);", "TPR outlives INIT"),
    Place("esr-kept", _LAPIC, _APIC, "\tkvm_lapic_set_reg(apic, APIC_ESR, 0);", "ESR outlives INIT"),
    Place("icr2-kept", _LAPIC, _APIC, "\t\tkvm_lapic_set_reg(apic, APIC_ICR2, 0);", "ICR bits 63:32 outlive INIT"),
    Place("tdcr-kept", _LAPIC, _APIC, "\tkvm_lapic_set_reg(apic, APIC_TDCR, 0);", "the timer's divider outlives INIT"),
    Place("isr-kept", _LAPIC, _APIC, "\t\tkvm_lapic_set_reg(apic, APIC_ISR + 0x10 * i, 0);", "the ISR outlives INIT"),
    Place("tmr-kept", _LAPIC, _APIC, "\t\tkvm_lapic_set_reg(apic, APIC_TMR + 0x10 * i, 0);", "the TMR outlives INIT"),
    Place("vmcb-idt-kept", _SVM, "init_vmcb", "\tsave->idtr.limit = 0xffff;", "IDT.limit outlives INIT"),
    Place("vmcb-cs-limit-kept", _SVM, "init_vmcb", "\tsave->cs.limit = 0xffff;", "CS.limit outlives INIT"),
    # INIT and SIPI.
    Place("bsp-waits", _LAPIC, _ACCEPT, "\t\tif (kvm_vcpu_is_bsp(apic->vcpu))", "a boot processor waits for a SIPI",
          "if (MUTANT) vcpu->arch.mp_state = KVM_MP_STATE_INIT_RECEIVED; else"),
    Place("ap-runs", _LAPIC, _ACCEPT, "\t\t\tvcpu->arch.mp_state = KVM_MP_STATE_INIT_RECEIVED;", "an AP runs after INIT",
          "if (MUTANT) vcpu->arch.mp_state = KVM_MP_STATE_RUNNABLE; else"),
    Place("sipi-does-not-start", _LAPIC, _ACCEPT, "\t\t\tstatic_call(kvm_x86_vcpu_deliver_sipi_vector)(vcpu, sipi_vector);",
          "SIPI leaves CS:IP as it is"),
    Place("sipi-vector-masked", _LAPIC, _ACCEPT, "\t\t\tsipi_vector = apic->sipi_vector;", "the vector's high bit is lost",
          "if (MUTANT) sipi_vector = apic->sipi_vector & 0x7f; else"),
    Place("sipi-base", _X86, "kvm_vcpu_deliver_sipi_vector", "\tcs.base = vector << 12;", "SIPI leaves CS.base as it is"),
    Place("sipi-rip", _X86, "kvm_vcpu_deliver_sipi_vector", "\tkvm_rip_write(vcpu, 0);", "SIPI leaves RIP as it is"),
    # What ioctls show and take.
    Place("latched-not-shown", _X86, _GET, "\tevents->smi.latched_init = kvm_lapic_latched_init(vcpu);", "no INIT is shown"),
    Place("smm-not-shown", _X86, _GET, "\tevents->smi.smm = is_smm(vcpu);", "SMM is not shown"),
    Place("masked-not-shown", _X86, _GET, "\tevents->nmi.masked = static_call(kvm_x86_get_nmi_mask)(vcpu);",
          "masked NMIs are shown as unmasked"),
    Place("shadow-not-taken", _X86, _SET, "\tif (events->flags & KVM_VCPUEVENT_VALID_SHADOW)", "no interrupt shadow is restored",
          "if (MUTANT) events->flags &= ~KVM_VCPUEVENT_VALID_SHADOW;"),
    Place("nmi-pending-not-taken", _X86, _SET, "\t\tvcpu->arch.nmi_pending = events->nmi.pending;", "no pending NMI is restored"),
    Place("nmi-injected-not-taken", _X86, _SET, "\tvcpu->arch.nmi_injected = events->nmi.injected;",
          "no injected NMI is restored"),
    Place("payload-lost", _X86, _SET, "\tvcpu->arch.exception.payload = events->exception_payload;", "a payload is not restored"),
    Place("latched-not-taken", _X86, _SET, "\t\t\t\tset_bit(KVM_APIC_INIT, &vcpu->arch.apic->pending_events);",
          "a latched INIT is not restored"),
    Place("cr2-not-taken", _X86, _SET_SREGS, "\tvcpu->arch.cr2 = sregs->cr2;", "CR2 is not restored"),
    Place("gdt-not-shown", _X86, _GET_SREGS, "\tsregs->gdt.limit = dt.size;", "GDT.limit is shown as that of the IDT",
          "if (MUTANT) dt.size = sregs->idt.limit;"),
    Place("cr8-not-taken", _X86, _SET_SREGS, "\tkvm_set_cr8(vcpu, sregs->cr8);", "CR8 is not restored"),
    Place("lapic-esr-lost", _LAPIC, _APIC_STATE, "\tmemcpy(vcpu->arch.apic->regs, s->regs, sizeof(*s));", "ESR is not restored",
          "if (MUTANT) memset(s->regs + APIC_ESR, 0, 4);"),
    Place("sregs-runs-bsp", _X86, _SET_SREGS, "\t/* Older userspace won't unhalt the vcpu on reset. */",
          "KVM_SET_SREGS wakes a halted vCPU",
          "if (MUTANT) vcpu->arch.mp_state = KVM_MP_STATE_RUNNABLE;"),
)  # fmt: skip
