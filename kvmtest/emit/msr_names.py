# SPDX-License-Identifier: GPL-2.0-only
"""The macros for MSRs in <asm/msr-index.h> and <asm/hyperv-tlfs.h>, headers that userspace does not have."""

from __future__ import annotations

from kvmtest.x86 import msr

__all__ = ("macro",)

#: MSR_IA32_ and the name in capitals; so are those that begin with one of the prefixes.
_IA32 = frozenset(
    (
        "tsc feat_ctl tsc_adjust spec_ctrl ucode_rev smbase umwait_control arch_capabilities tsx_ctrl sysenter_cs sysenter_esp "
        "sysenter_eip mcg_cap mcg_status mcg_ctl misc_enable xfd xfd_err lastbranchfromip lastbranchtoip lastintfromip "
        "lastinttoip power_ctl perf_capabilities pebs_enable mcg_ext_ctl rtit_output_base rtit_output_mask rtit_ctl rtit_status "
        "rtit_cr3_match ds_area u_cet s_cet int_ssp_tab tsc_deadline bndcfgs xss"
    ).split()
)
_IA32_PREFIXES = ("rtit_", "sgxlepubkeyhash", "pl0_", "pl1_", "pl2_", "pl3_", "vmx_")
_OTHERS = {
    "apic_base": "MSR_IA32_APICBASE", "mtrrcap": "MSR_MTRRcap", "debugctl": "MSR_IA32_DEBUGCTLMSR",
    "mtrr_fix64k_00000": "MSR_MTRRfix64K_00000", "mtrr_fix16k_80000": "MSR_MTRRfix16K_80000",
    "mtrr_fix16k_a0000": "MSR_MTRRfix16K_A0000", "mtrr_fix4k_c0000": "MSR_MTRRfix4K_C0000",
    "mtrr_fix4k_c8000": "MSR_MTRRfix4K_C8000", "mtrr_fix4k_d0000": "MSR_MTRRfix4K_D0000",
    "mtrr_fix4k_d8000": "MSR_MTRRfix4K_D8000", "mtrr_fix4k_e0000": "MSR_MTRRfix4K_E0000",
    "mtrr_fix4k_e8000": "MSR_MTRRfix4K_E8000", "mtrr_fix4k_f0000": "MSR_MTRRfix4K_F0000",
    "mtrr_fix4k_f8000": "MSR_MTRRfix4K_F8000", "pat": "MSR_IA32_CR_PAT", "mtrr_def_type": "MSR_MTRRdefType",
    "fixed_ctr_ctrl": "MSR_CORE_PERF_FIXED_CTR_CTRL", "perf_global_status": "MSR_CORE_PERF_GLOBAL_STATUS",
    "perf_global_ctrl": "MSR_CORE_PERF_GLOBAL_CTRL", "perf_global_ovf_ctrl": "MSR_CORE_PERF_GLOBAL_OVF_CTRL",
    "sfmask": "MSR_SYSCALL_MASK", "tsc_ratio": "MSR_AMD64_TSC_RATIO",
    "amd_perf_global_status": "MSR_AMD64_PERF_CNTR_GLOBAL_STATUS", "amd_perf_global_ctl": "MSR_AMD64_PERF_CNTR_GLOBAL_CTL",
    "amd_perf_global_status_clr": "MSR_AMD64_PERF_CNTR_GLOBAL_STATUS_CLR", "syscfg": "MSR_AMD64_SYSCFG",
    "hwcr": "MSR_K7_HWCR", "smm_addr": "MSR_K8_TSEG_ADDR", "smm_mask": "MSR_K8_TSEG_MASK",
    "virt_spec_ctrl": "MSR_AMD64_VIRT_SPEC_CTRL", "osvw_id_length": "MSR_AMD64_OSVW_ID_LENGTH",
    "osvw_status": "MSR_AMD64_OSVW_STATUS", "de_cfg": "MSR_AMD64_DE_CFG",
}


def macro(index: int) -> str:
    """The macro of MSR ``index``."""
    name = msr.name_of(index)
    if name in _OTHERS:
        return _OTHERS[name]
    if name in _IA32 or name.startswith(_IA32_PREFIXES):
        return f"MSR_IA32_{name.upper()}"
    if name.startswith("hv_"):
        return f"HV_X64_MSR_{name[3:].upper()}"
    return f"MSR_{name.removeprefix('0x').upper()}"
