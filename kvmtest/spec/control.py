# SPDX-License-Identifier: GPL-2.0-only
"""Control registers, EFER, IA32_APIC_BASE, XCR0 and SSP."""

from __future__ import annotations

from kvmtest.spec.cite import (
    A_APIC,
    A_APIC_ENABLE,
    A_SYSTEM,
    A_T1,
    A_X2APIC,
    LINUX_CR0,
    S_APIC_INIT,
    S_APIC_RESET,
    S_T1,
    S_T1_CD_NW,
    S_X2APIC,
    S_XCR0,
    SANDPILE,
)
from kvmtest.spec.rule import Entry, cited, entry, formula, masked, unchanged, undefined, value, vendors

__all__ = ("RULES",)

_CITE = (S_T1, A_T1)
_CR0_INIT = vendors(
    intel=cited(masked(0x10, unchanged=0x60000000, note="the column's 60000010H is overridden by its footnote"), S_T1_CD_NW, LINUX_CR0),
    amd=cited(masked(0x10, unchanged=0x60000000), A_T1),
)
_XCR0 = value(1, "older revisions of the SDM's table print 3H, against the chapters on XSAVE")
_APIC_BASE_RESET = vendors(
    intel=cited(formula("APIC_BASE", "base FEE00000H, enabled, BSP on the boot processor, xAPIC mode"), S_T1, S_X2APIC),
    amd=cited(undefined('the APM contradicts itself on the enable bit: disabled after RESET, and "Enabled" after INIT'), A_T1, A_APIC_ENABLE, A_X2APIC),
)
_APIC_BASE_INIT = vendors(
    intel=cited(unchanged(), S_T1, S_X2APIC),
    amd=cited(unchanged("AE and EXTD are not modified, the base is not affected"), A_APIC_ENABLE, A_X2APIC),
)
_SSP = undefined("found in one independent compilation only (0); neither manual's table lists SSP")

RULES: tuple[Entry, ...] = (
    entry("cr0", row=16, reset=value(0x60000010), init=_CR0_INIT, cite=_CITE),
    entry("cr2", row=17, reset=value(0), init=value(0), cite=_CITE),
    entry("cr3", row=18, reset=value(0), init=value(0), cite=_CITE),
    entry("cr4", row=19, reset=value(0), init=value(0), cite=_CITE),
    entry("cr8", row=20, reset=value(0), init=value(0), cite=(S_APIC_RESET, S_APIC_INIT, A_T1, A_APIC)),
    *(entry(item, row=(21, 109), reset=value(0), init=value(0), cite=(S_T1, A_T1, A_SYSTEM)) for item in ("efer", "msr.efer")),
    *(entry(item, row=59, reset=_APIC_BASE_RESET, init=_APIC_BASE_INIT, cite=_CITE) for item in ("apic_base", "msr.apic_base")),
    entry("xcr0", row=22, reset=_XCR0, init=unchanged(), cite=(S_T1, S_XCR0, A_T1)),
    entry("ssp", row=45, reset=_SSP, init=_SSP, cite=(SANDPILE,)),
)
