# SPDX-License-Identifier: GPL-2.0-only
"""KVM 6.1 with a line too many: each mutant is a statement before a line of arch/x86/kvm, and what must show it."""

from __future__ import annotations

from typing import NamedTuple


class Mutant(NamedTuple):
    """A line of ``file``, and a ``statement`` before it that breaks KVM where MUTANT is true; the usual one is a condition, which
    keeps the line from being executed. ``selector`` is what is run on ``backend``, and ``shown`` a glob over the observed value,
    or over the reason, of a result that fails.
    """

    name: str
    file: str
    line: str
    selector: str
    shown: str
    statement: str = "if (!MUTANT)"
    backend: str = "svm"


_LAPIC, _X86, _IRQ, _SVM, _NESTED = "lapic.c", "x86.c", "irq_comm.c", "svm/svm.c", "svm/nested.c"
_ACCEPT = "\tif (!kvm_apic_init_sipi_allowed(vcpu)) {"
_DROP_SIPI = "\t\tclear_bit(KVM_APIC_SIPI, &apic->pending_events);"
_PEND_INIT = "\t\t\tapic->pending_events = (1UL << KVM_APIC_INIT);"
_SEND_IPI = "\tkvm_irq_delivery_to_apic(apic->vcpu->kvm, apic, &irq, NULL);"
_EXIT_ON_INIT = "\t\tif (!nested_exit_on_init(svm))"
_SHUTDOWN = "\tkvm_run->exit_reason = KVM_EXIT_SHUTDOWN;"
_LEAVE_SMM = "\t\t/* Process a latched INIT or SMI, if any.  */"
_STATE = "vcpu->arch.mp_state == KVM_MP_STATE_"
_FORGET = "vcpu->arch.apic->pending_events = 0;"
_IS_INIT = "irq.delivery_mode == APIC_DM_INIT"

_NO_TRACE = "the event left no trace*"
_NOT_PENDING = "*no INIT is pending*"
_PAGES, _BYTES = "bsp,intel,written-pages", "* other bytes, the first at *"


def _dropped(name: str, when: str, selector: str) -> Mutant:
    """An INIT is lost where it arrives at the local APIC."""
    return Mutant(f"init-dropped-{name}", _LAPIC, _PEND_INIT, selector, _NO_TRACE, f"if (MUTANT && {when}) break;")


def _kept(name: str, when: str, selector: str) -> Mutant:
    """INIT leaves CR2 as it is in one state only."""
    line, statement = "\tvcpu->arch.cr2 = 0;", f"if (!(MUTANT && ({when})))"
    return Mutant(f"cr2-kept-{name}", _X86, line, f"init.{{latched,msi}}.host.cr2/{selector}", "0x*", statement)


MUTANTS = (
    # Held and dropped events.
    Mutant(
        "init-dropped-in-smm", _LAPIC, _ACCEPT, "init.latched.host.rax/*,amd,*,in-smm", _NO_TRACE,
        "if (MUTANT && is_smm(vcpu)) apic->pending_events = 0;",
    ),
    Mutant(
        "init-dropped-gif-clear", _LAPIC, _ACCEPT, "init.msi.host.rax/*,amd,*,gif-clear", _NO_TRACE,
        "if (MUTANT && static_call(kvm_x86_apic_init_signal_blocked)(vcpu)) apic->pending_events = 0;",
    ),
    Mutant(
        "init-accepted-in-smm", "lapic.h", "\treturn !is_smm(vcpu) &&", "init.latched.host.delivered/*,amd,*,in-smm",
        "*rip*changed", "if (MUTANT) return !static_call(kvm_x86_apic_init_signal_blocked)(vcpu);",
    ),
    Mutant(
        "init-accepted-gif-clear", _SVM, "\treturn !gif_set(svm);", "init.msi.host.delivered/*,amd,*,gif-clear",
        "*rip*changed", "if (MUTANT) return false;",
    ),
    Mutant(
        "sipi-accepted-running", _LAPIC, "\t\tif (vcpu->arch.mp_state == KVM_MP_STATE_INIT_RECEIVED) {",
        "sipi.msi.host.delivered/ap,amd,running", "rip, cs.selector, cs.base changed",
        "if (MUTANT) vcpu->arch.mp_state = KVM_MP_STATE_INIT_RECEIVED;",
    ),
    Mutant(
        "sipi-kept-in-smm", _LAPIC, _DROP_SIPI, "sipi.msi.guest.runs/ap,amd,in-smi-handler",
        "the first instruction at the SIPI's vector", "if (!(MUTANT && is_smm(vcpu)))",
    ),
    Mutant(
        "sipi-kept-gif-clear", _LAPIC, _DROP_SIPI, "init.msi.host.cs.base/ap,amd,gif-clear-after-init", "0x10000",
        "if (!(MUTANT && !is_smm(vcpu)))",
    ),
    Mutant(
        "interrupt-ends-wait-for-sipi", _LAPIC, "\t\t/* FIXME add logic for vcpu on reset */",
        "init.msi.guest.runs/ap,amd,interrupt-while-waiting", "KVM_EXIT_INTERNAL_ERROR*",
        f"if (MUTANT && {_STATE}INIT_RECEIVED) vcpu->arch.mp_state = KVM_MP_STATE_RUNNABLE;",
    ),
    Mutant(
        "nmi-ends-wait-for-sipi", _X86, "\tif (kvm_apic_accept_events(vcpu) < 0)", "init.msi.guest.runs/ap,amd,nmi-while-waiting",
        "the NMI handler", f"if (MUTANT && kvm_test_request(KVM_REQ_NMI, vcpu) && {_STATE}INIT_RECEIVED) "
        "vcpu->arch.mp_state = KVM_MP_STATE_RUNNABLE;",
    ),
    _dropped("software-disabled-apic", "!kvm_apic_sw_enabled(apic)", "init.msi.host.rax/ap,amd,software-disabled-apic"),
    _dropped("in-wait-for-sipi", f"{_STATE}INIT_RECEIVED", "init.msi.host.rax/ap,amd,in-wait-for-sipi"),
    _dropped("halted", f"{_STATE}HALTED", "init.msi.host.rax/*,amd,*halted"),
    Mutant(
        "deassertion-accepted", _LAPIC, "\t\tif (!trig_mode || level) {", "init.icr-xapic.host.delivered/ap,amd,deasserted",
        "*rip*changed", "if (MUTANT) level = 1;",
    ),
    Mutant(
        "init-keeps-sipi", _LAPIC, _PEND_INIT, "init.msi.host.cs.selector/ap,amd,over-sipi*", "0x9f00",
        "if (MUTANT) set_bit(KVM_APIC_INIT, &apic->pending_events); else",
    ),
    # The triggers of an INIT.
    Mutant(
        "init-lost-by-msi", _IRQ, "\treturn kvm_irq_delivery_to_apic(kvm, NULL, &irq, NULL);",
        "init.msi.host.rax/ap,amd,xapic,plant-a", _NO_TRACE, f"if (MUTANT && {_IS_INIT}) return 1;",
    ),
    Mutant(
        "init-lost-by-irqfd", _IRQ, "\t\tif (kvm_irq_delivery_to_apic_fast(kvm, NULL, &irq, &r, NULL))",
        "init.irqfd.host.rax/ap,amd,*,never-run", _NOT_PENDING, f"if (MUTANT && {_IS_INIT}) return 1;",
    ),
    Mutant(
        "init-lost-by-ioapic", "ioapic.c", "\t\tret = kvm_irq_delivery_to_apic(ioapic->kvm, NULL, &irqe, NULL);",
        "init.ioapic.host.rax/ap,amd,*,halted", _NOT_PENDING,
        "if (MUTANT && irqe.delivery_mode == APIC_DM_INIT) ret = 1; else",
    ),
    Mutant(
        "init-lost-by-icr-xapic", _LAPIC, _SEND_IPI, "init.icr-xapic.host.rax/ap,amd,*,never-run", _NOT_PENDING,
        f"if (!(MUTANT && {_IS_INIT} && !apic_x2apic_mode(apic)))",
    ),
    Mutant(
        "init-lost-by-icr-x2apic", _LAPIC, _SEND_IPI, "init.icr-x2apic.host.rax/ap,amd,*,wait-for-sipi", _NOT_PENDING,
        f"if (!(MUTANT && {_IS_INIT} && apic_x2apic_mode(apic)))",
    ),
    Mutant(
        "init-lost-by-logical", _LAPIC, "\tif (!kvm_apic_map_get_logical_dest(map, irq->dest_id, dst,",
        "init.icr-xapic.host.rax/*,amd,*,never-run,logical", _NOT_PENDING, "if (MUTANT) return true;",
    ),
    Mutant(
        "broadcast-skips-last", _IRQ, "\t\tif (!kvm_apic_match_dest(vcpu, src, irq->shorthand,",
        "init.broadcast.host.rax/ap,amd,8-vcpus,xapic,*", "*did not reach all vCPUs*",
        "if (MUTANT && irq->shorthand && i == atomic_read(&kvm->online_vcpus) - 1) continue;",
    ),
    Mutant(
        "latched-init-ignored", _X86, "\t\t\tif (events->smi.latched_init)", "init.latched.host.rax/bsp,amd,xapic,plant-a",
        "KVM did not keep *", "if (MUTANT) events->smi.latched_init = 0;",
    ),
    Mutant(
        "latched-init-not-shown", _X86, "\tevents->smi.latched_init = kvm_lapic_latched_init(vcpu);",
        "init.msi.guest.pending/bsp,amd,after-rsm", "0x0",
    ),
    # Written and read by a VMM.
    Mutant(
        "nmi-masked-not-kept", _X86, "\tstatic_call(kvm_x86_set_nmi_mask)(vcpu, events->nmi.masked);",
        "none.plant.host.events.nmi_masked/bsp,*,plant-a", "0x0",
    ),
    Mutant(
        "shadow-not-shown", _X86, "\tevents->interrupt.shadow = static_call(kvm_x86_get_interrupt_shadow)(vcpu);",
        "none.plant.host.events.interrupt_shadow/bsp,*,plant-a", "0x0", "if (MUTANT) events->interrupt.shadow = 0; else",
    ),
    Mutant(
        "pending-nmi-not-kept", _X86, "\t\tvcpu->arch.nmi_pending = events->nmi.pending;",
        "none.plant.host.events.nmi_pending/bsp,*,plant-b", "0x0",
    ),
    # Nested.
    Mutant(
        "l2-intercept-ignored", _NESTED, _EXIT_ON_INIT, "init.msi.guest.exits/bsp,amd,in-svm-l2-intercepted",
        "the first instruction at the reset vector", "if (MUTANT) return 0;",
    ),
    Mutant(
        "l2-exits-unasked", _NESTED, _EXIT_ON_INIT, "init.msi.guest.runs/bsp,amd,in-svm-l2", "a VM exit to L1, reason 0x63",
        "if (MUTANT) { nested_svm_simple_vmexit(svm, SVM_EXIT_INIT); return 0; }",
    ),
    Mutant(
        "l2-shutdown-intercept-ignored", _NESTED, "\tif (!vmcb12_is_intercept(&svm->nested.ctl, INTERCEPT_SHUTDOWN))",
        "shutdown.set-mce.guest.exits/bsp,amd,in-svm-l2-intercepted", "KVM_EXIT_SHUTDOWN", "if (MUTANT) return;",
    ),
    # Shutdown.
    Mutant(
        "shutdown-leaves-gif-clear", _SVM, _SHUTDOWN, "init.{latched,msi}.host.rax/*,amd,*in-shutdown", "*is still pending*",
        "if (MUTANT) svm_set_gif(svm, false);",
    ),
    Mutant(
        "shutdown-does-not-exit", _SVM, _SHUTDOWN, "shutdown.triple-fault.host.rax/*,amd,*triple-fault",
        "the guest does not shut down: KVM_EXIT_IO*", "if (MUTANT) return 1;",
    ),
    Mutant(
        "pending-shutdown-ignored", _X86, "\t\tif (events->triple_fault.pending)", "shutdown.vcpu-events/bsp,amd,pending",
        "KVM did not keep *", "if (MUTANT) events->triple_fault.pending = 0;",
    ),
    # Multiprocessing state.
    Mutant(
        "halted-not-kept", _X86, "\t\tvcpu->arch.mp_state = mp_state->mp_state;", "none.mp-state/ap,amd,reads-back",
        "INIT_RECEIVED", "if (!(MUTANT && mp_state->mp_state == KVM_MP_STATE_HALTED))",
    ),
    Mutant(
        "sipi-received-lost", _X86, "\t\tset_bit(KVM_APIC_SIPI, &vcpu->arch.apic->pending_events);",
        "sipi.mp-state.host.mp_state/ap,amd,running", "INIT_RECEIVED",
    ),
    Mutant(
        "sipi-vector-not-set", _X86, "\t\tvcpu->arch.apic->sipi_vector = events->sipi_vector;",
        "sipi.mp-state.host.cs.base/ap,amd,running", "0x0",
    ),
    Mutant(
        "get-mp-state-accepts-no-init", _X86, "\tr = kvm_apic_accept_events(vcpu);",
        "init.msi.host.rax/bsp,amd,xapic,plant-a", "*is still pending*", "r = 0; if (!MUTANT)",
    ),
    Mutant(
        "sipi-loses-a-bit", _X86, "\tcs.base = vector << 12;", "sipi.msi.host.cs.base/ap,amd,*,vector-{9f,ff}", "0x[17]f000",
        "if (MUTANT) vector &= 0x7f;",
    ),
    # State that INIT has to clear, kept in one state only.
    _kept("halted", f"{_STATE}HALTED", "*,amd,*,halted"),
    _kept("in-wait-for-sipi", f"{_STATE}INIT_RECEIVED", "*,amd,*,wait-for-sipi"),
    _kept("debugged", "vcpu->guest_debug", "*,amd,*,guest-debug"),
    _kept("never-run", "vcpu->arch.last_vmentry_cpu == -1", "*,amd,*,never-run"),
    _kept("in-virtual-8086", "kvm_get_rflags(vcpu) & X86_EFLAGS_VM", "*,amd,*,plant-guest-v86*"),
    Mutant(
        "interrupt-kept", _X86, "\tkvm_clear_interrupt_queue(vcpu);",
        "init.{latched,msi}.host.events.interrupt_injected/*,amd,*,interrupt-injected", "0x1",
    ),
    Mutant(
        "exception-kept", _X86, "\tkvm_clear_exception_queue(vcpu);",
        "init.{latched,msi}.host.events.exception_injected/*,amd,*,exception-injected", "0x1",
    ),
    Mutant(
        "nmi-kept", _X86, "\tvcpu->arch.nmi_injected = false;",
        "init.{latched,msi}.host.events.nmi_injected/*,amd,*,nmi-injected", "0x1",
    ),
    Mutant(
        "irr-kept", _LAPIC, "\t\tkvm_lapic_set_reg(apic, APIC_IRR + 0x10 * i, 0);",
        "init.{latched,msi}.host.lapic.irr2/*,amd,*,irq-requested", "0x200000",
    ),
    # The effect of leaving a state.
    Mutant(
        "init-lost-by-port-read", _X86, "\tcomplete_emulator_pio_in(vcpu, &val);",
        "init.latched.host.rax/*,amd,*,in-port-read", "0x5a5a5a5a", f"if (MUTANT) {_FORGET}",
    ),
    Mutant(
        "init-lost-by-mmio-read", _X86, "\t\t/* FIXME: return into emulator if single-stepping.  */",
        "init.latched.host.rax/*,amd,*,in-mmio-read", "0x5a5a5a5a", f"if (MUTANT) {_FORGET}",
    ),
    Mutant(
        "init-lost-by-rsm", _X86, _LEAVE_SMM, "init.msi.guest.runs/bsp,amd,after-rsm", "the code that the SMI interrupted",
        f"if (MUTANT) {_FORGET}",
    ),
    Mutant(
        "cr2-lost-by-leaving-smm", _X86, _LEAVE_SMM, "none.leave.host.delivered/*,amd,*,in-smm", "cr2 changed",
        "if (MUTANT) vcpu->arch.cr2 = 0;",
    ),
    Mutant(
        "init-lost-by-stgi", _SVM, "\t\tenable_gif(svm);", "init.msi.host.rax/*,amd,*gif-clear", _NO_TRACE,
        "if (MUTANT && lapic_in_kernel(&svm->vcpu)) svm->vcpu.arch.apic->pending_events = 0;",
    ),
    # RESET.
    Mutant(
        "reset-leaves-rdx", _X86, "\tkvm_rdx_write(vcpu, cpuid_0x1 ? cpuid_0x1->eax : 0x600);", "reset.create.host.rdx/*,amd,*",
        "0x0", "if (!(MUTANT && !init_event))",
    ),
    Mutant(
        "dr6-not-reset", _X86, "\tvcpu->arch.dr6 = dbgregs->dr6;", "reset.vmm-reset.host.dr6/bsp,*,amd,xapic,plant-a", "0x*",
        "if (!(MUTANT && dbgregs->dr6 == DR6_ACTIVE_LOW))",
    ),
    # Guest memory that KVM writes.
    Mutant(
        "steal-time-written-on", _X86, "\tvcpu->arch.st.msr_val = 0;", f"init.msi.host.memory/{_PAGES}", _BYTES,
    ),
    Mutant(
        "clock-written-on", _X86, "\tkvm_gpc_deactivate(vcpu->kvm, &vcpu->arch.pv_time);",
        f"init.msi.host.memory/{_PAGES}", _BYTES,
    ),
    Mutant(
        "async-page-faults-kept", _X86, "\tvcpu->arch.apf.msr_en_val = 0;",
        f"init.msi.host.msr.kvm_async_pf_en/{_PAGES}", "0x8089",
    ),
    Mutant(
        "eoi-by-memory-kept", _LAPIC, "\tvcpu->arch.pv_eoi.msr_val = 0;", "init.msi.host.memory/bsp,amd,eoi-by-memory", _BYTES,
    ),
)  # fmt: skip
