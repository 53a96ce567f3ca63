# SPDX-License-Identifier: GPL-2.0-only
"""A run compared with an earlier one: what departs from the manuals now and did not, what no longer does, what still does.

The verdict decides, and for what the manuals leave undefined the value. Records are compared once for each pair of blocks that
two observations have: most observations repeat what others showed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from kvmtest.model.record import Block, Observation, Record, Result
from kvmtest.model.run import Run
from kvmtest.model.select import takes
from kvmtest.model.shard import Shard
from kvmtest.model.verdict import Verdict
from kvmtest.spec.untouched import COUNTERS, MEASURED

__all__ = ("Change", "Comparison", "PairError", "against", "compare")

#: Items with another value in every run, or after every boot.
_UNSTABLE = COUNTERS | MEASURED
#: Addresses, lines and process numbers in what a kernel logs.
_NUMBER = re.compile(r"0x[0-9a-f]+|\d+")


class PairError(ValueError):
    """There is nothing to compare; one line that says why."""


class Change(NamedTuple):
    """One item in one place in both runs; None where a run has no record of it."""

    before: Result | None
    now: Result | None

    @property
    def either(self) -> Result:
        """The later one, for what both have in common."""
        found = self.now or self.before
        assert found
        return found

    @property
    def revalued(self) -> bool:
        """Return True if a value differs; values of counters and measured ones are not compared."""
        if self.before is None or self.now is None or self.now.item in _UNSTABLE:
            return False
        a, b = self.before.record, self.now.record
        return (a.planted, a.expected, a.observed) != (b.planted, b.expected, b.observed)


class Comparison(NamedTuple):
    """The departures of two runs, compared.

    ``new`` are failures with another verdict than before, or none; ``new_known`` are new but listed; ``late`` are new because
    of a time-out on this host, while others of their kind were determined. ``gone`` departed before, ``same`` still do,
    ``undetermined`` cannot be determined now; ``untried`` passed before, and are not tried now. ``info`` are undefined values
    that have changed. Cases of one run alone are in ``only_then`` and ``only_now``. ``old`` or ``run`` is None if the other has
    no counterpart.
    """

    old: Run | None
    run: Run | None
    new: list[Change]
    new_known: list[Change]
    late: list[Change]
    gone: list[Change]
    same: list[Change]
    undetermined: list[Change]
    untried: list[Change]
    info: list[Change]
    only_then: list[str]
    only_now: list[str]

    @property
    def failed(self) -> bool:
        """Something is new that fails a run, or could not be determined in time."""
        return bool(self.new or self.late)


#: Of an observation: the name of its case, event, trigger, view.
_Place = tuple[str, str, str, str]
#: An incident in a kernel's log: id, and the first line without its numbers.
_Said = tuple[str, str]


class _Index:
    """The observations of a run by their place."""

    def __init__(self, run: Run | None, shards: Sequence[Shard]) -> None:
        self.places: dict[_Place, list[Observation]] = {}
        #: Not by case: which one ran when the kernel logged it is chance.
        self.said: dict[_Said, Result] = {}
        names = (case.name for case in run.cases) if run else ()
        self.cases = dict.fromkeys(name for name in names if all(shard.has(name) for shard in shards))
        for seen in run.observations if run else ():
            if seen.view == "kernel":
                self.said.update((_said(result), result) for result in seen.results)
                continue
            name = seen.case.name if seen.case else ""
            if name and not all(shard.has(name) for shard in shards):
                continue
            self.cases.setdefault(name)
            self.places.setdefault((name, seen.event, seen.trigger, seen.view), []).append(seen)


def _said(result: Result) -> _Said:
    first = result.reason.split("\n", 1)[0] if result.item == "log" and result.verdict is not Verdict.PASS else ""
    return result.id, _NUMBER.sub("N", first)


def _items(seen: Sequence[Observation]) -> dict[str, tuple[Record, int]]:
    """The record of each item, and the number of its observation; of a case that ran several times the worst."""
    found: dict[str, tuple[Record, int]] = {}
    for number, one in enumerate(seen):
        for block in one.blocks if number == 0 or one.blocks != seen[number - 1].blocks else ():
            for record in block.records:
                worst = found.get(record.item)
                if worst is None or record.verdict.severity < worst[0].verdict.severity:
                    found[record.item] = record, number
    return found


def _kind(before: Record | None, now: Record | None, strict: bool) -> str:
    """The field of Comparison that the change belongs to, "" for none."""
    if before is now:
        return "same" if now and now.verdict.departs else ""
    then = before.verdict if before else None
    departed = then is not None and then.departs
    if now is None or now.verdict is Verdict.SKIP:
        return "undetermined" if departed else "untried" if then is not None and then.judged else ""
    if not now.verdict.departs:
        undefined = then is now.verdict is Verdict.INFO and now.item not in _UNSTABLE
        moved = undefined and before is not None and before.observed != now.observed
        return "gone" if departed else "info" if moved else ""
    if then is now.verdict or departed and now.verdict is Verdict.KNOWN:
        return "same"
    if now.verdict is Verdict.KNOWN:
        return "new" if strict else "new_known"
    return "late" if now.out_of_time else "new"


#: Kind, and what shows it before and now.
_Found = tuple[str, tuple[Record, int] | None, tuple[Record, int] | None]
#: The blocks of the observations of one place in both runs -> what of them changed.
_Known = dict[tuple[tuple[Block, ...], ...], list[_Found]]


def _changes(before: Sequence[Observation], now: Sequence[Observation], strict: bool) -> Iterator[_Found]:
    here, there = _items(before), _items(now)
    for item in dict.fromkeys((*there, *here)):
        a, b = here.get(item), there.get(item)
        if kind := _kind(a and a[0], b and b[0], strict):
            yield kind, a, b


def _result(seen: Sequence[Observation], found: tuple[Record, int] | None) -> Result | None:
    return Result(seen[found[1]], found[0]) if found else None


def compare(
    old: Run | None, run: Run | None, strict: bool = False, selectors: Sequence[str] = (), known: _Known | None = None
) -> Comparison:
    """Compare ``run`` with ``old``; with ``strict`` a ``known`` is a failure.

    What ``selectors`` do not match is not compared, but what a kernel logs always counts; nor of cases that are not in the
    shard of either. ``known`` keeps what was found for the next comparison.
    """
    known = {} if known is None else known
    shards = [one.head.shard for one in (old, run) if one and one.head.shard]
    then, now = _Index(old, shards), _Index(run, shards)
    found = Comparison(old, run, [], [], [], [], [], [], [], [], [], [name for name in now.cases if name not in then.cases])
    only_then: dict[str, None] = {}
    for place in dict.fromkeys((*then.places, *now.places)):
        a, b = then.places.get(place, []), now.places.get(place, [])
        if not b and place[0] not in now.cases:
            if not selectors or any(takes(selectors, result.id, result.case) for seen in a for result in seen.results):
                only_then[place[0]] = None
            continue
        blocks = (*(seen.blocks for seen in a), (), *(seen.blocks for seen in b))
        changes = known.get(blocks)
        if changes is None:
            changes = known[blocks] = list(_changes(a, b, strict))
        for kind, before, after in changes:
            change = Change(_result(a, before), _result(b, after))
            if not selectors or takes(selectors, change.either.id, change.either.case):
                getattr(found, kind).append(change)
    found.only_then.extend(only_then)
    for kind, change in _kernels(then, now, strict):
        getattr(found, kind).append(change)
    return found


def _kernels(then: _Index, now: _Index, strict: bool) -> Iterator[tuple[str, Change]]:
    """Compare the kernels' logs; a log without incidents stands for each incident that is not in it."""
    logged = {id for id, _ in now.said}
    for key in dict.fromkeys((*then.said, *now.said)):
        a = then.said.get(key) or then.said.get((key[0], ""))
        b = now.said.get(key) or now.said.get((key[0], ""))
        kind = _kind(a and a.record, b and b.record, strict)
        if b is None and key[0] in logged:
            kind = "gone" if kind == "undetermined" else ""
        if kind:
            yield kind, Change(a, b)


def against(old: Sequence[Run], new: Sequence[Run], strict: bool = False, selectors: Sequence[str] = ()) -> list[Comparison]:
    """Compare runs in pairs: single ones whatever their names, several by name or by host. Raises PairError."""
    known: _Known = {}
    return [compare(before, now, strict, selectors, known) for before, now in _paired(old, new)]


def _paired(old: Sequence[Run], new: Sequence[Run]) -> list[tuple[Run | None, Run | None]]:
    if len(old) == len(new) == 1:
        return [(old[0], new[0])]
    for by_host in (False, True):
        then, now = ({run.host.name if by_host else run.name: run for run in runs} for runs in (old, new))
        whole = len(then) == len(old) and len(now) == len(new) and "" not in then.keys() | now.keys()
        if whole and then.keys() & now.keys():
            return [(then.get(key), now.get(key)) for key in dict.fromkeys((*then, *now))]
    have = [", ".join(run.name for run in runs[:8]) + ", ..." * (len(runs) > 8) for runs in (old, new)]
    raise PairError(f"no run of {have[1]} has the name of one of {have[0]}, nor its host's: compare one with one (FILE#NAME)")
