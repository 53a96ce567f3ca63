# SPDX-License-Identifier: GPL-2.0-only
"""Segment and descriptor-table registers.

Attributes are the descriptor cache's, in the fields of struct kvm_segment; no instruction reads them.
"""

from __future__ import annotations

from kvmtest.spec.cite import A_FIRST, A_T1, A_T2, S_FIRST, S_GDTR, S_IDTR, S_LDTR, S_T1, S_TR, S_VMX_SEGMENTS, SDM_SIPI
from kvmtest.spec.rule import Entry, Rule, Vendored, cited, entry, formula, one_of, value, vendors

__all__ = ("RULES",)

_CITE = (S_T1, A_T1)
_CS = (S_T1, S_FIRST, A_T1, A_FIRST)
_ATTRIBUTES = (S_T1, A_T2)
_DATA = ("ss", "ds", "es", "fs", "gs")


def _same(item: str, row: int, rule: Rule | Vendored, *cite: str, hidden: bool = False) -> Entry:
    """INIT like RESET."""
    return entry(item, row=row, reset=rule, init=rule, cite=cite or _CITE, hidden=hidden)


def _attributes(seg: str, row: int, kind: Rule | Vendored, s: int, *cite: str) -> tuple[Entry, ...]:
    """The hidden fields of one segment register: only the type differs by vendor."""
    cite = cite or _ATTRIBUTES
    return (
        _same(f"{seg}.type", row, kind, *cite, hidden=True),
        _same(f"{seg}.s", row, value(s), *cite, hidden=True),
        _same(f"{seg}.dpl", row, value(0), *cite, hidden=True),
        _same(f"{seg}.present", row, value(1), *cite, hidden=True),
        _same(f"{seg}.avl", row, value(0), *cite, hidden=True),
        _same(f"{seg}.l", row, value(0), *cite, hidden=True),
        _same(f"{seg}.db", row, value(0), *cite, hidden=True),
        _same(f"{seg}.g", row, value(0), *cite, hidden=True),
        _same(f"{seg}.unusable", row, value(0, "VMX's notion, and KVM's; a present segment is usable"), S_VMX_SEGMENTS, *cite, hidden=True),
    )


_CS_TYPE = vendors(
    intel=one_of(0x3, 0xB, note='"Present, R/W, Accessed" is data type 3; VM entry wants accessed code (11), or 3 in an unrestricted guest'),
    amd=value(0xA, "code, readable, not accessed"),
)
_DATA_TYPE = vendors(intel=value(0x3, "read/write, accessed"), amd=value(0x2, "read/write, not accessed"))
_TR_TYPE = vendors(
    intel=one_of(0x2, 0x3, 0xB, note='the table says "Present, R/W" and no TSS type; VM entry wants a busy TSS, 3 or 11'),
    amd=value(0x3, "busy 16-bit TSS"),
)

RULES: tuple[Entry, ...] = (
    entry("cs.selector", row=8, reset=value(0xF000), init=value(0xF000), sipi=cited(formula("SIPI.CS"), SDM_SIPI), cite=_CS),
    entry("cs.base", row=8, reset=value(0xFFFF0000), init=value(0xFFFF0000), sipi=cited(formula("SIPI.BASE"), SDM_SIPI), cite=_CS),
    _same("cs.limit", 8, value(0xFFFF)),
    *_attributes("cs", 9, _CS_TYPE, 1, S_T1, S_VMX_SEGMENTS, A_T2),
    *(_same(f"{seg}.selector", 10, value(0)) for seg in _DATA),
    *(_same(f"{seg}.base", 10, value(0)) for seg in _DATA),
    *(_same(f"{seg}.limit", 10, value(0xFFFF)) for seg in _DATA),
    *(rule for seg in _DATA for rule in _attributes(seg, 11, _DATA_TYPE, 1)),
    _same("ldt.selector", 12, value(0), S_T1, S_LDTR, A_T1),
    _same("ldt.base", 12, value(0), S_T1, S_LDTR, A_T1),
    _same("ldt.limit", 12, value(0xFFFF), S_T1, S_LDTR, A_T1),
    *_attributes("ldt", 12, value(0x2, "LDT"), 0),
    _same("tr.selector", 13, value(0), S_T1, S_TR, A_T1),
    _same("tr.base", 13, value(0), S_T1, S_TR, A_T1),
    _same("tr.limit", 13, value(0xFFFF), S_T1, S_TR, A_T1),
    *_attributes("tr", 13, _TR_TYPE, 0, S_T1, S_VMX_SEGMENTS, A_T2),
    _same("gdt.base", 14, value(0), S_T1, S_GDTR, A_T1),
    _same("gdt.limit", 14, value(0xFFFF), S_T1, S_GDTR, A_T1),
    _same("idt.base", 15, value(0), S_T1, S_IDTR, A_T1),
    _same("idt.limit", 15, value(0xFFFF, "the SDM's chapter on real-address mode says 3FFH"), S_T1, S_IDTR, A_T1),
)
