# SPDX-License-Identifier: GPL-2.0-only
"""Time-stamp counter, performance monitoring, branch records and tracing."""

from __future__ import annotations

from kvmtest.spec.catchall import AMD_NONE, INTEL_NONE, KEEP_AMD, KEEP_INTEL, KEEP_INTEL_LISTED, KEEP_LISTED
from kvmtest.spec.cite import (
    A_DEBUG,
    A_OTH,
    A_PERF,
    A_PPR,
    A_SYSTEM,
    A_T1,
    A_TSC,
    A_TSC_RATIO,
    LINUX_GLOBAL_CTRL,
    S_APIC_INIT,
    S_COUNTERS,
    S_DS,
    S_OVERVIEW_KEPT,
    S_PEBS_ENABLE,
    S_PT,
    S_PT_MASK,
    S_T1,
    S_T1_079,
    S_T2,
    S_T22,
    S_TSC,
    S_TSC_ADJUST,
    S_TSC_DEADLINE,
    SDM_SIPI,
)
from kvmtest.spec.rule import Entry, cited, entry, formula, unchanged, undefined, value, vendors

__all__ = ("RULES",)

_TSC = (S_T1, S_TSC, A_T1, A_TSC)
_COUNTS_ON = formula("TSC>=", "keeps counting")
_TSC_SMALL = formula("TSC-small", "0, then counts; on some models a warm RESET keeps it")
_DEADLINE = value(0, "the LVT timer is reset, so the mode is no longer TSC-deadline, and the MSR reads 0")
_DEADLINE_AMD = undefined("the APM does not describe the TSC-deadline timer")

_CONTRADICTION = cited(undefined("the table (RESET 0, INIT unchanged) and a note (undefined after INIT or RESET) contradict each other"), S_T1, S_COUNTERS)
_COUNTER_RESET = vendors(intel=_CONTRADICTION, amd=cited(undefined("AMD's cross-reference says undefined"), A_PERF))
_COUNTER_INIT = vendors(intel=_CONTRADICTION, amd=cited(unchanged(), A_OTH))
_FIXED_RESET = _FIXED_INIT = vendors(intel=_CONTRADICTION, amd=AMD_NONE)
_AMD_COUNTER_RESET = vendors(intel=INTEL_NONE, amd=cited(undefined("AMD's cross-reference says undefined"), A_PERF))
_AMD_EVENTSEL_RESET = vendors(intel=INTEL_NONE, amd=cited(value(0), A_PERF))
_INTEL_ZERO = vendors(intel=cited(value(0), S_T1), amd=AMD_NONE)
_ALL_ENABLED = formula("GP_COUNTERS", "all general-purpose counters enabled; revisions up to 078 say 0")
_GLOBAL_CTRL = vendors(intel=cited(_ALL_ENABLED, S_T1_079, LINUX_GLOBAL_CTRL), amd=AMD_NONE)
_AMD_GLOBAL_CTL = vendors(
    intel=INTEL_NONE,
    amd=cited(formula("GP_COUNTERS", "the APM gives no value; a processor's own reference does: all counters enabled"), A_PPR, LINUX_GLOBAL_CTRL),
)
_AMD_GLOBAL_STATUS = vendors(intel=INTEL_NONE, amd=cited(undefined("the APM gives no value"), A_OTH))
_DEBUGCTL_RESET = vendors(intel=cited(undefined("not listed; the catch-all row says undefined"), S_T22), amd=cited(value(0), A_DEBUG))
_DEBUGCTL_INIT = vendors(
    intel=cited(unchanged("BTS recording alone is said to be cleared by INIT"), S_OVERVIEW_KEPT, S_T22, S_DS),
    amd=cited(unchanged(), A_OTH),
)
_LBR_RESET = vendors(
    intel=cited(value(0, "a warm RESET keeps it on many models"), S_T1, S_T2),
    amd=cited(undefined("AMD's cross-reference says undefined"), A_DEBUG),
)
_PT_RESET = vendors(intel=cited(value(0), S_T1, S_PT), amd=AMD_NONE)
_PT_MASK_RESET = vendors(intel=cited(value(0x7F, "bits 6:0 are always 1"), S_PT_MASK), amd=AMD_NONE)

RULES: tuple[Entry, ...] = (
    entry("msr.tsc", row=46, reset=_TSC_SMALL, init=_COUNTS_ON, sipi=cited(_COUNTS_ON, SDM_SIPI, S_TSC), cite=_TSC),
    entry("msr.tsc_aux", row=47, reset=value(0), init=KEEP_LISTED, cite=(S_T1, A_SYSTEM)),
    entry(
        "msr.tsc_adjust",
        row=48,
        reset=vendors(intel=cited(value(0), S_T1, S_TSC_ADJUST), amd=cited(undefined("AMD's table gives no value"), A_OTH)),
        init=KEEP_LISTED,
        cite=(S_T1, A_OTH),
    ),
    entry(
        "msr.tsc_deadline",
        row=49,
        reset=vendors(intel=cited(value(0), S_T1, S_TSC_DEADLINE), amd=cited(_DEADLINE_AMD, A_OTH)),
        init=vendors(intel=cited(_DEADLINE, S_TSC_DEADLINE, S_APIC_INIT), amd=cited(_DEADLINE_AMD, A_OTH)),
        cite=(S_TSC_DEADLINE, A_OTH),
    ),
    entry("msr.tsc_ratio", row=50, reset=vendors(intel=INTEL_NONE, amd=cited(value(0x100000000), A_SYSTEM, A_TSC_RATIO)), init=KEEP_AMD, cite=(S_T22, A_OTH)),
    *(entry(f"msr.pmc{i}", row=52, reset=_COUNTER_RESET, init=_COUNTER_INIT, cite=(S_T1, A_OTH)) for i in range(8)),
    *(entry(f"msr.pmc{i}_full", row=52, reset=_COUNTER_RESET, init=_COUNTER_INIT, cite=(S_T1, A_OTH)) for i in range(8)),
    *(
        entry(f"msr.perfevtsel{i}", row=52, reset=vendors(intel=cited(value(0), S_T1), amd=cited(value(0), A_PERF)), init=KEEP_LISTED, cite=(S_T1, A_OTH))
        for i in range(8)
    ),
    *(entry(f"msr.k7_evntsel{i}", row=52, reset=_AMD_EVENTSEL_RESET, init=KEEP_AMD, cite=(S_T22, A_OTH)) for i in range(4)),
    *(entry(f"msr.k7_perfctr{i}", row=52, reset=_AMD_COUNTER_RESET, init=KEEP_AMD, cite=(S_T22, A_OTH)) for i in range(4)),
    *(entry(f"msr.perf_ctl{i}", row=52, reset=_AMD_EVENTSEL_RESET, init=KEEP_AMD, cite=(S_T22, A_OTH)) for i in range(6)),
    *(entry(f"msr.perf_ctr{i}", row=52, reset=_AMD_COUNTER_RESET, init=KEEP_AMD, cite=(S_T22, A_OTH)) for i in range(6)),
    *(entry(f"msr.fixed_ctr{i}", row=53, reset=_FIXED_RESET, init=_FIXED_INIT, cite=(S_T1, A_OTH)) for i in range(4)),
    entry("msr.fixed_ctr_ctrl", row=53, reset=_INTEL_ZERO, init=KEEP_INTEL_LISTED, cite=(S_T1, A_OTH)),
    entry("msr.perf_global_ctrl", row=54, reset=_GLOBAL_CTRL, init=KEEP_INTEL_LISTED, cite=(S_T1, A_OTH)),
    entry("msr.amd_perf_global_ctl", row=54, reset=_AMD_GLOBAL_CTL, init=KEEP_AMD, cite=(S_T22, A_OTH)),
    entry("msr.perf_global_status", row=55, reset=_INTEL_ZERO, init=KEEP_INTEL_LISTED, cite=(S_T1, A_OTH)),
    entry("msr.amd_perf_global_status", row=55, reset=_AMD_GLOBAL_STATUS, init=KEEP_AMD, cite=(S_T22, A_OTH)),
    entry("msr.pebs_enable", row=(), reset=vendors(intel=cited(value(0), S_PEBS_ENABLE), amd=AMD_NONE), init=KEEP_INTEL, cite=(S_T22, A_OTH)),
    entry("msr.debugctl", row=56, reset=_DEBUGCTL_RESET, init=_DEBUGCTL_INIT, cite=(S_T22, A_DEBUG)),
    *(
        entry(f"msr.{reg}", row=57, reset=_LBR_RESET, init=KEEP_LISTED, cite=(S_T1, A_DEBUG))
        for reg in ("lastbranchfromip", "lastbranchtoip", "lastintfromip", "lastinttoip")
    ),
    *(
        entry(f"msr.rtit_{reg}", row=58, reset=_PT_RESET, init=KEEP_INTEL_LISTED, cite=(S_T1, A_OTH))
        for reg in ("ctl", "status", "cr3_match", "output_base", *(f"addr{i}_{end}" for i in range(4) for end in "ab"))
    ),
    entry("msr.rtit_output_mask", row=58, reset=_PT_MASK_RESET, init=KEEP_INTEL_LISTED, cite=(S_T1, A_OTH)),
)
