# SPDX-License-Identifier: GPL-2.0-only
"""A comparison of runs as text: findings, not single results."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from kvmtest.compare import states
from kvmtest.compare.baseline import Change, Comparison
from kvmtest.judge.extent import extent
from kvmtest.judge.findings import Finding, findings
from kvmtest.model.record import Block, Observation, Result
from kvmtest.model.run import Run
from kvmtest.model.verdict import VERDICTS
from kvmtest.report.finding import details, title, values
from kvmtest.report.show import columns, inline, printable, repeat, wrapped

__all__ = ("causes", "lines")

#: Findings, and undefined values, that a section shows; more are counted.
_MOST = 30
#: Items that a line names.
_ITEMS = 4


def lines(compared: Sequence[Comparison], hosts: bool = True) -> Iterator[str]:
    """The lines of all comparisons; of several those in which nothing changed in one line. ``hosts`` is to say also where two
    runs come from, where that differs.
    """
    for one in compared:
        if one.run is None or one.old is None:
            name, which = (one.run.name, "new") if one.run else (one.old.name if one.old else "", "old")
            yield ""
            yield from _folded(f"{name} is in the {which} results only")
            if one.run is None:
                continue
        yield from _lines(one, one.run, len(compared) > 1, hosts)


def causes(found: Comparison) -> Iterator[tuple[Run, Finding]]:
    """Yield the new failures with the run that shows them, and those that are gone with the run that showed them."""
    for run, changes, now in ((found.run, found.new, True), (found.old, found.gone, False)):
        if run:
            yield from ((run, finding) for finding in _findings(run, changes, now))


def _lines(found: Comparison, run: Run, several: bool, hosts: bool) -> Iterator[str]:
    sections = (
        ("New", found.new, run, True),
        ("New, and known", found.new_known, run, True),
        ("Not determined in time; if it passes when run again, the host was too busy", found.late, run, True),
        ("Gone", found.gone, found.old, False),
        ("Cannot be determined now", found.undetermined, found.old, False),
        ("The same, with another value", [change for change in found.same if change.revalued], run, True),
    )
    shown = [(title, _findings(of, changes, now), changes) for title, changes, of, now in sections if of and changes]
    yield ""
    yield from _folded(_head(found, run, several))
    if found.old and hosts:
        for name, here, there in states.hosts(found.old.host, run.host):
            yield from _folded(f"{name}: {here or '(empty)'} -> {there or '(empty)'}", "  ")
    for heading, causes, changes in shown:
        yield ""
        yield from _folded(f"{heading} ({_count(len(causes), 'finding')}, {_count(len(changes), 'result')}):")
        yield from _section(causes, changes, run)
    lost = [*found.untried, *(change for change in found.undetermined if change.before and change.before.verdict.judged)]
    if lost:
        verdicts = Counter(change.before.verdict for change in lost if change.before)
        then = ", ".join(f"{verdicts[verdict]} {verdict}" for verdict in VERDICTS if verdicts[verdict])
        yield ""
        yield f"Judged before and not now ({_count(len(lost), 'result')}, then {then}):"
        yield from _unjudged(lost, run)
    if found.info:
        yield ""
        yield "Undefined by the manuals, with another value:"
        yield from _undefined(found.info, run)
    if found.same:
        counts = Counter(change.either.verdict for change in found.same)
        yield ""
        yield "The same: " + ", ".join(f"{counts[verdict]} {verdict}" for verdict in VERDICTS if counts[verdict])
    for cases, which in ((found.only_then, "old"), (found.only_now, "new")):
        if cases and found.old:
            yield from _folded(f"Cases in the {which} results only: {len(cases)}, e.g. {cases[0] or 'results without a case'}")


def _folded(text: str, first: str = "") -> list[str]:
    return wrapped(printable(text), columns(), first, first + "  ").splitlines()


def _head(found: Comparison, run: Run, several: bool) -> str:
    counts = [(found.new, "new"), (found.gone, "gone"), (found.same, "the same")]
    more = [(found.new_known, "new and known"), (found.late, "not determined in time")]
    more.append((found.undetermined, "cannot be determined"))
    parts = [f"{len(changes)} {name}" for changes, name in [*counts, *((c, n) for c, n in more if c)]]
    of = f"{run.name}: " if several else ""
    against = found.old.name if found.old else "nothing"
    return f"{of}Against {against}, results that depart from the manuals: {', '.join(parts)}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _findings(run: Run, changes: Iterable[Change], now: bool) -> list[Finding]:
    """The findings of ``run`` made of these changes alone; their extent counts all cases that were judged."""
    wanted: dict[int, set[str]] = {}
    for change in changes:
        result = change.now if now else change.before
        if result:
            wanted.setdefault(id(result.of), set()).add(result.item)
    made: dict[tuple[Block, frozenset[str]], Block] = {}

    def left(block: Block, items: frozenset[str]) -> Block:
        if not block.attention:
            return block
        key = (block, items.intersection(record.item for record in block.attention))
        if key not in made:
            kept = tuple(record for record in block.records if not record.verdict.attention or record.item in key[1])
            made[key] = Block(kept)
        return made[key]

    def observation(seen: Observation) -> Observation:
        items = frozenset(wanted.get(id(seen), ()))
        return seen._replace(blocks=tuple([left(block, items) for block in seen.blocks]))

    return findings([observation(seen) for seen in run.observations])


def _section(causes: Sequence[Finding], changes: Iterable[Change], run: Run) -> Iterator[str]:
    by_place = {(change.either.case, change.either.id): change for change in changes}
    for finding in causes[:_MOST]:
        first = finding.example
        yield from wrapped(title(finding), columns(), f"{finding.verdict.upper():5} ", " " * 6).splitlines()
        said = details(finding, run.host)
        change = by_place.get((first.case, first.id))
        if change:
            said.insert(1 if said[0][0] == "values" else 0, _became(change, first))
        for label, text in said:
            begin, hang = f"      {label:9} ", " " * 16
            if label in ("again", "explain"):  # to be copied
                yield begin + text
                continue
            many = label == "values" and len(begin + text) > columns()
            for line in values(finding) if many else [text]:
                yield from wrapped(line, columns(), begin, hang).splitlines()
                begin = hang
    if len(causes) > _MOST:
        yield f"      and {len(causes) - _MOST} more"


def _became(change: Change, shown: Result) -> tuple[str, str]:
    """Return what the other run has for the example of a finding: ``before`` for a new one, ``now`` for one that is gone."""
    label, other = ("now", change.now) if change.before and shown.record is change.before.record else ("before", change.before)
    if other is None:
        return label, "no result"
    if other.record.observed is None:
        return label, printable(f"{other.verdict}: {other.reason}" if other.reason else other.verdict)
    return label, f"{other.verdict}, observed {inline(other.item, other.observed)}"


def _unjudged(changes: Sequence[Change], run: Run) -> Iterator[str]:
    """A reason a line: the items that it is said of, in how many places, and one of them."""
    by_reason: dict[str, list[Change]] = {}
    for change in changes:
        by_reason.setdefault(change.now.reason if change.now else "the case ended before it", []).append(change)
    for why, found in sorted(by_reason.items(), key=lambda one: -len(one[1]))[:_MOST]:
        items = list(dict.fromkeys(change.either.item for change in found))
        yield from _folded(f"{_count(len(found), 'result')} of {_some(items)}: {why}", "  ")
        yield f"      {repeat(run.host, found[0].either.selector)}"
    if len(by_reason) > _MOST:
        yield f"      and {len(by_reason) - _MOST} more reasons"


def _undefined(changes: Sequence[Change], run: Run) -> Iterator[str]:
    """A line for the items that changed in the same places: the first one's pair of values, and one of the places."""
    by_item: dict[tuple[str, str], list[Change]] = {}
    for change in changes:
        by_item.setdefault((change.either.event, change.either.item), []).append(change)
    items = {block: {record.item for record in block.records} for seen in run.observations for block in seen.blocks}
    alike: dict[tuple[str, frozenset[int]], list[str]] = {}
    for (event, item), found in by_item.items():
        alike.setdefault((event, frozenset(id(change.either.of) for change in found)), []).append(item)
    for (event, _), (item, *others) in list(alike.items())[:_MOST]:
        found = by_item[event, item]
        pairs = dict.fromkeys((c.before.observed, c.now.observed) for c in found if c.before and c.now)
        (before, now), more = next(iter(pairs)), len(pairs) - 1
        also = f" (and {more} more pairs of values)" if more else ""
        could = [seen for seen in run.observations if seen.event == event and any(item in items[b] for b in seen.blocks)]
        where = extent([change.either.of for change in found], could)
        yield from _folded(f"{item} after {event.upper()}: {inline(item, before)} -> {inline(item, now)}{also}; {where}", "  ")
        if others:
            yield f"      so do {_some(others)}"
        yield f"      {repeat(run.host, found[0].either.selector)}"
    if len(alike) > _MOST:
        yield f"      and {sum(map(len, list(alike.values())[_MOST:]))} more items"


def _some(items: Sequence[str]) -> str:
    """The items, or the first ones and how many more there are."""
    more = len(items) - _ITEMS + 1
    return ", ".join(items) if more < 2 else f"{', '.join(items[: _ITEMS - 1])} and {more} more items"
