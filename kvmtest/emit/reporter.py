# SPDX-License-Identifier: GPL-2.0-only
"""The reporting guest as ops: its memory, and how it reports one item."""

from __future__ import annotations

from collections.abc import Iterator

from kvmtest.guests import spine
from kvmtest.scenario import program as p
from kvmtest.state.guest_view import LIMITS
from kvmtest.state.layout import Layout
from kvmtest.x86 import lapic, msr

__all__ = ("Unreportable", "begins", "install", "report")

_APIC = 0xFEE00000
_X2APIC_FIRST = 0x800
_WORD = 8
_ALIASES = {"efer": 0xC0000080, "apic_base": 0x1B}
#: Items that the guest finds by the pattern in RAM, which is not written here.
_BY_PATTERN = LIMITS | {f"{seg}.base" for seg in ("ds", "es", "ss", "fs", "gs")}
#: Registers that x2APIC mode has in another form, or not at all.
_NOT_X2APIC = ("lapic.id", "lapic.dfr", "lapic.icr", "lapic.icr2")


class Unreportable(ValueError):
    """An item that the guest cannot report by a list of ops; the text says why."""


def install(vector: int | None, item: str, apic_mode: str, xcr0: int) -> Iterator[p.Op]:
    """Put the guest into memory and make it read ``item``. Raises GuestMissing, Unreportable."""
    msrs, registers = _lists(item, apic_mode)
    for one in spine.memory(vector, msrs, registers, xcr0):
        yield p.Region(one.slot, one.gpa, one.size)
        yield from (p.Write(gpa, data) for gpa, data in one.writes)


def _lists(item: str, apic_mode: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    if item in _ALIASES:
        return (_ALIASES[item],), ()
    if item.startswith("msr."):
        return (msr.index_of(item.removeprefix("msr.")),), ()
    if not item.startswith("lapic."):
        return (), ()
    offset = lapic.offset_of(item.removeprefix("lapic."))
    if apic_mode == "x2apic":
        if item in _NOT_X2APIC:
            raise Unreportable(f"{item} has another form in x2APIC mode")
        return (_X2APIC_FIRST + (offset >> 4),), ()
    if apic_mode == "relocated":
        raise Unreportable("the local APIC's page is not where it was")
    return (), (_APIC + offset,)


def begins(vcpu: int) -> p.Op:
    """Run the guest until it has reported where it began: the expectation."""
    return p.Enter(vcpu, p.Came("out", spine.PORT_ENTRY, past=tuple(spine.ports())), p.Otherwise("fail", ""))


def report(vcpu: int, item: str, layout: Layout, apic_mode: str, to: p.Place) -> Iterator[p.Op]:
    """Run the guest until it has reported ``item``, which goes to the eight bytes at ``to``. Raises Unreportable."""
    if item in _BY_PATTERN:
        raise Unreportable(f"the guest finds {item} by a pattern in all of its RAM")
    stopped = p.Otherwise("error", "the guest did not get that far")
    ports = spine.ports()
    entry = spine.PORT_ENTRY
    own = next((port for port, name in ports.items() if name == item), None)
    past = tuple(port for port in (entry, *ports) if port != own)
    resume = spine.DATA + spine.RESUME
    if own is not None:
        yield p.Enter(vcpu, p.Came("out", own, past=past), stopped, resume, True)
        yield p.Said(vcpu, to._replace(size=4))
        return
    yield p.Enter(vcpu, p.Came("out", spine.PORT_DONE, past=past), stopped, resume, True)
    at, size = _place(item, layout, apic_mode)
    yield p.Peek(to._replace(size=size), at)


def _place(item: str, layout: Layout, apic_mode: str) -> tuple[int, int]:
    """Return the guest's address of ``item``, and its size in bytes."""
    if item in spine.slots():
        return spine.DATA + spine.slots()[item], 8
    if item in _ALIASES or item.startswith("msr.") or item.startswith("lapic.") and apic_mode == "x2apic":
        return spine.DATA + spine.MSRS + spine.LIST_VALUE, 8
    if item.startswith("lapic."):
        return spine.DATA + spine.LAPIC + spine.LIST_VALUE, 4
    field = layout.fields.get(item)
    if field and field.section == "xsave" and field.size <= _WORD:
        return spine.XSAVE + field.offset, field.size
    raise Unreportable(f"no word of the guest is {item}")
