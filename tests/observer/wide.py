# SPDX-License-Identifier: GPL-2.0-only
"""A recorded log as a CPU with each XSAVE component and MSR would print it, in which each rule that can be judged passes."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from kvmtest import spec
from kvmtest.guests import spine
from kvmtest.model.record import Record
from kvmtest.model.run import Run
from kvmtest.model.verdict import Verdict
from kvmtest.observer.judge import judged, machine
from kvmtest.observer.log import Log, Look, parse
from kvmtest.observer.state import NO_MSR
from kvmtest.state import values
from kvmtest.state.guest_view import ITEMS, LIMITS
from kvmtest.x86 import xsave
from tests.observer import made

#: Of CPUID.0DH: where components lie on Intel's CPUs, APX behind the others, since its place there is that of MPX.
_COMPONENTS = {2: 576, 3: 960, 4: 1024, 5: 1088, 6: 1152, 7: 1664, 9: 2688, 17: 2752, 18: 2816, 19: 11008}
#: CPUID.0AH:EAX of version 2 with 8 counters of 48 bits; the status of a step that raised #GP.
_PMU, _GP = 0x07300802, 13 << 8
#: More bits than one value has to plant: some rules leave all but a few alone.
_PLANTS = ({**values.values("a"), **values.values("b")}, values.values("a"), {}, dict.fromkeys(ITEMS, 0xFFFFFFFF))
#: With a local APIC that is there: elsewhere than before.
_APIC_BASE = 0xFED00900
#: Two items that are one register; the second is changed with the first.
ALIASES = {"msr.efer": "efer", "msr.apic_base": "apic_base"}


class Place(NamedTuple):
    """An observation of a run by its case, and its looks in the log: what was planted before it, if anything was, and it."""

    case: str
    planted: tuple[int, int] | None
    read: tuple[int, int]


PLACES = {
    "power-on": Place("reset.power-on/bsp,{},cpu0,boot1", None, (0, 0)),
    "reset": Place("reset.cf9/bsp,{},cpu0,boot2", (0, -1), (1, 0)),
    "init": Place("init.icr-xapic/bsp,{},cpu0,boot2", (1, -2), (1, -1)),
}


def run(log: Log) -> Run:
    return judged(log, machine(log), "2026-01-01T00:00:00Z")


def records(of: Run, case: str) -> dict[str, Record]:
    seen = next(one for one in of.observations if one.case and one.case.name == case)
    return {record.item: record for record in seen.records}


def _wider(look: Look) -> Look:
    look = made.copied(look)
    mask = 3 | sum(1 << bit for bit in _COMPONENTS)
    own = next(row for row in look.lists["cpuid"] if row[:2] == (0xD, 0))
    rows = [row for row in look.lists["cpuid"] if row[0] != 0xD or row[1] == 1]
    rows.append((0xD, 0, mask, *own[3:5], 0))
    for component in xsave.COMPONENTS:
        size = max(register.offset + register.size for register in component.registers)
        rows.append((0xD, component.bit, size, _COMPONENTS[component.bit], 0, 0))
    rows.append((0xA, 0, _PMU, 0, 0, 0))
    look.lists["cpuid"], look.lists["xcr0"] = rows, [(mask, mask)]
    look.lists["msr"] = [(NO_MSR, 0, _GP) if row[0] == NO_MSR else row for row in look.lists["msr"]]
    # CPUID is not read back after a plant: here it is, so that it can be shown to differ from what was there before.
    look.steps["CPUID"] = 1
    return look


def _passing(log: Log, place: Place, vendor: str) -> Log:
    """``log`` with a plant and a value by which each rule of a place passes that can be judged there."""
    case, event = place.case.format(vendor), place.case.partition(".")[0]
    for plants in _PLANTS:
        wrong = {}
        for item, record in records(run(log), case).items():
            rule = spec.rule_for(item, event, vendor, "none")
            if rule.kind != "undefined" and record.verdict is not Verdict.PASS and item not in ALIASES:
                wrong[item] = next(iter(spine.LIMITS)) if item in LIMITS else plants.get(item, 5)
        if "apic_base" in wrong:
            wrong["apic_base"] = _APIC_BASE
        if place.planted:
            log = made.changed(log, *place.planted, wrong)
        log = made.changed(log, *place.read, wrong)
        after = records(run(log), case)
        right = {item: one.values[0] for item in wrong if (one := after[item].expected)}
        log = made.changed(log, *place.read, {item: value for item, value in right.items() if isinstance(value, int)})
    return log


@cache
def wide(name: str, vendor: str) -> Log:
    """The log of the boot processor alone."""
    log = made.recorded(name)
    boots = [boot._replace(looks=[_wider(look) for look in boot.looks if look.apic_id == 0]) for boot in log.boots]
    log = parse(made.printed(log._replace(boots=boots)))
    for place in PLACES.values():
        log = _passing(log, place, vendor)
    return log
