# SPDX-License-Identifier: GPL-2.0-only
"""The ioctl numbers of <linux/kvm.h> that x86 has; the size in a number is that of its structure."""

from __future__ import annotations

from ctypes import Structure, c_uint64, sizeof

from . import filters as _f
from . import irq as _i
from . import structs as _s

KVMIO = 0xAE


def _IO(nr: int) -> int:
    return KVMIO << 8 | nr


def _IOW(nr: int, type_: type[Structure] | type[c_uint64]) -> int:
    return 1 << 30 | sizeof(type_) << 16 | KVMIO << 8 | nr


def _IOR(nr: int, type_: type[Structure] | type[c_uint64]) -> int:
    return 2 << 30 | sizeof(type_) << 16 | KVMIO << 8 | nr


def _IOWR(nr: int, type_: type[Structure] | type[c_uint64]) -> int:
    return 3 << 30 | sizeof(type_) << 16 | KVMIO << 8 | nr


# /dev/kvm
KVM_GET_API_VERSION = _IO(0x00)
KVM_CREATE_VM = _IO(0x01)
KVM_GET_MSR_INDEX_LIST = _IOWR(0x02, _s.kvm_msr_list)
KVM_CHECK_EXTENSION = _IO(0x03)
KVM_GET_VCPU_MMAP_SIZE = _IO(0x04)
KVM_GET_SUPPORTED_CPUID = _IOWR(0x05, _s.kvm_cpuid2)
KVM_GET_EMULATED_CPUID = _IOWR(0x09, _s.kvm_cpuid2)
KVM_GET_MSR_FEATURE_INDEX_LIST = _IOWR(0x0A, _s.kvm_msr_list)

# VM
KVM_CREATE_VCPU = _IO(0x41)
KVM_GET_DIRTY_LOG = _IOW(0x42, _s.kvm_dirty_log)
KVM_SET_NR_MMU_PAGES = _IO(0x44)
KVM_GET_NR_MMU_PAGES = _IO(0x45)
KVM_SET_USER_MEMORY_REGION = _IOW(0x46, _s.kvm_userspace_memory_region)
KVM_SET_TSS_ADDR = _IO(0x47)
KVM_SET_IDENTITY_MAP_ADDR = _IOW(0x48, c_uint64)
KVM_SET_USER_MEMORY_REGION2 = _IOW(0x49, _s.kvm_userspace_memory_region2)
KVM_CREATE_IRQCHIP = _IO(0x60)
KVM_IRQ_LINE = _IOW(0x61, _i.kvm_irq_level)
KVM_GET_IRQCHIP = _IOWR(0x62, _i.kvm_irqchip)
KVM_SET_IRQCHIP = _IOR(0x63, _i.kvm_irqchip)
KVM_CREATE_PIT = _IO(0x64)
KVM_IRQ_LINE_STATUS = _IOWR(0x67, _i.kvm_irq_level)
KVM_SET_GSI_ROUTING = _IOW(0x6A, _i.kvm_irq_routing)
KVM_IRQFD = _IOW(0x76, _i.kvm_irqfd)
KVM_CREATE_PIT2 = _IOW(0x77, _i.kvm_pit_config)
KVM_SET_BOOT_CPU_ID = _IO(0x78)
KVM_IOEVENTFD = _IOW(0x79, _s.kvm_ioeventfd)
KVM_SET_CLOCK = _IOW(0x7B, _s.kvm_clock_data)
KVM_GET_CLOCK = _IOR(0x7C, _s.kvm_clock_data)
KVM_GET_PIT2 = _IOR(0x9F, _i.kvm_pit_state2)
KVM_SET_PIT2 = _IOW(0xA0, _i.kvm_pit_state2)
KVM_SIGNAL_MSI = _IOW(0xA5, _i.kvm_msi)

# VM and vCPU
KVM_SET_TSC_KHZ = _IO(0xA2)
KVM_GET_TSC_KHZ = _IO(0xA3)
KVM_ENABLE_CAP = _IOW(0xA3, _s.kvm_enable_cap)
KVM_GET_STATS_FD = _IO(0xCE)
KVM_SET_DEVICE_ATTR = _IOW(0xE1, _s.kvm_device_attr)
KVM_GET_DEVICE_ATTR = _IOW(0xE2, _s.kvm_device_attr)
KVM_HAS_DEVICE_ATTR = _IOW(0xE3, _s.kvm_device_attr)

# vCPU
KVM_RUN = _IO(0x80)
KVM_GET_REGS = _IOR(0x81, _s.kvm_regs)
KVM_SET_REGS = _IOW(0x82, _s.kvm_regs)
KVM_GET_SREGS = _IOR(0x83, _s.kvm_sregs)
KVM_SET_SREGS = _IOW(0x84, _s.kvm_sregs)
KVM_TRANSLATE = _IOWR(0x85, _s.kvm_translation)
KVM_INTERRUPT = _IOW(0x86, _s.kvm_interrupt)
KVM_GET_MSRS = _IOWR(0x88, _s.kvm_msrs)
KVM_SET_MSRS = _IOW(0x89, _s.kvm_msrs)
KVM_SET_SIGNAL_MASK = _IOW(0x8B, _s.kvm_signal_mask)
KVM_GET_FPU = _IOR(0x8C, _s.kvm_fpu)
KVM_SET_FPU = _IOW(0x8D, _s.kvm_fpu)
KVM_GET_LAPIC = _IOR(0x8E, _s.kvm_lapic_state)
KVM_SET_LAPIC = _IOW(0x8F, _s.kvm_lapic_state)
KVM_SET_CPUID2 = _IOW(0x90, _s.kvm_cpuid2)
KVM_GET_CPUID2 = _IOWR(0x91, _s.kvm_cpuid2)
KVM_TPR_ACCESS_REPORTING = _IOWR(0x92, _i.kvm_tpr_access_ctl)
KVM_SET_VAPIC_ADDR = _IOW(0x93, _i.kvm_vapic_addr)
KVM_GET_MP_STATE = _IOR(0x98, _s.kvm_mp_state)
KVM_SET_MP_STATE = _IOW(0x99, _s.kvm_mp_state)
KVM_NMI = _IO(0x9A)
KVM_SET_GUEST_DEBUG = _IOW(0x9B, _s.kvm_guest_debug)
KVM_X86_SETUP_MCE = _IOW(0x9C, c_uint64)
KVM_X86_GET_MCE_CAP_SUPPORTED = _IOR(0x9D, c_uint64)
KVM_X86_SET_MCE = _IOW(0x9E, _s.kvm_x86_mce)
KVM_GET_VCPU_EVENTS = _IOR(0x9F, _s.kvm_vcpu_events)
KVM_SET_VCPU_EVENTS = _IOW(0xA0, _s.kvm_vcpu_events)
KVM_GET_DEBUGREGS = _IOR(0xA1, _s.kvm_debugregs)
KVM_SET_DEBUGREGS = _IOW(0xA2, _s.kvm_debugregs)
KVM_GET_XSAVE = _IOR(0xA4, _s.kvm_xsave)
KVM_SET_XSAVE = _IOW(0xA5, _s.kvm_xsave)
KVM_GET_XCRS = _IOR(0xA6, _s.kvm_xcrs)
KVM_SET_XCRS = _IOW(0xA7, _s.kvm_xcrs)
KVM_GET_ONE_REG = _IOW(0xAB, _s.kvm_one_reg)
KVM_SET_ONE_REG = _IOW(0xAC, _s.kvm_one_reg)
KVM_KVMCLOCK_CTRL = _IO(0xAD)
KVM_GET_REG_LIST = _IOWR(0xB0, _s.kvm_reg_list)
KVM_SMI = _IO(0xB7)
KVM_GET_NESTED_STATE = _IOWR(0xBE, _s.kvm_nested_state)
KVM_SET_NESTED_STATE = _IOW(0xBF, _s.kvm_nested_state)
KVM_X86_SET_MSR_FILTER = _IOW(0xC6, _f.kvm_msr_filter)
KVM_GET_SREGS2 = _IOR(0xCC, _s.kvm_sregs2)
KVM_SET_SREGS2 = _IOW(0xCD, _s.kvm_sregs2)
KVM_GET_XSAVE2 = _IOR(0xCF, _s.kvm_xsave)
