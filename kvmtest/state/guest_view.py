# SPDX-License-Identifier: GPL-2.0-only
"""The guest's view: the items that its instructions can read, in which bits, and its report. Pure."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from kvmtest import spec
from kvmtest.guests import spine

__all__ = ("ITEMS", "LAPIC_UNREAD", "LIMITS", "Report", "items", "mask", "shown")

#: 16-bit code has 32 bits of these, and what is above does not outlive it, or cannot be read before it is overwritten.
_HALF = frozenset(
    ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", "rip", "rflags", "cr0", "cr3", "gdt.base", "idt.base")
    + tuple(f"{seg}.base" for seg in ("cs", "ds", "es", "ss", "fs", "gs"))
)
_LOW = (1 << 32) - 1
#: Reserved places unless the CPU has what they belong to: reading one sets ESR (SDM vol. 3, Error Handling).
LAPIC_UNREAD = frozenset(("lvt_cmci", "rrd", "efeat", "ecntl"))
#: Limits, of which a guest can only find which of spine.LIMITS they reach.
LIMITS = frozenset(f"{seg}.limit" for seg in ("cs", "ds", "es", "ss", "fs", "gs"))
_IN_STEPS = frozenset(item for names in spine.STEP_ITEMS.values() for item in names)


def _readable(item: str) -> bool:
    if item.startswith("lapic."):
        return item.partition(".")[2] not in LAPIC_UNREAD
    if item.startswith(("events.", "nested.")) or item in ("mp_state", "ssp"):
        return False
    return item.startswith("msr.") or "." not in item or item in _IN_STEPS or item in spine.PORT_ITEMS


#: Items that a guest may report: those of the tables that an instruction reads, or that its behaviour proves.
ITEMS = tuple(item for item in spec.ENTRIES if item not in spec.SYNTHETIC and _readable(item))


class Report(NamedTuple):
    """The guest's report.

    ``values`` are its items; ``missing`` are those that it cannot read here, with the reason. ``problem`` says why it stopped
    early ("" if it did not): items that are in neither are lost because of that. Of items in ``narrow`` it reported the low 32
    bits, though 64-bit code can read more. ``late`` is set if it stopped because something did not come in time.
    """

    values: dict[str, int]
    missing: dict[str, str]
    problem: str
    narrow: frozenset[str] = frozenset()
    late: bool = False


@cache
def items(apic_mode: str, vector: int | None = None, event: str = "sipi") -> tuple[str, ...]:
    """The items that a guest may report in a case.

    ``vector`` is that of the SIPI by which it begins: after INIT (``event``) the place of its first instruction is not INIT's.
    """
    names = ITEMS
    if apic_mode == "disabled":
        names = tuple(item for item in names if not item.startswith("lapic."))
    if vector is not None and event == "init":
        names = tuple(item for item in names if item not in ("rip", "cs.selector", "cs.base"))
    return names


def mask(item: str) -> int:
    """The bits of ``item`` that a guest reads; -1 for all."""
    return _LOW if item in _HALF else -1


def shown(item: str, value: int | None, narrow: frozenset[str] = frozenset()) -> int | None:
    """Return the value that a guest reports for an item that has ``value``; ``narrow`` is its report's."""
    if value is None:
        return None
    if item in LIMITS:
        return max(offset for offset in spine.LIMITS if offset <= value)
    return value & (_LOW if item in narrow else mask(item))
