# SPDX-License-Identifier: GPL-2.0-only
"""CPUID bits and fields that follow the processor's state. The other bits of their registers say what the model is."""

from __future__ import annotations

from kvmtest.spec.cite import A_APIC_ENABLE, A_CPUID, A_T1, A_X2APIC, S_APIC_ENABLE, S_CPUID, S_T1, S_XCR0, SDM_SIPI
from kvmtest.spec.rule import Entry, Rule, Vendored, cited, entry, masked, one_of, unchanged, undefined, value, vendors

__all__ = ("RULES",)

_ALL = (1 << 64) - 1
_OSXSAVE, _APIC, _OSPKE = 1 << 27, 1 << 9, 1 << 4
_LEGACY = 512 + 64


def _bit(item: str, bit: int, row: int, reset: Rule | Vendored, init: Rule, *cite: str) -> Entry:
    """A register with one judged bit, which does not change with a SIPI."""
    sipi = cited(masked(0, unchanged=bit, ignore=_ALL ^ bit), SDM_SIPI)
    return entry(item, row=row, reset=reset, init=init, sipi=sipi, cite=(S_CPUID, A_CPUID, *cite))


_APIC_RESET = vendors(
    intel=cited(masked(_APIC, ignore=_ALL ^ _APIC, note="IA32_APIC_BASE.EN is set"), S_CPUID, S_APIC_ENABLE, S_T1),
    amd=cited(undefined("the APM contradicts itself on the enable bit after RESET"), A_T1, A_APIC_ENABLE, A_X2APIC),
)
_APIC_INIT = masked(0, unchanged=_APIC, ignore=_ALL ^ _APIC, note="INIT leaves IA32_APIC_BASE.EN alone")
_COMPACT = one_of(_LEGACY, 0, note="XCR0 is 1 and IA32_XSS 0: legacy region and header; 0 without XSAVEC and XSAVES")
_KEEP_SIZE = unchanged("INIT leaves XCR0 alone")
_KEEP_BOTH = unchanged("INIT leaves XCR0 and IA32_XSS alone")

RULES: tuple[Entry, ...] = (
    _bit("cpuid.1.ecx", _OSXSAVE, 19, masked(0, ignore=_ALL ^ _OSXSAVE), masked(0, ignore=_ALL ^ _OSXSAVE, note="OSXSAVE is CR4's"), S_T1, A_T1),
    _bit("cpuid.1.edx", _APIC, 59, _APIC_RESET, _APIC_INIT, S_APIC_ENABLE, A_APIC_ENABLE),
    _bit("cpuid.7.ecx", _OSPKE, 19, masked(0, ignore=_ALL ^ _OSPKE), masked(0, ignore=_ALL ^ _OSPKE, note="OSPKE is CR4.PKE"), S_T1, A_T1),
    entry("cpuid.d.ebx", row=22, reset=value(_LEGACY, "XCR0 is 1: legacy region and header"), init=_KEEP_SIZE, cite=(S_CPUID, S_XCR0, A_CPUID, A_T1)),
    entry("cpuid.d1.ebx", row=(22, 42), reset=_COMPACT, init=_KEEP_BOTH, cite=(S_CPUID, S_XCR0, A_CPUID, A_T1)),
)
