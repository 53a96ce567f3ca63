# SPDX-License-Identifier: GPL-2.0-only
"""Judging a migration: the state of each vCPU before and after it, and what KVM refused to restore."""

from __future__ import annotations

import errno
from collections.abc import Hashable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeVar

from kvmtest.judge.cache import Cache
from kvmtest.judge.evidence import Basis, Ended
from kvmtest.judge.many import merged
from kvmtest.model.host import Host
from kvmtest.model.record import Block, Record
from kvmtest.model.value import Expected
from kvmtest.model.verdict import Verdict, overall
from kvmtest.scenario.orders import ORDERS
from kvmtest.spec.emulators import ends_early
from kvmtest.spec.migrated import AS_SAVED, COUNTED, About, added, rule
from kvmtest.state.guest_view import ITEMS, Report
from kvmtest.state.layout import Layout
from kvmtest.state.sections import Snapshot
from kvmtest.x86.cpuid import MIRRORS

__all__ = ("Migrated", "apic_mode", "aside", "behaviours", "reported", "since", "tables", "vcpus")

_Who = TypeVar("_Who", bound=Hashable)
_APIC_EN, _APIC_EXTD = 1 << 11, 1 << 10


_ACCEPTED, _SAME, _ON = "accepted", "as it was saved", "goes on from what was saved"
#: The PIC's two, and the IOAPIC, by KVM_IRQCHIP_*.
_CHIPS = ("KVM_IRQCHIP_PIC_MASTER", "KVM_IRQCHIP_PIC_SLAVE", "KVM_IRQCHIP_IOAPIC")
#: More than any migration takes.
_LATER_NS = 600 * 10**9
#: The longest, in bytes.
_INSTRUCTION = 15
#: The LVT timer's mode; it begins again from its initial count.
_PERIODIC = 1 << 17


class Migrated(NamedTuple):
    """One vCPU's state ``before`` the migration and ``after`` it; counters have their saved values before."""

    layout: Layout
    before: Snapshot
    after: Snapshot


def apic_mode(snapshot: Snapshot, layout: Layout, otherwise: str) -> str:
    """The mode of the local APIC, as rules depend on it; ``otherwise`` where IA32_APIC_BASE could not be read."""
    for item in ("apic_base", "msr.apic_base"):
        if (base := snapshot.get(layout, item)) is not None:
            return "disabled" if not base & _APIC_EN else "x2apic" if base & _APIC_EXTD else "xapic"
    return otherwise


def aside(layout: Layout) -> tuple[str, ...]:
    """List the items that may change in a scenario with a migration: those that KVM computes when the vCPU runs, and MSRs that no
    VMM saves.
    """
    return ("lapic.ppr", *(item for item in layout.unlisted if not added(item)))


def vcpus(bases: Sequence[Basis], values: list[Any]) -> list[Migrated]:
    """Each vCPU's, in the order of ``bases``, of the step's results; none if it did not finish.

    The last numbers before the first snapshot are what was saved of the items that count.
    """
    layouts = [basis.layout for basis in bases]
    snapshots = [value for value in values if isinstance(value, Snapshot)]
    count = len(layouts)
    if len(snapshots) != 2 * count:
        return []
    first = next(number for number, value in enumerate(values) if isinstance(value, Snapshot))
    items = [[item for item in COUNTED if item in layout.fields] for layout in layouts]
    saved = iter(values[first - sum(map(len, items)) : first])
    found = []
    for number, (layout, names) in enumerate(zip(layouts, items, strict=True)):
        before = snapshots[number]
        for item in names:
            value = next(saved)
            if item == "lapic.timer_current" and (before.get(layout, "lapic.lvt_timer") or 0) & _PERIODIC:
                value = before.get(layout, "lapic.timer_initial") or 0
            before = before if before.get(layout, item) is None else before.put(layout, item, value)
        found.append(Migrated(layout, before, snapshots[count + number]))
    return found


def tables(cache: Cache, bases: Sequence[Basis], order: str, values: list[Any]) -> tuple[Block, ...]:
    """The whole table of each vCPU, before and after the migration, as one; none if it did not finish.

    Where an item is not judged on one vCPU, its record on another counts.
    """
    blocks, lost = [], ORDERS[order].lost
    for basis, (layout, before, after) in zip(bases, vcpus(bases, values), strict=False):
        mode = apic_mode(before, layout, basis.ctx.apic_mode)
        ctx = basis.ctx._replace(prefix="migrate.migrate.host", before=True, apic_mode=mode)
        about = About(lost, layout.unlisted, bool(before.get(layout, "events.exception_pending")), _stale(layout, before))
        tables = cache.tables(ctx, layout, partial(rule, about=about), ("migrate", about))
        blocks.append(tables.host(ctx, basis.baseline or before, None, before, after))
    return merged("vcpus", [basis.ctx.apic_id for basis in bases], blocks, cache, overall) if blocks else ()


def _stale(layout: Layout, saved: Snapshot) -> tuple[str, ...]:
    """Return the items of CPUID whose bits are not those of the CR4 that was ``saved``."""
    cr4 = saved.get(layout, "cr4")
    values = ((mirror, saved.get(layout, mirror.item)) for mirror in MIRRORS if mirror.cr4)
    return tuple(
        mirror.item
        for mirror, value in values
        if None not in (cr4, value) and bool(value & mirror.bits) != bool(cr4 & mirror.cr4)  # type: ignore[operator]
    )


def reported(report: Report, host: Host, layout: Layout, last: Snapshot) -> Report:
    """Return the guest's report after a migration; items that an emulator could not report for the restored state are missing."""
    why = ends_early(host.names, last.get(layout, "cr0"), last.get(layout, "ss.dpl")) if report.problem else ""
    if not why:
        return report
    lost = (item for item in ITEMS if item not in report.values)
    return report._replace(missing=dict.fromkeys(lost, why) | report.missing, problem="")


def since(bases: Sequence[Basis], seen: Mapping[_Who, list[Snapshot]], values: list[Any]) -> dict[_Who, list[Snapshot]]:
    """Return what was ``seen`` of vCPUs, with the changes that a later migration made: the migration itself is judged apart."""
    moved = vcpus(bases, values)
    # The target comes first, and the other one last.
    of_who = {"target": moved[:1], "each": moved, "other": moved[-1:]}
    return {
        who: [_changed(*pair) for pair in zip(old, of_who[str(who)], strict=False)] if str(who) in of_who and moved else old
        for who, old in seen.items()
    }


def _changed(seen: Snapshot, moved: Migrated) -> Snapshot:
    """Return an earlier snapshot of a vCPU with the items that the migration changed as they were after it."""
    layout, before, after = moved
    # The last exit's I/O, which is completed before anything is saved, moves RIP past an instruction.
    rip, old = (one.get(layout, "rip") or 0 for one in (before, seen))
    if 0 < rip - old <= _INSTRUCTION:
        seen = seen.put(layout, "rip", rip)
    for section, items in layout.by_section.items():
        if section in seen.sections and before.sections.get(section) != after.sections.get(section):
            for item in items:
                value = after.get(layout, item)
                if item not in COUNTED and value is not None and seen.get(layout, item) is not None:
                    seen = seen if before.get(layout, item) == value else seen.put(layout, item, value)
    return seen


def behaviours(end: Ended | None, values: list[Any], vcpus: int) -> list[Record]:
    """Judge a migration apart from the tables of its ``vcpus``: a refusal by KVM, which ends it, the irqchip and the clock."""
    made = [Record("refused", Verdict.PASS, None, Expected((_ACCEPTED,)), _refused(end, values) or _ACCEPTED, "", AS_SAVED)]
    if not end:
        differ = [value for value in values if type(value) is tuple]
        made += [_irqchip(differ), _clock(*values[-vcpus - 2 : -vcpus])]
    wrong = [one for one in made if one.expected and one.observed not in one.expected.values]
    return [one._replace(verdict=Verdict.FAIL) if one in wrong else one for one in made]


def _refused(end: Ended | None, values: list[Any]) -> str:
    """The ioctl, with its error or the MSR."""
    if not end:
        return ""
    name, *msrs = end.why.split()
    answer = values[-1]
    return f"{name}: {errno.errorcode.get(-answer, -answer)}" if answer < 0 else f"{name}: {msrs[answer]}"


def _irqchip(differ: list[tuple[int, int]]) -> Record:
    """PIC and IOAPIC; the number of bytes in which each chip differs, and the first one's offset."""
    if not differ:
        return Record("irqchip", Verdict.SKIP, reason="this VM has neither KVM's PIC nor its IOAPIC", cite=AS_SAVED)
    wrong = [f"{count} bytes of {chip}, from {at:#x} on" for chip, (count, at) in zip(_CHIPS, differ, strict=True) if count]
    return Record("irqchip", Verdict.PASS, None, Expected((_SAME,)), ", ".join(wrong) or _SAME, "", AS_SAVED)


def _clock(saved: int, now: int) -> Record:
    """KVM_GET_CLOCK, in ns."""
    shown = _ON if saved <= now < saved + _LATER_NS else f"{now - saved:+d} ns from the saved value"
    return Record("clock", Verdict.PASS, None, Expected((_ON,)), shown, "", AS_SAVED)
