# SPDX-License-Identifier: GPL-2.0-only
"""Recorded evidence is judged as ever, and one thing of it that is otherwise makes its own record another, and no other's."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import pytest
from hypothesis import settings

from kvmtest.judge.evidence import Played, ResetSeen
from kvmtest.model.record import Record
from kvmtest.model.value import text
from kvmtest.model.verdict import Verdict
from kvmtest.scenario import step as s
from kvmtest.state.layout import Layout
from kvmtest.state.sections import Snapshot
from tests.judge import recorded
from tests.judge.trial import Trial, flipped, judged_bits, replaced, trials
from tests.sample import one_in

_SHOWN = 20


def _words(record: Record) -> str:
    wanted = "|".join(str(text(record.item, value)) for value in record.expected.values) if record.expected else None
    values = [text(record.item, record.planted), wanted, text(record.item, record.observed)]
    return " ".join(map(str, (record.verdict, *values, record.deviation)))


@pytest.mark.parametrize("name", recorded.NAMES)
def test_what_was_recorded_is_judged_as_ever(name: str) -> None:
    every = one_in()
    now, then = recorded.bare(recorded.judged(name, every)), recorded.expected(name, every)
    assert [(one.prefix, one.case) for one in now] == [(one.prefix, one.case) for one in then]
    changed = []
    for one, other in ((one, other) for one, other in zip(now, then, strict=True) if one.blocks != other.blocks):
        ours, theirs = ({record.item: record for record in each.records} for each in (one, other))
        for item in {**theirs, **ours}:
            if ours.get(item) != theirs.get(item):
                was, is_ = (_words(each[item]) if item in each else "not there" for each in (theirs, ours))
                changed.append(f"{one.prefix}.{item}/{one.case.words if one.case else ''}: {was} -> {is_}")
    assert not changed, "\n".join((f"{len(changed)} records", *changed[:_SHOWN]))
    assert sum(block.counts[Verdict.PASS] for one in now for block in one.blocks) > 50_000 // every


def _drawn(name: str, kind: type, view: str, seed: int, vcpus: range = range(1, 2)) -> Iterator[Trial]:
    """Item cases of a run that show ``vcpus`` many, drawn by rng."""
    items = [one for one in trials(name) if isinstance(one.seen, kind) and "sequence" not in one.params]
    fitting = [one for one in items if one.look.view == view and len(one.bases) in vcpus]
    fitting = [one for one in fitting if vcpus.stop > 2 or one.look.trigger != "broadcast"]
    rng = random.Random(f"{name} {kind.__name__} {view} {seed}")
    while True:
        yield rng.choice(fitting)


def _pending(trial: Trial, item: str) -> bool:
    """The item says that an INIT was not taken, which is not an item's own error."""
    return trial.look.event == "init" and item == "events.smi_latched_init"


def _of_table(trial: Trial, seen: Played) -> set[Verdict]:
    """The verdicts of what the host's ioctls show."""
    return {record.verdict for (_, item), record in trial.by_place(seen).items() if item in trial.bases[0].layout.fields}


def _draw(rng: random.Random, records: dict[str, Record], layout: Layout, after: Snapshot) -> tuple[str, int] | None:
    """A bit of an item that passes, by chance; None where it shows in no value, as in a component of XSAVE that is not in use."""
    passing = [item for item, record in records.items() if record.verdict is Verdict.PASS and item in layout.fields]
    if not passing:
        return None
    item = rng.choice(passing)
    bits = judged_bits(records[item], layout.fields[item].size)
    if not bits:
        return None
    bit = rng.choice(bits)
    return (item, bit) if flipped(layout, after, item, bit).get(layout, item) != after.get(layout, item) else None


def _count(tries: Iterator[Trial], flip: Callable[[Trial, random.Random], bool], seed: int) -> None:
    """Try wrong bits: as many as Hypothesis tries examples, and half as many more."""
    rng, done, wanted = random.Random(seed), 0, settings().max_examples * 3 // 2
    for number, trial in enumerate(tries):
        done += flip(trial, rng)
        if done == wanted:
            return
        assert number < 20 * wanted, "too few cases with something to change"


@pytest.mark.parametrize("name", recorded.NAMES)
def test_one_wrong_bit_of_a_section_fails_its_item_alone(name: str) -> None:
    def flip(trial: Trial, rng: random.Random) -> bool:
        if not (at := trial.at(s.Observe)):
            return False
        layout, after = trial.bases[0].layout, trial.seen.evidence[at[-1]][1]
        drawn = _draw(rng, trial.of_view(), layout, after)
        if drawn is None:
            return False
        wrong = replaced(trial.seen, at[-1], flipped(layout, after, *drawn))
        if _pending(trial, drawn[0]):
            assert _of_table(trial, wrong) == {Verdict.ERROR}
            return True
        changed = trial.changed(wrong)
        assert changed.keys() == {(trial.prefix, drawn[0])}, (trial.look.case.name, drawn)
        (record,) = changed.values()
        # A deviation that is listed has one value: it may be just this one.
        assert record.verdict is Verdict.FAIL or record.verdict is Verdict.KNOWN, (trial.look.case.name, drawn)
        return True

    _count(_drawn(name, Played, "host", 1), flip, 1)


@pytest.mark.parametrize("name", recorded.NAMES)
def test_one_wrong_bit_of_a_report_fails_its_item_in_both_views(name: str) -> None:
    def flip(trial: Trial, rng: random.Random) -> bool:
        before, at = trial.before, trial.at(s.Guest)
        if not at:
            return False
        report = trial.seen.evidence[at[0]][1]
        passing = [item for item, record in trial.of_view().items() if judged_bits(record, 1) and item in report.values]
        if not passing:
            return False
        item = rng.choice(passing)
        guest, both = (trial.prefix, item), (f"{trial.prefix.removesuffix('guest')}views", item)
        bit = rng.choice(judged_bits(before[guest], 1))
        wrong = report._replace(values=report.values | {item: report.values[item] ^ 1 << bit})
        changed = trial.changed(replaced(trial.seen, at[0], wrong))
        views = {guest} | ({both} if before[both].verdict is not Verdict.SKIP else set())
        judged = {place for place, record in changed.items() if record.verdict is not before[place].verdict}
        assert changed.keys() >= judged == views and {item} == {place[1] for place in changed}, (trial.look.case.name, item, bit)
        assert all(changed[place].verdict.departs for place in views)
        return True

    _count(_drawn(name, Played, "guest", 2), flip, 2)


@pytest.mark.parametrize("name", recorded.NAMES)
def test_one_wrong_bit_of_one_vcpu_of_many_fails_its_item_and_names_it(name: str) -> None:
    def flip(trial: Trial, rng: random.Random) -> bool:
        if (count := len(at := trial.at(s.Observe))) < 2:
            return False
        which = rng.randrange(count)
        ctx, layout = trial.bases[which][:2]
        after = trial.seen.evidence[at[which]][1]
        drawn = _draw(rng, trial.of_view(), layout, after)
        if drawn is None:
            return False
        wrong = replaced(trial.seen, at[which], flipped(layout, after, *drawn))
        if _pending(trial, drawn[0]):
            assert _of_table(trial, wrong) == {Verdict.ERROR}
            return True
        changed = trial.changed(wrong)
        assert changed.keys() == {(trial.prefix, drawn[0])}, (trial.look.case.name, drawn)
        (record,) = changed.values()
        assert record.verdict.departs and f"vcpus {ctx.apic_id} of {count}" in record.reason
        return True

    _count(_drawn(name, Played, "host", 3, range(2, 8)), flip, 3)


@pytest.mark.parametrize("name", recorded.NAMES)
def test_one_wrong_bit_after_one_order_of_a_reset_fails_its_item_and_names_it(name: str) -> None:
    def flip(trial: Trial, rng: random.Random) -> bool:
        at = rng.randrange(len(trial.seen.tries))
        one, layout = trial.seen.tries[at], trial.bases[0].layout
        drawn = _draw(rng, trial.of_view(), layout, one.seen.after)
        if drawn is None:
            return False
        wrong = one._replace(seen=one.seen._replace(after=flipped(layout, one.seen.after, *drawn)))
        tries = (*trial.seen.tries[:at], wrong, *trial.seen.tries[at + 1 :])
        changed = trial.changed(trial.seen._replace(tries=tries))
        assert changed.keys() == {(trial.prefix, drawn[0])}, (trial.look.case.name, drawn)
        (record,) = changed.values()
        assert record.verdict.unexpected or record.verdict is Verdict.KNOWN
        assert len(tries) == 1 or f"orders {'>'.join(one.order)} of {len(tries)}" in record.reason
        return True

    _count(_drawn(name, ResetSeen, "host", 4), flip, 4)


@pytest.mark.parametrize("name", recorded.NAMES)
def test_a_bit_that_no_rule_judges_changes_no_verdict(name: str) -> None:
    def flip(trial: Trial, rng: random.Random) -> bool:
        if not (at := trial.at(s.Observe)):
            return False
        layout, after = trial.bases[0].layout, trial.seen.evidence[at[-1]][1]
        masked = [r for r in trial.of_view().values() if r.verdict is Verdict.PASS and r.expected and r.expected.mask is not None]
        if not masked:
            return False
        record = rng.choice(masked)
        size, judged = layout.fields[record.item].size, judged_bits(record, layout.fields[record.item].size)
        bit = rng.choice([bit for bit in range(8 * size) if bit not in judged])
        changed = trial.changed(replaced(trial.seen, at[-1], flipped(layout, after, record.item, bit)))
        assert [(place, r.verdict) for place, r in changed.items()] == [((trial.prefix, record.item), Verdict.PASS)]
        return True

    _count(_drawn(name, Played, "host", 5), flip, 5)
