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

    @property
    def backend(self) -> str:
        """The backend of a cell whose KVM runs the line."""
        return "vmx" if self.file.startswith("vmx/") or self.function in _VMX_ALONE else "svm"

    @property
    def parameters(self) -> dict[str, str]:
        """Parameters of modules without which the function is not run."""
        return _PARAMETERS.get(self.function, {})


#: Of kvm.ko, and run where the local APIC's ICR is one register (x2apic_icr_is_split).
_VMX_ALONE = ("kvm_apic_state_fixup",)
#: Real mode as virtual-8086 mode.
_PARAMETERS = {"enter_rmode": {"kvm_intel": "unrestricted_guest=0"}}

_X86, _LAPIC, _SVM, _SVM_NESTED = "x86.c", "lapic.c", "svm/svm.c", "svm/nested.c"
_RESET, _APIC, _ACCEPT = "kvm_vcpu_reset", "kvm_lapic_reset", "kvm_apic_accept_events"
_GET, _SET = "kvm_vcpu_ioctl_x86_get_vcpu_events", "kvm_vcpu_ioctl_x86_set_vcpu_events"
_GET_SREGS, _SET_SREGS, _APIC_STATE = "__get_sregs_common", "__set_sregs_common", "kvm_apic_set_state"
_MP_GET, _MP_SET = "kvm_arch_vcpu_ioctl_get_mpstate", "kvm_arch_vcpu_ioctl_set_mpstate"
_VMX, _VMX_RESET = "vmx/vmx.c", "vmx_vcpu_reset"

PLACES = (
    # Reset by INIT.
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
    # Shown and accepted by ioctls.
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
    # More of what INIT resets, and of what it keeps.
    Place("lvt-kept", _LAPIC, _APIC, "\tfor (i = 0; i < apic->nr_lvt_entries; i++)", "the LVT outlives INIT"),
    Place("irr-kept", _LAPIC, _APIC, "\t\tkvm_lapic_set_reg(apic, APIC_IRR + 0x10 * i, 0);", "the IRR outlives INIT"),
    Place("ldr-kept", _LAPIC, _APIC, "\t\tkvm_apic_set_ldr(apic, 0);", "LDR outlives INIT"),
    Place("x2apic-icr-kept", _LAPIC, _APIC, "\t\tkvm_lapic_set_reg64(apic, APIC_ICR, 0);", "the x2APIC's ICR outlives INIT"),
    Place("apic-base-reset", _LAPIC, _APIC, "\t/* Stop the timer in case it's a reset to an active apic */",
          "INIT leads out of x2APIC mode",
          "if (MUTANT && init_event) kvm_lapic_set_base(vcpu, vcpu->arch.apic_base & ~(u64)X2APIC_ENABLE);"),
    Place("steal-time-kept", _X86, _RESET, "\tvcpu->arch.st.msr_val = 0;", "MSR_KVM_STEAL_TIME outlives INIT"),
    Place("xcr0-reset", _X86, _RESET, "\tcpuid_0x1 = kvm_find_cpuid_entry(vcpu, 1);", "XCR0 is 1 after INIT",
          "if (MUTANT) __kvm_set_xcr(vcpu, 0, XFEATURE_MASK_FP);"),
    Place("xmm-cleared", _X86, _RESET, "\tcpuid_0x1 = kvm_find_cpuid_entry(vcpu, 1);", "XMM0 is 0 after INIT",
          "if (MUTANT && init_event) memset(vcpu->arch.guest_fpu.fpstate->regs.fxsave.xmm_space, 0, 16);"),
    Place("smbase-reset", _X86, _RESET, "\tcpuid_0x1 = kvm_find_cpuid_entry(vcpu, 1);", "SMBASE is 30000H after INIT",
          "if (MUTANT) vcpu->arch.smbase = 0x30000;"),
    Place("interrupt-kept", _X86, _RESET, "\tkvm_clear_interrupt_queue(vcpu);", "an injected interrupt outlives INIT"),
    Place("exception-kept", _X86, _RESET, "\tkvm_clear_exception_queue(vcpu);", "an exception outlives INIT"),
    Place("vmcb-gdt-base-kept", _SVM, "init_vmcb", "\tsave->gdtr.base = 0;", "GDT.base outlives INIT"),
    Place("vmcb-ldtr-kept", _SVM, "init_vmcb", "\tinit_sys_seg(&save->ldtr, SEG_TYPE_LDT);", "LDTR outlives INIT"),
    Place("vmcb-fs-kept", _SVM, "init_vmcb", "\tinit_seg(&save->fs);", "FS outlives INIT"),
    Place("vmcb-cs-db", _SVM, "init_vmcb", "\tsave->gdtr.limit = 0xffff;", "CS is a 32-bit segment after INIT",
          "if (MUTANT) save->cs.attrib |= SVM_SELECTOR_DB_MASK;"),
    # More of INIT and SIPI.
    Place("init-keeps-sipi", _LAPIC, "__apic_accept_irq", "\t\t\tapic->pending_events = (1UL << KVM_APIC_INIT);",
          "a SIPI before the INIT starts the vCPU", "if (MUTANT) set_bit(KVM_APIC_INIT, &apic->pending_events); else"),
    Place("sipi-kept-while-blocked", _LAPIC, _ACCEPT, "\t\tclear_bit(KVM_APIC_SIPI, &apic->pending_events);",
          "a SIPI waits while INIT is blocked"),
    Place("init-never-blocked", _LAPIC, _ACCEPT, "\tif (!kvm_apic_init_sipi_allowed(vcpu)) {", "nothing blocks INIT"),
    Place("gif-does-not-block", _SVM, "svm_apic_init_signal_blocked", "\treturn !gif_set(svm);", "GIF does not block INIT",
          "if (MUTANT) return false;"),
    Place("sipi-always-starts", _LAPIC, _ACCEPT, "\t\tif (vcpu->arch.mp_state == KVM_MP_STATE_INIT_RECEIVED) {",
          "a SIPI starts any vCPU", "if (MUTANT) vcpu->arch.mp_state = KVM_MP_STATE_INIT_RECEIVED;"),
    Place("init-twice-lost", _LAPIC, _ACCEPT, "\tif (test_and_clear_bit(KVM_APIC_INIT, &apic->pending_events)) {",
          "an INIT in wait-for-SIPI is lost",
          "if (MUTANT && vcpu->arch.mp_state == KVM_MP_STATE_INIT_RECEIVED) clear_bit(KVM_APIC_INIT, &apic->pending_events);"),
    # More that ioctls show and accept.
    Place("interrupt-not-taken", _X86, _SET, "\tvcpu->arch.interrupt.injected = events->interrupt.injected;",
          "no injected interrupt is restored"),
    Place("interrupt-nr-lost", _X86, _SET, "\tvcpu->arch.interrupt.nr = events->interrupt.nr;", "an interrupt's vector is lost"),
    Place("error-code-lost", _X86, _SET, "\tvcpu->arch.exception.error_code = events->exception.error_code;",
          "an error code is not restored"),
    Place("nmi-mask-not-taken", _X86, _SET, "\tstatic_call(kvm_x86_set_nmi_mask)(vcpu, events->nmi.masked);",
          "masked NMIs are not restored"),
    Place("inside-nmi-not-taken", _X86, _SET, "\t\t\t\tvcpu->arch.hflags |= HF_SMM_INSIDE_NMI_MASK;",
          "an SMI inside an NMI is restored as one outside"),
    Place("triple-fault-not-taken", _X86, _SET, "\tif (events->flags & KVM_VCPUEVENT_VALID_TRIPLE_FAULT) {",
          "no triple fault is restored", "if (MUTANT) events->flags &= ~KVM_VCPUEVENT_VALID_TRIPLE_FAULT;"),
    Place("sipi-vector-not-taken", _X86, _SET, "\t\tvcpu->arch.apic->sipi_vector = events->sipi_vector;",
          "the vector of a SIPI by ioctl is lost"),
    Place("shadow-not-shown", _X86, _GET, "\tevents->nmi.injected = vcpu->arch.nmi_injected;", "no interrupt shadow is shown",
          "if (MUTANT) events->interrupt.shadow = 0;"),
    Place("halted-not-shown", _X86, _MP_GET, "\t\tmp_state->mp_state = vcpu->arch.mp_state;", "a halted vCPU is shown as running",
          "if (MUTANT && vcpu->arch.mp_state == KVM_MP_STATE_HALTED) mp_state->mp_state = 0; else"),
    Place("sipi-received-not-taken", _X86, _MP_SET, "\t\tset_bit(KVM_APIC_SIPI, &vcpu->arch.apic->pending_events);",
          "KVM_MP_STATE_SIPI_RECEIVED is no SIPI"),
    Place("dr7-not-taken", _X86, "kvm_vcpu_ioctl_x86_set_debugregs", "\tvcpu->arch.dr7 = dbgregs->dr7;", "DR7 is not restored"),
    Place("db-not-shown", _X86, "kvm_vcpu_ioctl_x86_get_debugregs",
          "\tmemcpy(dbgregs->db, vcpu->arch.db, sizeof(vcpu->arch.db));", "DR0 to DR3 are shown as 0"),
    Place("xcr0-not-taken", _X86, "kvm_vcpu_ioctl_x86_set_xcrs", "\tfor (i = 0; i < guest_xcrs->nr_xcrs; i++)",
          "XCR0 is not restored", "if (MUTANT) guest_xcrs->nr_xcrs = 0;"),
    Place("ymm-not-taken", _X86, "kvm_vcpu_ioctl_x86_set_xsave",
          "\txstate->xsave.header.xfeatures &= ~vcpu->arch.guest_fpu.fpstate->xfd;", "the upper halves of YMM are not restored",
          "if (MUTANT) xstate->xsave.header.xfeatures &= ~XFEATURE_MASK_YMM;"),
    Place("sse-not-taken", _X86, "kvm_vcpu_ioctl_x86_set_xsave",
          "\txstate->xsave.header.xfeatures &= ~vcpu->arch.guest_fpu.fpstate->xfd;", "XMM registers are not restored",
          "if (MUTANT) xstate->xsave.header.xfeatures &= ~XFEATURE_MASK_SSE;"),
    Place("fs-not-shown", _X86, _GET_SREGS, "\tkvm_get_segment(vcpu, &sregs->fs, VCPU_SREG_FS);", "FS is shown as GS",
          "if (MUTANT) kvm_get_segment(vcpu, &sregs->fs, VCPU_SREG_GS); else"),
    Place("tr-not-taken", _X86, _SET_SREGS, "\tkvm_set_segment(vcpu, &sregs->tr, VCPU_SREG_TR);", "TR is not restored"),
    Place("nxe-not-taken", _X86, _SET_SREGS, "\tstatic_call(kvm_x86_set_efer)(vcpu, sregs->efer);", "EFER.NXE is not restored",
          "if (MUTANT) sregs->efer &= ~(u64)EFER_NX;"),
    Place("gif-not-taken", _SVM_NESTED, "svm_set_nested_state",
          "\t\tsvm_set_gif(svm, !!(kvm_state->flags & KVM_STATE_NESTED_GIF_SET));", "GIF is not restored"),
    Place("gif-not-shown", _SVM_NESTED, "svm_get_nested_state", "\tif (gif_set(svm))", "GIF is shown as set",
          "if (MUTANT) kvm_state.flags |= KVM_STATE_NESTED_GIF_SET; else"),
    Place("avl-not-taken", _SVM, "svm_set_segment", "\ts->attrib |= (var->avl & 1) << SVM_SELECTOR_AVL_SHIFT;",
          "a segment's AVL is not restored"),
    Place("l-not-shown", _SVM, "svm_get_segment", "\tvar->l = (s->attrib >> SVM_SELECTOR_L_SHIFT) & 1;", "CS.L is shown as 0",
          "if (MUTANT) var->l = 0; else"),
    Place("star-not-taken", _SVM, "svm_set_msr", "\t\tsvm->vmcb01.ptr->save.star = data;", "STAR is not restored"),
    Place("cstar-not-shown", _SVM, "svm_get_msr", "\t\tmsr_info->data = svm->vmcb01.ptr->save.cstar;", "CSTAR is shown as LSTAR",
          "if (MUTANT) msr_info->data = svm->vmcb01.ptr->save.lstar; else"),
    Place("tsc-adjust-not-taken", _X86, "kvm_set_msr_common", "\t\t\tvcpu->arch.ia32_tsc_adjust_msr = data;",
          "IA32_TSC_ADJUST is not restored"),
    Place("tsc-not-restored", _X86, "kvm_set_msr_common", "\t\t\tkvm_synchronize_tsc(vcpu, data);",
          "the time-stamp counter is not restored"),
    Place("x2apic-icr2-lost", _LAPIC, "kvm_apic_state_fixup",
          "\t\t\t\t__kvm_lapic_set_reg(s->regs, APIC_ICR2, icr >> 32);", "ICR bits 63:32 of x2APIC mode are not saved",
          "if (MUTANT) __kvm_lapic_set_reg(s->regs, APIC_ICR2, 0); else"),
    # Other state that a VM saves.
    Place("ioapic-not-taken", "ioapic.c", "kvm_set_ioapic", "\tmemcpy(ioapic, state, sizeof(struct kvm_ioapic_state));",
          "the IOAPIC is not restored"),
    Place("ioapic-irr-lost", "ioapic.c", "kvm_set_ioapic", "\tkvm_ioapic_inject_all(ioapic, state->irr);",
          "the IOAPIC's requests are not restored"),
    Place("pic-not-taken", _X86, "kvm_vm_ioctl_set_irqchip", "\t\tmemcpy(&pic->pics[0], &chip->chip.pic,",
          "the master PIC is not restored"),
    Place("clock-not-taken", _X86, "kvm_vm_ioctl_set_clock", "\tka->kvmclock_offset = data.clock - now_raw_ns;",
          "the VM's clock is not restored"),
    # kvm_intel.
    Place("vmx-tr-kept", _VMX, _VMX_RESET, "\tvmcs_write16(GUEST_TR_SELECTOR, 0);", "TR's selector outlives INIT"),
    Place("vmx-gdt-limit-kept", _VMX, _VMX_RESET, "\tvmcs_write32(GUEST_GDTR_LIMIT, 0xffff);", "GDT.limit outlives INIT"),
    Place("vmx-ldtr-ar-kept", _VMX, _VMX_RESET, "\tvmcs_write32(GUEST_LDTR_AR_BYTES, 0x00082);",
          "LDTR's attributes outlive INIT"),
    Place("vmx-fs-kept", _VMX, _VMX_RESET, "\tseg_setup(VCPU_SREG_FS);", "FS outlives INIT"),
    Place("vmx-shadow-kept", _VMX, _VMX_RESET, "\tvmcs_write32(GUEST_INTERRUPTIBILITY_INFO, 0);",
          "an interrupt shadow outlives INIT"),
    Place("vmx-shadow-not-taken", _VMX, "vmx_set_interrupt_shadow", "\t\tinterruptibility |= GUEST_INTR_STATE_MOV_SS;",
          "no interrupt shadow is restored"),
    Place("vmx-root-does-not-block", _VMX, "vmx_apic_init_signal_blocked",
          "\treturn to_vmx(vcpu)->nested.vmxon && !is_guest_mode(vcpu);", "VMX root operation does not block INIT",
          "if (MUTANT) return false;"),
    Place("vmxon-not-taken", "vmx/nested.c", "vmx_set_nested_state", "\tvmx->nested.vmxon_ptr = kvm_state->hdr.vmx.vmxon_pa;",
          "the VMXON pointer is not restored"),
    Place("vmx-rmode-tr", _VMX, "enter_rmode",
          "\tvmx_get_segment(vcpu, &vmx->rmode.segs[VCPU_SREG_TR], VCPU_SREG_TR);", "an old TR is shown in real mode"),
    Place("vmx-rmode-shown", _VMX, "enter_rmode", "\tvmx->rmode.vm86_active = 1;",
          "segments are shown as virtual-8086 mode has them"),
)  # fmt: skip
