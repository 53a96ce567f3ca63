# SPDX-License-Identifier: GPL-2.0-only
"""Judging a single section written back to RESET's values."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from kvmtest.judge.evidence import Basis
from kvmtest.judge.migration import apic_mode
from kvmtest.spec.alone import follows
from kvmtest.spec.untouched import COUNTERS
from kvmtest.state.sections import Snapshot
from kvmtest.x86.msr import SAME

__all__ = ("AS_ASKED", "Judged", "departs", "judged")

#: The expected value, in words.
AS_ASKED = "as written, and the rest as before"
#: More items than a reason names.
_MANY = 8
#: Registers that x2APIC mode derives from the vCPU's id, or does not have.
_OF_MODE = ("lapic.id", "lapic.ldr", "lapic.dfr")


def _registers(item: str) -> tuple[str, ...]:
    """The items of the register that ``item`` is: an MSR may have several numbers."""
    kind, _, name = item.partition(".")
    return tuple(f"msr.{same}" for same in SAME.get(name, (name,))) if kind == "msr" else (item,)


def departs(basis: Basis, section: str, before: Snapshot, after: Snapshot) -> str:
    """The items that are otherwise, with their values; AS_ASKED where none is."""
    others = (one for one in judged(basis, section, before, after) if one.seen != one.wanted)
    found = [f"{item} = {seen:#x}" if seen is not None else f"{item} is not there" for item, _, seen in others]
    more = f", and {len(found) - _MANY} more" if len(found) > _MANY else ""
    return ", ".join(found[:_MANY]) + more if found else AS_ASKED


class Judged(NamedTuple):
    """An ``item``, its expected and its observed value; None if it is not there."""

    item: str
    wanted: int | None
    seen: int | None


def judged(basis: Basis, section: str, before: Snapshot, after: Snapshot) -> Iterator[Judged]:
    """Yield each item with its expected and its observed value."""
    layout, plant = basis.layout, basis.plant
    assert basis.baseline and plant
    other = {one.item: one.free for one in follows(section)}
    old = apic_mode(before, layout, basis.ctx.apic_mode)
    new = apic_mode(after, layout, old)
    for item, field in layout.fields.items():
        written = field.section == section and any(
            (section != "msrs" or one in plant.asked) and one not in plant.refused for one in _registers(item)
        )
        if item in COUNTERS or other.get(item):
            continue
        if item.startswith("lapic.") and (old != new or new == "disabled"):
            continue  # what is left of a local APIC then, no manual says
        if new == "x2apic" and item in _OF_MODE:
            written = False
        source = basis.baseline if written or item in other else before
        wanted, seen = source.get(layout, item), after.get(layout, item)
        if item == "mp_state" and written:
            wanted = plant.asked[item]
        yield Judged(item, wanted, seen)
