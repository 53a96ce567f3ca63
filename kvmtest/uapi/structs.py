# SPDX-License-Identifier: GPL-2.0-only
"""The structures of <linux/kvm.h> and <asm/kvm.h> (x86).

A structure that the header leaves without a name has one with a leading underscore here. `struct kvm_run` is in run.py,
the interrupt controllers and routing in irq.py.
"""

from __future__ import annotations

from ctypes import (
    Structure,
    Union,
    c_int16,
    c_int32,
    c_uint8,
    c_uint16,
    c_uint32,
    c_uint64,
    c_void_p,
)

from .consts import (
    KVM_APIC_REG_SIZE,
    KVM_MAX_XCRS,
    KVM_STATE_NESTED_SVM_VMCB_SIZE,
    KVM_STATE_NESTED_VMX_VMCS_SIZE,
)

# fmt: off


class kvm_userspace_memory_region(Structure):
    """For KVM_SET_USER_MEMORY_REGION; sizes and addresses in bytes."""

    _fields_ = (
        ("slot", c_uint32), ("flags", c_uint32), ("guest_phys_addr", c_uint64), ("memory_size", c_uint64),
        ("userspace_addr", c_uint64),
    )


class kvm_userspace_memory_region2(Structure):
    """For KVM_SET_USER_MEMORY_REGION2."""

    _fields_ = (
        ("slot", c_uint32), ("flags", c_uint32), ("guest_phys_addr", c_uint64), ("memory_size", c_uint64),
        ("userspace_addr", c_uint64), ("guest_memfd_offset", c_uint64), ("guest_memfd", c_uint32),
        ("pad1", c_uint32), ("pad2", c_uint64 * 14),
    )


class kvm_regs(Structure):
    """For KVM_GET_REGS and KVM_SET_REGS."""

    _fields_ = (
        ("rax", c_uint64), ("rbx", c_uint64), ("rcx", c_uint64), ("rdx", c_uint64), ("rsi", c_uint64),
        ("rdi", c_uint64), ("rsp", c_uint64), ("rbp", c_uint64), ("r8", c_uint64), ("r9", c_uint64),
        ("r10", c_uint64), ("r11", c_uint64), ("r12", c_uint64), ("r13", c_uint64), ("r14", c_uint64),
        ("r15", c_uint64), ("rip", c_uint64), ("rflags", c_uint64),
    )


class kvm_lapic_state(Structure):
    """For KVM_GET_LAPIC and KVM_SET_LAPIC: the first 1 KiB of the APIC page."""

    _fields_ = (("regs", c_uint8 * KVM_APIC_REG_SIZE),)


class kvm_segment(Structure):
    """A segment register; `limit` in bytes, granularity applied."""

    _fields_ = (
        ("base", c_uint64), ("limit", c_uint32), ("selector", c_uint16), ("type", c_uint8),
        ("present", c_uint8), ("dpl", c_uint8), ("db", c_uint8), ("s", c_uint8), ("l", c_uint8),
        ("g", c_uint8), ("avl", c_uint8), ("unusable", c_uint8), ("padding", c_uint8),
    )


class kvm_dtable(Structure):
    """GDTR or IDTR."""

    _fields_ = (("base", c_uint64), ("limit", c_uint16), ("padding", c_uint16 * 3))


class kvm_sregs(Structure):
    """For KVM_GET_SREGS and KVM_SET_SREGS."""

    _fields_ = (
        ("cs", kvm_segment), ("ds", kvm_segment), ("es", kvm_segment), ("fs", kvm_segment),
        ("gs", kvm_segment), ("ss", kvm_segment), ("tr", kvm_segment), ("ldt", kvm_segment),
        ("gdt", kvm_dtable), ("idt", kvm_dtable), ("cr0", c_uint64), ("cr2", c_uint64), ("cr3", c_uint64),
        ("cr4", c_uint64), ("cr8", c_uint64), ("efer", c_uint64), ("apic_base", c_uint64),
        ("interrupt_bitmap", c_uint64 * 4),
    )


class kvm_sregs2(Structure):
    """For KVM_GET_SREGS2 and KVM_SET_SREGS2."""

    _fields_ = (
        ("cs", kvm_segment), ("ds", kvm_segment), ("es", kvm_segment), ("fs", kvm_segment),
        ("gs", kvm_segment), ("ss", kvm_segment), ("tr", kvm_segment), ("ldt", kvm_segment),
        ("gdt", kvm_dtable), ("idt", kvm_dtable), ("cr0", c_uint64), ("cr2", c_uint64), ("cr3", c_uint64),
        ("cr4", c_uint64), ("cr8", c_uint64), ("efer", c_uint64), ("apic_base", c_uint64),
        ("flags", c_uint64), ("pdptrs", c_uint64 * 4),
    )


class kvm_fpu(Structure):
    """For KVM_GET_FPU and KVM_SET_FPU; `ftwx` as in FXSAVE. KVM_GET_FPU leaves `mxcsr` 0."""

    _fields_ = (
        ("fpr", (c_uint8 * 16) * 8), ("fcw", c_uint16), ("fsw", c_uint16), ("ftwx", c_uint8),
        ("pad1", c_uint8), ("last_opcode", c_uint16), ("last_ip", c_uint64), ("last_dp", c_uint64),
        ("xmm", (c_uint8 * 16) * 16), ("mxcsr", c_uint32), ("pad2", c_uint32),
    )


class kvm_msr_entry(Structure):
    """One MSR in struct kvm_msrs."""

    _fields_ = (("index", c_uint32), ("reserved", c_uint32), ("data", c_uint64))


class kvm_msrs(Structure):
    """For KVM_GET_MSRS and KVM_SET_MSRS."""

    _fields_ = (("nmsrs", c_uint32), ("pad", c_uint32), ("entries", kvm_msr_entry * 0))


class kvm_msr_list(Structure):
    """For KVM_GET_MSR_INDEX_LIST and KVM_GET_MSR_FEATURE_INDEX_LIST."""

    _fields_ = (("nmsrs", c_uint32), ("indices", c_uint32 * 0))


class kvm_cpuid_entry2(Structure):
    """One leaf in struct kvm_cpuid2."""

    _fields_ = (
        ("function", c_uint32), ("index", c_uint32), ("flags", c_uint32), ("eax", c_uint32),
        ("ebx", c_uint32), ("ecx", c_uint32), ("edx", c_uint32), ("padding", c_uint32 * 3),
    )


class kvm_cpuid2(Structure):
    """For KVM_GET_SUPPORTED_CPUID, KVM_GET_EMULATED_CPUID, KVM_SET_CPUID2 and KVM_GET_CPUID2."""

    _fields_ = (("nent", c_uint32), ("padding", c_uint32), ("entries", kvm_cpuid_entry2 * 0))


class kvm_debug_exit_arch(Structure):
    """For KVM_EXIT_DEBUG."""

    _fields_ = (
        ("exception", c_uint32), ("pad", c_uint32), ("pc", c_uint64), ("dr6", c_uint64), ("dr7", c_uint64),
    )


class kvm_guest_debug_arch(Structure):
    """Breakpoint registers in struct kvm_guest_debug."""

    _fields_ = (("debugreg", c_uint64 * 8),)


class kvm_guest_debug(Structure):
    """For KVM_SET_GUEST_DEBUG."""

    _fields_ = (("control", c_uint32), ("pad", c_uint32), ("arch", kvm_guest_debug_arch))


class _kvm_vcpu_events_exception(Structure):
    _fields_ = (
        ("injected", c_uint8), ("nr", c_uint8), ("has_error_code", c_uint8), ("pending", c_uint8),
        ("error_code", c_uint32),
    )


class _kvm_vcpu_events_interrupt(Structure):
    _fields_ = (("injected", c_uint8), ("nr", c_uint8), ("soft", c_uint8), ("shadow", c_uint8))


class _kvm_vcpu_events_nmi(Structure):
    _fields_ = (("injected", c_uint8), ("pending", c_uint8), ("masked", c_uint8), ("pad", c_uint8))


class _kvm_vcpu_events_smi(Structure):
    _fields_ = (
        ("smm", c_uint8), ("pending", c_uint8), ("smm_inside_nmi", c_uint8), ("latched_init", c_uint8),
    )


class _kvm_vcpu_events_triple_fault(Structure):
    _fields_ = (("pending", c_uint8),)


class kvm_vcpu_events(Structure):
    """For KVM_GET_VCPU_EVENTS and KVM_SET_VCPU_EVENTS."""

    _fields_ = (
        ("exception", _kvm_vcpu_events_exception), ("interrupt", _kvm_vcpu_events_interrupt),
        ("nmi", _kvm_vcpu_events_nmi), ("sipi_vector", c_uint32), ("flags", c_uint32),
        ("smi", _kvm_vcpu_events_smi), ("triple_fault", _kvm_vcpu_events_triple_fault),
        ("reserved", c_uint8 * 26), ("exception_has_payload", c_uint8), ("exception_payload", c_uint64),
    )


class kvm_debugregs(Structure):
    """For KVM_GET_DEBUGREGS and KVM_SET_DEBUGREGS."""

    _fields_ = (
        ("db", c_uint64 * 4), ("dr6", c_uint64), ("dr7", c_uint64), ("flags", c_uint64),
        ("reserved", c_uint64 * 9),
    )


class kvm_xsave(Structure):
    """For KVM_GET_XSAVE, KVM_GET_XSAVE2 and KVM_SET_XSAVE: the standard-format XSAVE area."""

    _fields_ = (("region", c_uint32 * 1024), ("extra", c_uint32 * 0))


class kvm_xcr(Structure):
    """One extended control register."""

    _fields_ = (("xcr", c_uint32), ("reserved", c_uint32), ("value", c_uint64))


class kvm_xcrs(Structure):
    """For KVM_GET_XCRS and KVM_SET_XCRS."""

    _fields_ = (
        ("nr_xcrs", c_uint32), ("flags", c_uint32), ("xcrs", kvm_xcr * KVM_MAX_XCRS),
        ("padding", c_uint64 * 16),
    )


class kvm_sync_regs(Structure):
    """The registers in struct kvm_run.s."""

    _fields_ = (("regs", kvm_regs), ("sregs", kvm_sregs), ("events", kvm_vcpu_events))


class kvm_vmx_nested_state_data(Structure):
    """VMX part of struct kvm_nested_state."""

    _fields_ = (
        ("vmcs12", c_uint8 * KVM_STATE_NESTED_VMX_VMCS_SIZE),
        ("shadow_vmcs12", c_uint8 * KVM_STATE_NESTED_VMX_VMCS_SIZE),
    )


class _kvm_vmx_nested_smm(Structure):
    _fields_ = (("flags", c_uint16),)


class kvm_vmx_nested_state_hdr(Structure):
    """VMX header of struct kvm_nested_state."""

    _fields_ = (
        ("vmxon_pa", c_uint64), ("vmcs12_pa", c_uint64), ("smm", _kvm_vmx_nested_smm), ("pad", c_uint16),
        ("flags", c_uint32), ("preemption_timer_deadline", c_uint64),
    )


class kvm_svm_nested_state_data(Structure):
    """SVM part of struct kvm_nested_state."""

    _fields_ = (("vmcb12", c_uint8 * KVM_STATE_NESTED_SVM_VMCB_SIZE),)


class kvm_svm_nested_state_hdr(Structure):
    """SVM header of struct kvm_nested_state."""

    _fields_ = (("vmcb_pa", c_uint64),)


class _kvm_nested_state_hdr(Union):
    _fields_ = (("vmx", kvm_vmx_nested_state_hdr), ("svm", kvm_svm_nested_state_hdr), ("pad", c_uint8 * 120))


class _kvm_nested_state_data(Union):
    _fields_ = (("vmx", kvm_vmx_nested_state_data * 0), ("svm", kvm_svm_nested_state_data * 0))


class kvm_nested_state(Structure):
    """For KVM_GET_NESTED_STATE and KVM_SET_NESTED_STATE; `size` in bytes, with the data after it."""

    _fields_ = (
        ("flags", c_uint16), ("format", c_uint16), ("size", c_uint32), ("hdr", _kvm_nested_state_hdr),
        ("data", _kvm_nested_state_data),
    )


class kvm_x86_mce(Structure):
    """For KVM_X86_SET_MCE."""

    _fields_ = (
        ("status", c_uint64), ("addr", c_uint64), ("misc", c_uint64), ("mcg_status", c_uint64),
        ("bank", c_uint8), ("pad1", c_uint8 * 7), ("pad2", c_uint64 * 3),
    )


class kvm_translation(Structure):
    """For KVM_TRANSLATE."""

    _fields_ = (
        ("linear_address", c_uint64), ("physical_address", c_uint64), ("valid", c_uint8),
        ("writeable", c_uint8), ("usermode", c_uint8), ("pad", c_uint8 * 5),
    )


class kvm_interrupt(Structure):
    """For KVM_INTERRUPT: a vector."""

    _fields_ = (("irq", c_uint32),)


class _kvm_dirty_log_u(Union):
    _fields_ = (("dirty_bitmap", c_void_p), ("padding2", c_uint64))


class kvm_dirty_log(Structure):
    """For KVM_GET_DIRTY_LOG."""

    _anonymous_ = ("u",)
    _fields_ = (("slot", c_uint32), ("padding1", c_uint32), ("u", _kvm_dirty_log_u))


class kvm_signal_mask(Structure):
    """For KVM_SET_SIGNAL_MASK; `len` in bytes, 8 on x86."""

    _fields_ = (("len", c_uint32), ("sigset", c_uint8 * 0))


class kvm_mp_state(Structure):
    """For KVM_GET_MP_STATE and KVM_SET_MP_STATE."""

    _fields_ = (("mp_state", c_uint32),)


class kvm_ioeventfd(Structure):
    """For KVM_IOEVENTFD."""

    _fields_ = (
        ("datamatch", c_uint64), ("addr", c_uint64), ("len", c_uint32), ("fd", c_int32),
        ("flags", c_uint32), ("pad", c_uint8 * 36),
    )


class kvm_enable_cap(Structure):
    """For KVM_ENABLE_CAP."""

    _fields_ = (("cap", c_uint32), ("flags", c_uint32), ("args", c_uint64 * 4), ("pad", c_uint8 * 64))


class kvm_clock_data(Structure):
    """For KVM_GET_CLOCK and KVM_SET_CLOCK; times in ns, `host_tsc` in cycles."""

    _fields_ = (
        ("clock", c_uint64), ("flags", c_uint32), ("pad0", c_uint32), ("realtime", c_uint64),
        ("host_tsc", c_uint64), ("pad", c_uint32 * 4),
    )


class kvm_reg_list(Structure):
    """For KVM_GET_REG_LIST."""

    _fields_ = (("n", c_uint64), ("reg", c_uint64 * 0))


class kvm_one_reg(Structure):
    """For KVM_GET_ONE_REG and KVM_SET_ONE_REG; `addr` is where the value is."""

    _fields_ = (("id", c_uint64), ("addr", c_uint64))


class kvm_device_attr(Structure):
    """For KVM_SET_DEVICE_ATTR, KVM_GET_DEVICE_ATTR and KVM_HAS_DEVICE_ATTR."""

    _fields_ = (("flags", c_uint32), ("group", c_uint32), ("attr", c_uint64), ("addr", c_uint64))


class kvm_stats_header(Structure):
    """The start of what KVM_GET_STATS_FD gives; offsets in bytes."""

    _fields_ = (
        ("flags", c_uint32), ("name_size", c_uint32), ("num_desc", c_uint32), ("id_offset", c_uint32),
        ("desc_offset", c_uint32), ("data_offset", c_uint32),
    )


class kvm_stats_desc(Structure):
    """One statistic; its name follows."""

    _fields_ = (
        ("flags", c_uint32), ("exponent", c_int16), ("size", c_uint16), ("offset", c_uint32),
        ("bucket_size", c_uint32), ("name", c_uint8 * 0),
    )
