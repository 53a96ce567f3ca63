# SPDX-License-Identifier: GPL-2.0-only
"""Rules for an ioctl that writes the activity state and is not an event: nothing else changes."""

from __future__ import annotations

from kvmtest.spec.cite import KVM_API
from kvmtest.spec.rule import Rule, cited, formula, unchanged, undefined

__all__ = ("COUNTERS", "MEASURED", "rule")

#: Items that count by themselves, whatever is done to the vCPU.
COUNTERS = frozenset(("msr.tsc", "lapic.timer_current", "msr.hv_vp_runtime", "msr.hv_time_ref_count"))
#: Items that a kernel measures at each boot: HV_X64_MSR_TSC_FREQUENCY is the TSC's, as kvm_hv_get_msr() gives it.
MEASURED = frozenset(("msr.hv_tsc_frequency",))
_COUNTS = cited(undefined("it counts by itself"), KVM_API)
_TSC = cited(formula("TSC>=", "keeps counting"), KVM_API)
_STATE = cited(formula("mp_state", "what KVM_SET_MP_STATE wrote"), KVM_API)
_ALONE = cited(unchanged("KVM_SET_MP_STATE sets the activity state alone"), KVM_API)


def rule(item: str) -> Rule:
    """The rule of ``item`` after KVM_SET_MP_STATE(INIT_RECEIVED), the same for every vendor."""
    if item == "mp_state":
        return _STATE
    if item == "msr.tsc":
        return _TSC
    return _COUNTS if item in COUNTERS else _ALONE
