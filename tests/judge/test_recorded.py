# SPDX-License-Identifier: GPL-2.0-only
"""Recorded evidence is judged as ever, and a bit of it that is otherwise makes its own item's verdict another, and no other's."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, NamedTuple

import pytest

from kvmtest.judge.book import Book
from kvmtest.judge.cases import judge
from kvmtest.judge.evidence import Basis, Look, Played, ResetSeen
from kvmtest.model.host import Host
from kvmtest.model.record import Record
from kvmtest.model.value import text
from kvmtest.model.verdict import Verdict
from kvmtest.spec.untouched import COUNTERS
from kvmtest.state.layout import Layout
from kvmtest.state.sections import Snapshot
from tests.judge import recorded

#: Wrong bits that are tried of each kind of case, in each run.
_FLIPS = 150
_SHOWN = 20
Place = tuple[str, str]  # view and item


def _words(record: Record) -> str:
    wanted = "|".join(str(text(record.item, value)) for value in record.expected.values) if record.expected else None
    values = [text(record.item, record.planted), wanted, text(record.item, record.observed)]
    return " ".join(map(str, (record.verdict, *values, record.deviation)))


@pytest.mark.parametrize("name", recorded.NAMES)
def test_what_was_recorded_is_judged_as_ever(name: str) -> None:
    now, then = recorded.bare(recorded.judged(name)), recorded.expected(name)
    assert [(one.prefix, one.case) for one in now] == [(one.prefix, one.case) for one in then]
    changed = []
    for one, other in zip(now, then, strict=True):
        ours, theirs = ({record.item: record for record in each.records} for each in (one, other))
        for item in {**theirs, **ours}:
            if ours.get(item) != theirs.get(item):
                was, is_ = (_words(each[item]) if item in each else "not there" for each in (theirs, ours))
                changed.append(f"{one.prefix}.{item}/{one.case.words if one.case else ''}: {was} -> {is_}")
    assert not changed, "\n".join((f"{len(changed)} records", *changed[:_SHOWN]))
    assert sum(record.verdict is Verdict.PASS for one in now for record in one.records) > 50_000


class _Trial(NamedTuple):
    """A case that is judged again and again."""

    book: Book
    host: Host
    look: Look
    bases: tuple[Basis, ...]
    seen: Any

    def by_place(self, seen: Any = None) -> dict[Place, Record]:
        """The records of what was ``seen``."""
        observations = judge(self.book, self.look, self.host, self.bases, seen or self.seen)
        return {(one.view, record.item): record for one in observations for record in one.records}

    def changed(self, seen: Any) -> dict[Place, Record]:
        """The records that are other than those of what was really seen."""
        before, now = self.by_place(), self.by_place(seen)
        assert before.keys() == now.keys()
        return {place: record for place, record in now.items() if record != before[place]}


@cache
def _book(name: str) -> Book:
    return Book()


def _trials(name: str, kind: type, view: str, seed: int, vcpus: range = range(1, 2)) -> Iterator[_Trial]:
    """Cases of a run that show ``vcpus`` many, drawn by dice."""
    host, cases = recorded.read(name)
    fitting = [one for one in cases if isinstance(one[2], kind) and one[0].view == view and len(one[1]) in vcpus]
    fitting = [one for one in fitting if vcpus.stop > 2 or one[0].trigger != "broadcast"]
    dice = random.Random(f"{name} {kind.__name__} {view} {seed}")
    while True:
        yield _Trial(_book(name), host, *dice.choice(fitting))


def _flipped(layout: Layout, snapshot: Snapshot, item: str, bit: int) -> Snapshot:
    """``snapshot`` with one bit of ``item`` otherwise."""
    field = layout.fields[item]
    contents = bytearray(snapshot.sections[field.section])
    contents[field.offset + bit // 8] ^= 1 << bit % 8
    return snapshot._replace(sections=snapshot.sections | {field.section: bytes(contents)})


def _told(seen: Played, at: int, value: Any) -> Played:
    """``seen`` with another ``value`` in the place ``at``."""
    told = list(seen.told)
    told[at] = (told[at][0], value)
    return seen._replace(told=tuple(told))


def _pending(trial: _Trial, item: str) -> bool:
    """The item says that an INIT was not taken, which is no item's own error."""
    return trial.look.event == "init" and item == "events.smi_latched_init"


def _judged_bits(record: Record, size: int) -> list[int]:
    """The bits of which each one decides."""
    expected = record.expected
    if record.verdict is not Verdict.PASS or expected is None or len(expected.values) != 1 or record.item in COUNTERS:
        return []
    mask = (1 << 8 * size) - 1 if expected.mask is None else expected.mask
    return [bit for bit in range(8 * size) if mask >> bit & 1]


def _draw(dice: random.Random, records: dict[str, Record], layout: Layout, after: Snapshot) -> tuple[str, int] | None:
    """A bit of an item that passes, by chance; None where it shows in no value, as in a component of XSAVE that is not in use."""
    passing = [item for item, record in records.items() if record.verdict is Verdict.PASS and item in layout.fields]
    if not passing:
        return None
    item = dice.choice(passing)
    bits = _judged_bits(records[item], layout.fields[item].size)
    if not bits:
        return None
    bit = dice.choice(bits)
    return (item, bit) if _flipped(layout, after, item, bit).get(layout, item) != after.get(layout, item) else None


def _count(tries: Iterator[_Trial], flip: Callable[[_Trial, random.Random], bool], seed: int) -> None:
    dice, done = random.Random(seed), 0
    for number, trial in enumerate(tries):
        done += flip(trial, dice)
        if done == _FLIPS:
            return
        assert number < 20 * _FLIPS, "too few cases with something to change"


def _of_view(records: dict[Place, Record], view: str) -> dict[str, Record]:
    return {item: record for (where, item), record in records.items() if where == view}


@pytest.mark.parametrize("name", recorded.NAMES)
def test_one_wrong_bit_of_a_section_fails_its_item_alone(name: str) -> None:
    def flip(trial: _Trial, dice: random.Random) -> bool:
        layout, after = trial.bases[0].layout, trial.seen.told[-1][1]
        drawn = _draw(dice, _of_view(trial.by_place(), "host"), layout, after)
        if drawn is None:
            return False
        wrong = _told(trial.seen, -1, _flipped(layout, after, *drawn))
        if _pending(trial, drawn[0]):
            assert {record.verdict for record in trial.by_place(wrong).values()} == {Verdict.ERROR}
            return True
        changed = trial.changed(wrong)
        assert changed.keys() == {("host", drawn[0])}, (trial.look.case.name, drawn)
        (record,) = changed.values()
        # A deviation that is listed has one value: it may be just this one.
        assert record.verdict is Verdict.FAIL or record.verdict is Verdict.KNOWN, (trial.look.case.name, drawn)
        return True

    _count(_trials(name, Played, "host", 1), flip, 1)


@pytest.mark.parametrize("name", recorded.NAMES)
def test_one_wrong_bit_of_a_report_fails_its_item_in_both_views(name: str) -> None:
    def flip(trial: _Trial, dice: random.Random) -> bool:
        before, report = trial.by_place(), trial.seen.told[-1][1]
        told = [item for item, record in _of_view(before, "guest").items() if _judged_bits(record, 1) and item in report.values]
        if not told:
            return False
        item = dice.choice(told)
        bit = dice.choice(_judged_bits(before["guest", item], 1))
        wrong = report._replace(values=report.values | {item: report.values[item] ^ 1 << bit})
        changed = trial.changed(_told(trial.seen, -1, wrong))
        views = {("guest", item)} | ({("views", item)} if before["views", item].verdict is not Verdict.SKIP else set())
        judged = {place for place, record in changed.items() if record.verdict is not before[place].verdict}
        assert changed.keys() >= judged == views and {item} == {place[1] for place in changed}, (trial.look.case.name, item, bit)
        assert all(changed[place].verdict.departs for place in views)
        return True

    _count(_trials(name, Played, "guest", 2), flip, 2)


@pytest.mark.parametrize("name", recorded.NAMES)
def test_one_wrong_bit_of_one_vcpu_of_many_fails_its_item_and_names_it(name: str) -> None:
    def flip(trial: _Trial, dice: random.Random) -> bool:
        # Each before, the sender before, each after, the sender after.
        count = len(trial.bases)
        at = dice.randrange(count)
        ctx, layout = trial.bases[at][:2]
        after = trial.seen.told[count + 1 + at][1]
        drawn = _draw(dice, _of_view(trial.by_place(), "host"), layout, after)
        if drawn is None:
            return False
        wrong = _told(trial.seen, count + 1 + at, _flipped(layout, after, *drawn))
        if _pending(trial, drawn[0]):
            verdicts = {item: record.verdict for (_, item), record in trial.by_place(wrong).items()}
            assert {verdict for item, verdict in verdicts.items() if item != "delivered"} == {Verdict.ERROR}
            return True
        changed = trial.changed(wrong)
        assert changed.keys() == {("host", drawn[0])}, (trial.look.case.name, drawn)
        (record,) = changed.values()
        assert record.verdict.departs and (count == 1 or f"vcpus {ctx.apic_id} of {count}" in record.reason)
        return True

    _count(_trials(name, Played, "host", 3, range(2, 8)), flip, 3)


@pytest.mark.parametrize("name", recorded.NAMES)
def test_one_wrong_bit_after_one_order_of_a_reset_fails_its_item_and_names_it(name: str) -> None:
    def flip(trial: _Trial, dice: random.Random) -> bool:
        at = dice.randrange(len(trial.seen.tries))
        one, layout = trial.seen.tries[at], trial.bases[0].layout
        drawn = _draw(dice, _of_view(trial.by_place(), "host"), layout, one.seen.after)
        if drawn is None:
            return False
        wrong = one._replace(seen=one.seen._replace(after=_flipped(layout, one.seen.after, *drawn)))
        tries = (*trial.seen.tries[:at], wrong, *trial.seen.tries[at + 1 :])
        changed = trial.changed(trial.seen._replace(tries=tries))
        assert changed.keys() == {("host", drawn[0])}, (trial.look.case.name, drawn)
        (record,) = changed.values()
        assert record.verdict.unexpected or record.verdict is Verdict.KNOWN
        assert len(tries) == 1 or f"orders {'>'.join(one.order)} of {len(tries)}" in record.reason
        return True

    _count(_trials(name, ResetSeen, "host", 4), flip, 4)


@pytest.mark.parametrize("name", recorded.NAMES)
def test_a_bit_that_no_rule_judges_changes_no_verdict(name: str) -> None:
    def flip(trial: _Trial, dice: random.Random) -> bool:
        layout, after = trial.bases[0].layout, trial.seen.told[-1][1]
        before = _of_view(trial.by_place(), "host")
        masked = [r for r in before.values() if r.verdict is Verdict.PASS and r.expected and r.expected.mask is not None]
        if not masked:
            return False
        record = dice.choice(masked)
        size, judged = layout.fields[record.item].size, _judged_bits(record, layout.fields[record.item].size)
        bit = dice.choice([bit for bit in range(8 * size) if bit not in judged])
        changed = trial.changed(_told(trial.seen, -1, _flipped(layout, after, record.item, bit)))
        assert [(place, r.verdict) for place, r in changed.items()] == [(("host", record.item), Verdict.PASS)]
        return True

    _count(_trials(name, Played, "host", 5), flip, 5)
