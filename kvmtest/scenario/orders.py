# SPDX-License-Identifier: GPL-2.0-only
"""Orders in which VMMs read a vCPU's state and write it to a new one, read from their sources.

Sections are those of `kvmtest.state.saved`; ``msr.NAME`` is KVM_SET_MSRS of that MSR alone.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ("ORDERS", "Order")


class Order(NamedTuple):
    """The order in which a VM is saved and restored.

    ``save`` and ``restore`` are the sections of each vCPU; ``before`` and ``after`` those of the VM that are written before and
    after all vCPUs. MSRs that are written ``apart`` are not among ``msrs``. ``added`` sections, which a VMM does not write,
    come at the end. ``lacks`` are the needs of states that it cannot restore. ``lost`` are items, the bits that this order
    cannot keep, and why. ``source`` names the document or code that defines the order.
    """

    save: tuple[str, ...]
    restore: tuple[str, ...]
    before: tuple[str, ...]
    after: tuple[str, ...]
    source: str
    apart: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()
    lost: tuple[tuple[str, int, str], ...] = ()


#: KVM's own requirements: KVM_GET_MP_STATE processes a pending INIT or SIPI, and so comes first; KVM_SET_CPUID2 before what is
#: checked against it; the APIC base before the local APIC, whose format depends on it (KVM API, KVM_GET_LAPIC); the LVT timer's
#: mode before IA32_TSC_DEADLINE (kvm_set_lapic_tscdeadline_msr()); EFER.SVME and CR4.VMXE, and the VMX capability MSRs
#: (vmx_set_vmx_msr()), before nested state; nested state before L2's registers; registers before a pending exception
#: (__set_regs()); an SMI before the activity state (kvm_vcpu_ioctl_x86_set_vcpu_events()).
_KVM = (
    "cpuid", "tsc_khz", "sregs2", "lapic", "msrs", "nested", "xcrs", "xsave", "regs", "debugregs", "ssp", "events", "mp_state",
)  # fmt: skip

_CR8 = "KVM_SET_SREGS after KVM_SET_LAPIC writes CR8, and so clears the bits of TPR that CR8 does not have"

ORDERS: dict[str, Order] = {
    "kvm": Order(
        ("mp_state", "cpuid", "sregs2", "regs", "lapic", "msrs", "nested", "xcrs", "xsave", "debugregs", "ssp", "events"),
        _KVM, ("irqchip", "pit"), ("clock",), "Documentation/virt/kvm/api.rst and the functions named here, Linux 7.2",
    ),
    "qemu": Order(
        ("events", "mp_state", "regs", "xsave", "xcrs", "sregs2", "msrs", "lapic", "debugregs", "nested"),
        (
            "cpuid", "features", "msr.apic_base", "lapic", "msr.feat_ctl", "sregs2", "nested", "tsc_khz", "regs", "xsave",
            "xcrs", "msrs", "events", "mp_state", "msr.tsc_deadline", "debugregs",
        ),
        ("irqchip", "pit"), ("clock",),
        "QEMU 00001a22d183, target/i386/kvm/kvm.c, kvm_arch_get_registers(), kvm_init_msrs() and kvm_arch_put_registers(); "
        "hw/i386/kvm/apic.c, kvm_apic_put(); hw/i386/kvm/clock.c, kvmclock_vm_state_change()",
        apart=("features", "msr.apic_base", "msr.feat_ctl", "msr.tsc_deadline"), added=("ssp",),
        lost=tuple((item, 0xF, _CR8) for item in ("lapic.tpr", "msr.hv_tpr")),
    ),
    "cloud-hypervisor": Order(
        ("cpuid", "mp_state", "regs", "sregs", "xsave", "xcrs", "lapic", "fpu", "nested", "msrs", "events"),
        ("cpuid", "mp_state", "regs", "sregs", "xsave", "xcrs", "lapic", "fpu", "nested", "tsc_khz", "msrs", "events"),
        (), ("clock",),
        "Cloud Hypervisor ae44c2971c83, hypervisor/src/kvm/mod.rs, KvmVcpu::state() and set_state(); it has no irqchip but the "
        "split one, and leaves out the debug registers; in VMX operation KVM refuses it the MSRs (vmx_set_vmx_msr())",
        lacks=("vmx",), added=("debugregs", "ssp", "irqchip", "pit"),
    ),
    "firecracker": Order(
        ("mp_state", "regs", "sregs", "xsave", "xcrs", "debugregs", "lapic", "cpuid", "msrs", "events"),
        ("cpuid", "mp_state", "regs", "sregs", "xsave", "xcrs", "debugregs", "lapic", "msrs", "msr.tsc_deadline", "events"),
        (), ("pit", "clock", "irqchip"),
        "Firecracker 81b38b9dad60, src/vmm/src/arch/x86_64/vcpu.rs, KvmVcpu::save_state() and restore_state(); vm.rs, "
        "KvmVm::restore_state(); src/vmm/src/builder.rs",
        apart=("msr.tsc_deadline",), added=("ssp",), lacks=("svm", "vmx"),
    ),
}  # fmt: skip
