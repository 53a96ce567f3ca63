# SPDX-License-Identifier: GPL-2.0-only
"""The local APIC's registers. INIT gives them their RESET values, all but the ID and IA32_APIC_BASE."""

from __future__ import annotations

from kvmtest.spec.cite import (
    A_APIC,
    A_APIC_ID,
    A_PPR_APIC,
    A_X2APIC,
    S_APIC_INIT,
    S_APIC_RESET,
    S_APIC_VERSION,
    S_ARBITRATION,
    S_LVT,
    S_X2APIC,
    S_X2APIC_LDR,
)
from kvmtest.spec.rule import (
    Entry,
    Rule,
    Vendored,
    cited,
    entry,
    formula,
    masked,
    one_of,
    unchanged,
    undefined,
    value,
    vendors,
)

__all__ = ("RULES",)

_CITE = (S_APIC_RESET, S_APIC_INIT, A_APIC)
_MASKED = 0x10000


def _same(name: str, row: int | tuple[int, ...], rule: Rule | Vendored, *cite: str) -> Entry:
    """INIT like RESET."""
    return entry(f"lapic.{name}", row=row, reset=rule, init=rule, cite=(*_CITE, *cite))


_KEEP_ID = vendors(intel=cited(unchanged(), S_APIC_INIT, S_X2APIC), amd=cited(unchanged(), A_PPR_APIC, A_APIC_ID))
_AMD_VERSION = formula("APIC_VERSION", "version 1Xh; bit 31 as CPUID's ExtApicSpace; LVT entries and directed EOI by model")._replace(ignore=0x01FF000F)
_VERSION = vendors(
    intel=cited(masked(0x10, ignore=0x01FF000F, note="version 1XH of an integrated APIC; LVT entries and EOI-broadcast suppression by model"), S_APIC_VERSION),
    amd=cited(_AMD_VERSION, A_APIC),
)
_RRD = vendors(intel=cited(undefined("Intel no longer documents remote read"), S_APIC_RESET), amd=cited(value(0), A_APIC))
_PPR = cited(undefined("it follows from TPR and ISR; what KVM_GET_LAPIC shows is older than a planted ISR (kvm_apic_set_state())"), S_ARBITRATION)
_CMCI = vendors(
    intel=cited(one_of(_MASKED, 0, note="0: without MCG_CAP.CMCI_P there is no such register"), S_APIC_RESET, S_LVT),
    amd=cited(undefined("AMD's table has no LVT entry for CMCI"), A_APIC),
)
_NO_EXTENDED = cited(undefined("Intel documents no extended APIC register space"), S_APIC_RESET)
_EFEAT = vendors(
    intel=_NO_EXTENDED,
    amd=cited(undefined("00040007h where CPUID's ExtApicSpace is set, and not there otherwise; KVM does not offer it"), A_APIC),
)
_ECNTL = vendors(intel=_NO_EXTENDED, amd=cited(value(0), A_APIC))

RULES: tuple[Entry, ...] = (
    entry("lapic.id", row=60, reset=formula("APIC_ID"), init=_KEEP_ID, cite=(S_APIC_RESET, A_APIC_ID, A_APIC)),
    _same("version", 61, _VERSION),
    _same("tpr", 62, value(0)),
    _same("apr", 63, value(0), S_ARBITRATION),
    entry("lapic.ppr", row=63, reset=value(0), init=value(0), sipi=_PPR, cite=(*_CITE, S_ARBITRATION)),
    _same("rrd", 64, _RRD),
    _same("ldr", 65, formula("LDR", "0 in xAPIC mode; in x2APIC mode derived from the ID, read-only"), S_X2APIC_LDR, A_X2APIC),
    _same("dfr", 66, value(0xFFFFFFFF, "there is none in x2APIC mode")),
    _same("svr", 67, value(0xFF)),
    *(_same(f"isr{i}", 68, value(0)) for i in range(8)),
    *(_same(f"tmr{i}", 68, value(0)) for i in range(8)),
    *(_same(f"irr{i}", 68, value(0, "the APM's words on SKINIT, device interrupts held pending, are another case")) for i in range(8)),
    _same("esr", 69, value(0, 'the SDM does not name ESR: "all other registers" are initialized')),
    _same("icr", 70, value(0)),
    _same("icr2", 70, value(0)),
    _same("lvt_cmci", 71, _CMCI),
    _same("lvt_timer", 72, value(_MASKED), S_LVT),
    _same("lvt_thermal", 73, value(_MASKED), S_LVT),
    _same("lvt_pmc", 73, value(_MASKED), S_LVT),
    _same("lvt_error", 73, value(_MASKED), S_LVT),
    _same("lvt_lint0", 74, value(_MASKED), S_LVT),
    _same("lvt_lint1", 74, value(_MASKED), S_LVT),
    _same("timer_initial", 75, value(0)),
    entry("lapic.timer_current", row=75, reset=value(0), init=value(0), sipi=cited(undefined("it counts down by itself"), S_APIC_RESET), cite=_CITE),
    _same("timer_divide", 75, value(0)),
    _same("efeat", 77, _EFEAT),
    _same("ecntl", 78, _ECNTL),
)
