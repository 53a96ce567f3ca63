# SPDX-License-Identifier: GPL-2.0-only
"""Recorded evidence with one thing of it corrupted at random, and the records that this may and must make others.

A corruption is a bit of a section, of what a guest reported, of a number or of an exit; a section that is not there; or two
observations in each other's place.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from kvmtest.judge.evidence import Again, Evidence, Exited, Played, ResetSeen, ResetTry
from kvmtest.model.record import Record
from kvmtest.model.verdict import Verdict
from kvmtest.scenario import looks as of
from kvmtest.scenario import step as s
from kvmtest.spec.migrated import COUNTED
from kvmtest.spec.untouched import COUNTERS
from kvmtest.state.guest_view import Report
from kvmtest.state.layout import Layout
from kvmtest.state.sections import Snapshot
from kvmtest.x86 import xsave
from tests.judge.trial import Place, Trial, judged_bits

__all__ = ("KINDS", "Corruption", "corrupted", "outcome")

#: Dependencies of records: by items, the others that they decide about.
_DECIDES: dict[str, tuple[str, ...]] = {
    # The mode of the local APIC.
    "apic_base": ("lapic.",),
    # From what a timer counts, of a vCPU that is migrated.
    "lapic.lvt_timer": ("lapic.timer_current",),
    "lapic.timer_initial": ("lapic.timer_current",),
    # An exception that is pending has a payload, which a debug exception keeps from DR6, and is injected on the way.
    "events.exception_pending": ("events.", "dr6"),
}
#: The items that prove that an INIT was taken: without that, nothing of it is judged.
_TAKEN = ("mp_state", "events")
#: The items that an event shows in: where a bit makes one of these as it was before, nothing proves that there was an event.
_TRACES, _NO_TRACE = ("mp_state", "regs", "sregs", "debugregs"), "the event left no trace"
#: With these a guest comes to no end after a migration, on an emulated CPU.
_ENDS = frozenset(("cr0", "ss.dpl"))


class Corruption(NamedTuple):
    """Evidence ``seen`` with something else in it, in words ``what``.

    Records of ``items`` may be others, and after the ``step`` those of behaviours that compare what was read; the table may be an
    error where ``whole`` is, or that there was no event where ``traces`` is. ``must`` are items whose record in the case's view
    has to depart, or to be an error.
    """

    what: str
    seen: Any
    items: frozenset[str]
    step: int
    whole: bool = False
    traces: bool = False
    must: frozenset[str] = frozenset()


class _Spot(NamedTuple):
    """A thing of the evidence: the vCPU's layout, the number of its step, and what makes evidence with another in its place.

    ``shows`` is whether the host's table of the case is judged by it; ``at`` is its number in a program's evidence.
    """

    value: Any
    layout: Layout
    step: int
    put: Callable[[Any], Any]
    shows: bool = False
    at: int = -1


def _spots(trial: Trial, seen: Any) -> Iterator[_Spot]:
    """All things of the evidence."""
    if isinstance(seen, Again):
        for spot in _spots(trial, seen.seen):
            yield spot._replace(put=lambda value, put=spot.put: seen._replace(seen=put(value)))
    elif isinstance(seen, Played):
        tables = {look.step for look in of.looks(trial.look.scenario) if not look.item and _prefix(look) == trial.prefix}
        shown = trial.at(s.Observe) if trial.look.view == "host" and trial.look.trigger != "create" else []
        layout = trial.bases[0].layout
        for at, (step, value) in enumerate(seen.evidence):
            before, after = seen.evidence[:at], seen.evidence[at + 1 :]
            put = lambda value, step=step, before=before, after=after: seen._replace(evidence=(*before, (step, value), *after))  # noqa: E731
            yield _Spot(value, layout, step, put, at in shown and step in tables, at)
    elif isinstance(seen, ResetSeen):
        for at, one in enumerate(seen.tries):
            for name, value in one.seen._asdict().items():
                if value is not None:
                    shows = name == "after" and seen.new is None
                    yield _Spot(value, trial.bases[0].layout, 0, _in_try(seen, at, one, name), shows)


def _prefix(look: of.Look) -> str:
    return f"{look.event}.{look.trigger}.{look.view}"


def _in_try(seen: ResetSeen, at: int, one: ResetTry, name: str) -> Callable[[Any], ResetSeen]:
    def put(value: Any) -> ResetSeen:
        other: Evidence = one.seen._replace(**{name: value})
        return seen._replace(tries=(*seen.tries[:at], one._replace(seen=other), *seen.tries[at + 1 :]))

    return put


def _decided(layout: Layout, items: set[str], bytes_: range | None = None) -> frozenset[str]:
    """``items``, and those that they decide about; of the header of an XSAVE area all components."""
    found = set(items)
    for item in items:
        for other in _DECIDES.get(item, ()):
            found |= {name for name in layout.fields if name == other or other.endswith(".") and name.startswith(other)}
    if bytes_ and set(bytes_) & set(range(xsave.XSTATE_BV_OFFSET, xsave.XSTATE_BV_OFFSET + 8)):
        found |= set(layout.by_section.get("xsave", ()))
    return frozenset(found)


# Kinds


def _bit(trial: Trial, rng: random.Random, spots: list[_Spot]) -> Corruption | None:
    """One bit of one section."""
    spot = rng.choice([spot for spot in spots if isinstance(spot.value, Snapshot)] or [None])
    if spot is None or not spot.value.sections:
        return None
    layout, snapshot = spot.layout, spot.value
    section = rng.choice(sorted(snapshot.sections))
    if not (data := bytearray(snapshot.sections[section])):
        return None
    at, bit = rng.randrange(len(data)), rng.randrange(8)
    data[at] ^= 1 << bit
    fields = {item: field for item, field in layout.fields.items() if field.section == section}
    there = {item: field for item, field in fields.items() if field.offset <= at < field.offset + field.size}
    other = snapshot._replace(sections=snapshot.sections | {section: bytes(data)})
    records, must = trial.of_view(), set()
    for item, field in there.items():
        record = records.get(item)
        if spot.shows and record and other.get(layout, item) != snapshot.get(layout, item):
            must |= {item} if 8 * (at - field.offset) + bit in judged_bits(record, field.size) else set()
    items = _decided(layout, set(there), range(at, at + 1) if section == "xsave" else None)
    whole = "events.smi_latched_init" in there
    what = f"bit {bit} of byte {at:#x} of {section} ({', '.join(there) or 'no item'}), step {spot.step}"
    return Corruption(what, spot.put(other), items, spot.step, whole, section in _TRACES, frozenset(must if not whole else ()))


def _section(trial: Trial, rng: random.Random, spots: list[_Spot]) -> Corruption | None:
    """A section that was not read."""
    spot = rng.choice([spot for spot in spots if isinstance(spot.value, Snapshot)] or [None])
    if spot is None or not spot.value.sections:
        return None
    layout, snapshot = spot.layout, spot.value
    section = rng.choice(sorted(snapshot.sections))
    left = {name: data for name, data in snapshot.sections.items() if name != section}
    lost = set(layout.by_section.get(section, ()))
    judged = (Verdict.PASS, Verdict.FAIL, Verdict.KNOWN, Verdict.FIXED)
    must = {item for item, record in trial.of_view().items() if spot.shows and item in lost and record.verdict in judged}
    what = f"without {section}, step {spot.step}"
    whole = section in (*_TAKEN, *_TRACES)
    return Corruption(
        what, spot.put(snapshot._replace(sections=left)), _decided(layout, lost), spot.step, whole, must=frozenset(must)
    )


def _order(trial: Trial, rng: random.Random, spots: list[_Spot]) -> Corruption | None:
    """Two observations of one kind in each other's place: another moment's, another vCPU's, another order's."""
    groups = [[spot for spot in spots if isinstance(spot.value, kind)] for kind in (Snapshot, Report, Exited, int)]
    groups = [group for group in groups if len(group) > 1]
    if not groups or not isinstance(trial.seen, Played):
        return None
    one, other = rng.sample(rng.choice(groups), 2)
    evidence = list(trial.seen.evidence)
    evidence[one.at], evidence[other.at] = (one.step, other.value), (other.step, one.value)
    items: set[str] = set()
    if isinstance(one.value, Snapshot):
        layout = one.layout
        items = {item for item in layout.fields if one.value.get(layout, item) != other.value.get(layout, item)}
    elif isinstance(one.value, Report):
        items = {item for item in one.layout.fields if one.value.values.get(item) != other.value.values.get(item)}
    else:
        items = {*_counted(trial, one), *_counted(trial, other)}
    what = f"what steps {one.step} and {other.step} showed in each other's place"
    seen = trial.seen._replace(evidence=tuple(evidence))
    return Corruption(what, seen, _decided(one.layout, items), min(one.step, other.step), True)


def _report(trial: Trial, rng: random.Random, spots: list[_Spot]) -> Corruption | None:
    """One bit of what a guest reported of one item, or nothing of it."""
    spot = rng.choice([spot for spot in spots if isinstance(spot.value, Report) and spot.value.values] or [None])  # type: ignore[list-item]
    if spot is None:
        return None
    item = rng.choice(sorted(spot.value.values))
    values = dict(spot.value.values)
    record = trial.before.get((f"{trial.prefix.rpartition('.')[0]}.guest", item))
    bit = rng.randrange(max(1, spot.value.values[item].bit_length() + 1))
    if rng.random() < 0.3:
        del values[item]
        what = f"nothing reported of {item}"
    else:
        values[item] ^= 1 << bit
        what = f"bit {bit} of {item} as reported"
    must = {item} if record and item in values and bit in judged_bits(record, 8) and trial.look.view == "guest" else set()
    return Corruption(what, spot.put(spot.value._replace(values=values)), frozenset((item,)), spot.step, must=frozenset(must))


def _value(trial: Trial, rng: random.Random, spots: list[_Spot]) -> Corruption | None:
    """One bit of a number or of an OUT's value; an exit of another kind."""
    spot = rng.choice([spot for spot in spots if isinstance(spot.value, (int, Exited))] or [None])  # type: ignore[list-item]
    if spot is None:
        return None
    value, bit = spot.value, rng.randrange(32)
    if isinstance(value, int):
        other: Any = value ^ 1 << bit
    elif value.value is not None and rng.random() < 0.5:
        other = value._replace(value=value.value ^ 1 << bit)
    else:
        other = Exited("quiet", 0, None, "no exit") if value.kind != "quiet" else Exited("exit", 3, None, "KVM_EXIT_HYPERCALL")
    return Corruption(f"{other} for {value}, step {spot.step}", spot.put(other), _counted(trial, spot), spot.step)


def _counted(trial: Trial, spot: _Spot) -> frozenset[str]:
    """The items of which a number that a migration reported may be the saved value."""
    scenario = trial.look.scenario
    moves = scenario and isinstance(scenario.steps[spot.step], s.Migrate)
    return frozenset(COUNTED if moves and isinstance(spot.value, int) else ())


KINDS: dict[str, Callable[[Trial, random.Random, list[_Spot]], Corruption | None]] = {
    "bit": _bit,
    "section": _section,
    "order": _order,
    "report": _report,
    "value": _value,
}


def corrupted(trial: Trial, rng: random.Random, kind: str) -> Corruption | None:
    """Return the evidence of ``trial``, corrupted by ``rng``; None if it has nothing of this ``kind``."""
    spots = list(_spots(trial, trial.seen))
    return KINDS[kind](trial, rng, spots) if spots else None


# The effect of a corruption


def outcome(trial: Trial, made: Corruption) -> tuple[set[Place], list[str]]:
    """The records that are others, and what of them should not be so."""
    now, found = trial.by_place(made.seen), []
    changed = {place for place in trial.before.keys() | now.keys() if trial.before.get(place) != now.get(place)}
    for place in sorted(changed):
        was, record = trial.before.get(place), now.get(place)
        if not _may(trial, made, place, record):
            found.append(f"{place}: {was and was.verdict} -> {record and (record.verdict, record.observed, record.reason)}")
    # The effect of one bit or one section on a table.
    for item in made.must:
        record = now.get((trial.prefix, item))
        if record and not (record.verdict.departs or record.verdict in (Verdict.ERROR, Verdict.INFO)):
            found.append(f"{item} is {record.verdict}: {record.observed} {record.reason}")
    return changed, found + [f"{place}: a pass with {record.observed}" for place, record in now.items() if _false(record)]


def _may(trial: Trial, made: Corruption, place: Place, record: Record | None) -> bool:
    prefix, item = place
    scenario = trial.look.scenario
    if item in made.items:
        return True
    if scenario is None:
        return False
    looks = [look for look in of.looks(scenario) if _prefix(look) == prefix]
    if any(look.item == item and look.step >= made.step for look in looks):
        # An expectation: of what was reported there, or compared later with what was read.
        return True
    later = any(look.step >= made.step for look in looks)
    if record is None or record.verdict is Verdict.ERROR and made.whole:
        return later
    if record.verdict is Verdict.ERROR and _NO_TRACE in record.reason:
        return later and made.traces
    # After a migration a guest may not be able to tell.
    return later and bool(_ENDS & made.items) and any(isinstance(step, s.Migrate) for step in scenario.steps)


def _false(record: Record) -> bool:
    """A pass whose observed value is not what is expected."""
    expected, seen = record.expected, record.observed
    if record.verdict is not Verdict.PASS or not isinstance(seen, int) or not expected:
        return False
    if expected.formula or record.item in COUNTERS:
        return False
    mask = -1 if expected.mask is None else expected.mask
    return not any(isinstance(one, int) and not (one ^ seen) & mask for one in expected.values)
