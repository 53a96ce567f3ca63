# SPDX-License-Identifier: GPL-2.0-only
"""KVM 6.1 with a line of kvm_intel broken, and what must show it."""

from __future__ import annotations

from tests.lab.mutants import Mutant

_VMX, _NESTED = "vmx/vmx.c", "vmx/nested.c"
_ON_INIT = "if (!(MUTANT && init_event))"


def _kept(item: str, line: str) -> Mutant:
    """INIT leaves ``item`` as it is, by leaving out ``line`` of vmx_vcpu_reset()."""
    name = item.replace(".", "-").replace("_", "-")
    selector = f"init.latched.host.{item}/ap,intel,xapic,plant-a"
    return Mutant(f"vmx-{name}-kept", _VMX, f"\t{line}", selector, "*", _ON_INIT, "vmx")


INTEL = (
    # Reset by INIT.
    _kept("cs.base", "vmcs_writel(GUEST_CS_BASE, 0xffff0000ul);"),
    _kept("fs.base", "seg_setup(VCPU_SREG_FS);"),
    _kept("tr.selector", "vmcs_write16(GUEST_TR_SELECTOR, 0);"),
    _kept("ldt.base", "vmcs_writel(GUEST_LDTR_BASE, 0);"),
    _kept("gdt.limit", "vmcs_write32(GUEST_GDTR_LIMIT, 0xffff);"),
    _kept("idt.base", "vmcs_writel(GUEST_IDTR_BASE, 0);"),
    _kept("events.interrupt_shadow", "vmcs_write32(GUEST_INTERRUPTIBILITY_INFO, 0);"),
    # Written and read by a VMM.
    Mutant(
        "vmx-masked-nmis-not-shown", _VMX, "\tmasked = vmcs_read32(GUEST_INTERRUPTIBILITY_INFO) & GUEST_INTR_STATE_NMI;",
        "none.plant.host.events.nmi_masked/bsp,*,plant-a", "0x0", "if (MUTANT) return false;", "vmx",
    ),
    Mutant(
        "vmx-shadow-not-kept", _VMX, "\tif ((interruptibility != interruptibility_old))",
        "none.plant.host.events.interrupt_shadow/bsp,*,plant-a", "0x0",
        "if (MUTANT) interruptibility = interruptibility_old;", "vmx",
    ),
    # VMX operation.
    Mutant(
        "init-accepted-in-vmx-root", _VMX, "\treturn to_vmx(vcpu)->nested.vmxon && !is_guest_mode(vcpu);",
        "init.latched.host.delivered/*,intel,*,in-vmx-root", "*rip*changed", "if (MUTANT) return false;", "vmx",
    ),
    Mutant(
        "vmx-l2-init-makes-no-exit", _NESTED, "\t\t\tnested_vmx_vmexit(vcpu, EXIT_REASON_INIT_SIGNAL, 0, 0);",
        "init.msi.guest.exits/bsp,intel,in-vmx-l2-loop", "*", "if (!MUTANT)", "vmx",
    ),
    Mutant(
        "vmx-l2-sipi-makes-no-exit", _NESTED, "\t\t\tnested_vmx_vmexit(vcpu, EXIT_REASON_SIPI_SIGNAL, 0,",
        "sipi.msi.guest.exits/bsp,intel,in-vmx-l2-waiting", "*", "if (!MUTANT)", "vmx",
    ),
    Mutant(
        "vmx-l2-shutdown-makes-no-exit", _NESTED, "\tnested_vmx_vmexit(vcpu, EXIT_REASON_TRIPLE_FAULT, 0, 0);",
        "shutdown.vcpu-events.guest.exits/bsp,intel,in-vmx-l2", "*", "if (!MUTANT)", "vmx",
    ),
    Mutant(
        "vmx-l2-nmi-makes-no-exit", _NESTED, "\t\tif (!nested_exit_on_nmi(vcpu))",
        "nmi.vm-exit.guest.exits/bsp,intel,nmi-in-vmx-l2-intercepted", "*", "if (MUTANT) goto no_vmexit;", "vmx",
    ),
    Mutant(
        "vmx-ldtr-kept-by-exit", _NESTED, "\t__vmx_set_segment(vcpu, &seg, VCPU_SREG_LDTR);",
        "none.vm-exit.guest/bsp,intel,ldtr-in-vmx-root", "*", "if (!MUTANT)", "vmx",
    ),
)  # fmt: skip
