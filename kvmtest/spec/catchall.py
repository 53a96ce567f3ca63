# SPDX-License-Identifier: GPL-2.0-only
"""Rules that rest on the catch-all rows of the manuals, and those of registers that no manual defines."""

from __future__ import annotations

from kvmtest.spec.cite import A_OTH, HYPERV, KVM_MSR, S_OVERVIEW_KEPT, S_T1, S_T22
from kvmtest.spec.rule import Entry, Rule, cited, entry, unchanged, undefined, vendors

__all__ = (
    "AMD_NONE",
    "INTEL_NONE",
    "KEEP_AMD",
    "KEEP_INTEL",
    "KEEP_INTEL_LISTED",
    "KEEP_LISTED",
    "KEEP_OTHER",
    "NAMED",
    "UNLISTED",
    "catch_all",
    "synthetic",
)

#: INIT: neither vendor lists the register.
KEEP_OTHER = vendors(intel=cited(unchanged(), S_OVERVIEW_KEPT, S_T22), amd=cited(unchanged(), A_OTH))
#: INIT: Intel's table lists the register, AMD's only by its catch-all row.
KEEP_LISTED = vendors(intel=cited(unchanged(), S_T1), amd=cited(unchanged(), A_OTH))
#: RESET: a register that neither vendor lists.
UNLISTED = vendors(
    intel=cited(undefined("Intel's catch-all row says undefined"), S_T22),
    amd=cited(undefined("AMD's table refers to the MSR's own description, which gives no value"), A_OTH),
)
#: RESET and INIT of a register that only the other vendor has.
AMD_NONE: Rule = cited(undefined("not among the registers that AMD documents"), A_OTH)
INTEL_NONE: Rule = cited(undefined("not among the registers that Intel documents"), S_T22)


#: INIT of a register that only one vendor has: its catch-all row, or Intel's table; the other's rows do not speak of it.
KEEP_AMD = vendors(intel=INTEL_NONE, amd=cited(unchanged(), A_OTH))
KEEP_INTEL = vendors(intel=cited(unchanged(), S_OVERVIEW_KEPT, S_T22), amd=AMD_NONE)
KEEP_INTEL_LISTED = vendors(intel=cited(unchanged(), S_T1), amd=AMD_NONE)
#: AMD's own MSRs begin here; Intel has only the few of the 64-bit architecture there, each with a line of its own.
_AMD_FIRST = 0xC0000000


#: The MSRs of the table that have no line of their own in a topic, on purpose.
NAMED = frozenset(
    (
        *("platform_info", "mtrrcap", "arch_capabilities", "power_ctl", "ds_area", "de_cfg"),
        *("mcg_cap", "mcg_ext_ctl", *(f"mc{bank}_ctl2" for bank in range(32))),
        *("perf_capabilities", "perf_global_ovf_ctrl", "pebs_data_cfg"),
        *("amd_perf_global_status_clr", "amd_perf_global_status_set"),
        *("vmx_basic", "vmx_misc", "vmx_cr0_fixed0", "vmx_cr0_fixed1", "vmx_cr4_fixed0", "vmx_cr4_fixed1", "vmx_vmcs_enum"),
        *("vmx_pinbased_ctls", "vmx_procbased_ctls", "vmx_procbased_ctls2", "vmx_procbased_ctls3", "vmx_exit_ctls"),
        *("vmx_entry_ctls", "vmx_true_pinbased_ctls", "vmx_true_procbased_ctls", "vmx_true_exit_ctls", "vmx_true_entry_ctls"),
        *("vmx_ept_vpid_cap", "vmx_vmfunc"),
    )
)


def catch_all(item: str, index: int) -> Entry:
    """The rules of an MSR that has no line of its own: judged by the vendor in whose range it lies."""
    keep = KEEP_AMD if index >= _AMD_FIRST else KEEP_INTEL
    return entry(item, row=(), reset=UNLISTED, init=keep, cite=(S_T22, A_OTH))


def synthetic(item: str, *, hyperv: bool) -> Entry:
    """The rules of a paravirtual MSR."""
    name, cite = ("a Hyper-V synthetic MSR", HYPERV) if hyperv else ("a KVM paravirtual MSR", KVM_MSR)
    rule = undefined(f"{name}: no CPU manual defines it")
    return entry(item, row=(), reset=rule, init=rule, sipi=rule, shutdown=rule, cite=(cite,))
