# SPDX-License-Identifier: GPL-2.0-only
"""The fields of structures by their places, with the names that C has for them."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple

from kvmtest.uapi import kvm as uapi
from kvmtest.x86 import lapic

__all__ = ("LAPIC_REGS", "Member", "member", "members")


class Member(NamedTuple):
    """A field of ``size`` bytes at ``offset`` of a structure, called ``path`` in C: ``cs.base``, ``db[0]``.

    A register of the local APIC's page, which C has as bytes, has the macro of its offset for a path.
    """

    path: str
    offset: int
    size: int


#: Macros of <asm/apicdef.h>, a header that userspace does not have, by the register's name here.
LAPIC_REGS = {
    **{"id": "APIC_ID", "version": "APIC_LVR", "tpr": "APIC_TASKPRI", "apr": "APIC_ARBPRI", "ppr": "APIC_PROCPRI"},
    **{"rrd": "APIC_RRR", "ldr": "APIC_LDR", "dfr": "APIC_DFR", "svr": "APIC_SPIV", "esr": "APIC_ESR"},
    **{"lvt_cmci": "APIC_LVTCMCI", "icr": "APIC_ICR", "icr2": "APIC_ICR2", "lvt_timer": "APIC_LVTT"},
    **{"lvt_thermal": "APIC_LVTTHMR", "lvt_pmc": "APIC_LVTPC", "lvt_lint0": "APIC_LVT0", "lvt_lint1": "APIC_LVT1"},
    **{"lvt_error": "APIC_LVTERR", "timer_initial": "APIC_TMICT", "timer_current": "APIC_TMCCT"},
    **{"timer_divide": "APIC_TDCR", "efeat": "APIC_EFEAT", "ecntl": "APIC_ECTRL"},
    **{f"{name}{i}": f"APIC_{name.upper()} + {16 * i:#x}" for name in ("isr", "tmr", "irr") for i in range(1, 8)},
    **{"isr0": "APIC_ISR", "tmr0": "APIC_TMR", "irr0": "APIC_IRR"},
}
#: Paths of what only fills a structure.
_FILLS = re.compile(r"pad[^.]*$|reserved|^chip\.dummy")
#: Structures that end with entries whose number they hold: the type of an entry.
_ENTRIES = {
    "kvm_msrs": ("entries", uapi.kvm_msr_entry),
    "kvm_irq_routing": ("entries", uapi.kvm_irq_routing_entry),
}


def _walk(kind: Any, path: str, offset: int) -> Iterator[Member]:
    if issubclass(kind, ctypes.Array):
        for i in range(kind._length_):
            yield from _walk(kind._type_, f"{path}[{i}]", offset + i * ctypes.sizeof(kind._type_))
    elif issubclass(kind, (ctypes.Structure, ctypes.Union)):
        anonymous = getattr(kind, "_anonymous_", ())
        for name, inner, *bits in kind._fields_:
            at = getattr(kind, name).offset
            if not bits:  # what has bit fields has a member for all of them, too
                yield from _walk(inner, path if name in anonymous else f"{path}.{name}" if path else name, offset + at)
    else:
        yield Member(path, offset, ctypes.sizeof(kind))


@cache
def members(kind: str, size: int) -> tuple[Member, ...]:
    """The fields of struct ``kind``, of which there are ``size`` bytes, in order: of a union those of its first member that has
    them, and the padding of none. Empty for what is not a structure.
    """
    if kind == "kvm_lapic_state":
        return tuple(Member(LAPIC_REGS[reg.name], reg.offset, 4) for reg in lapic.LAPIC if reg.offset < size)
    if kind == "kvm_xsave":
        return _of_xsave(size)
    struct = getattr(uapi, kind, None)
    if struct is None:
        return ()
    found = list(_walk(struct, "", 0))
    if kind in _ENTRIES:
        name, entry = _ENTRIES[kind]
        step = ctypes.sizeof(entry)
        for i, at in enumerate(range(ctypes.sizeof(struct), size - step + 1, step)):
            found += _walk(entry, f"{name}[{i}]", at)
    return tuple(one for one in found if not _FILLS.search(one.path))


def _of_xsave(size: int) -> tuple[Member, ...]:
    """The 32-bit words of an XSAVE area."""
    return tuple(Member(f"region[{at // 4}]", at, 4) for at in range(0, size, 4))


@cache
def _by_place(kind: str, size: int) -> dict[int, tuple[Member, ...]]:
    found: dict[int, tuple[Member, ...]] = {}
    for one in members(kind, size):
        found[one.offset] = (*found.get(one.offset, ()), one)
    return found


def member(kind: str, of: int, offset: int, size: int) -> Member | None:
    """The field of ``size`` bytes at ``offset`` of struct ``kind``, which has ``of`` bytes; None where none is just that."""
    there = _by_place(kind, of).get(offset, ())
    return next((one for one in there if one.size == size), None)
