# SPDX-License-Identifier: GPL-2.0-only
"""Findings: all departures, one per cause.

Records have one cause where they depart after the same event, with the same symptom, and to the same extent: by the same
triggers, in the same cases, in the same views. Two things do not count as extent, since they only decide where a departure can
be seen: which plant it was, and whether a view shows the item at all. What one commit explains is one finding, and
what was not determined for one reason is one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from kvmtest.judge.extent import extent
from kvmtest.judge.symptom import Symptom, symptoms
from kvmtest.model.record import Block, Observation, Result
from kvmtest.model.verdict import Verdict
from kvmtest.spec.deviations import DEVIATIONS
from kvmtest.spec.effects import lost
from kvmtest.spec.untouched import COUNTERS

__all__ = ("EFFECTS", "Finding", "findings")

#: Effects, the worst first: the guest does not run or an event is lost, the guest sees wrong state, only the host's API
#: shows it.
EFFECTS = ("dead", "guest", "host")
_KINDS = {(deviation.commit, deviation.item): deviation.kind for deviation in DEVIATIONS}


class Finding(NamedTuple):
    """One cause, as far as results show.

    ``symptom`` is the kind of `Symptom`; ``bits`` are the wrong bits where it is ``bits``. ``kind`` is the listed deviation's
    (admitted, fixed, open) or "". ``items`` are in the order of the project's tables. ``cases`` counts the observations that
    show it, of ``judged`` in which it could have shown. ``where`` says in words which ones these are. ``example`` is the first
    result.
    """

    verdict: Verdict
    event: str
    symptom: str
    effect: str
    items: tuple[str, ...]
    triggers: tuple[str, ...]
    views: tuple[str, ...]
    cases: int
    judged: int
    where: str
    example: Result
    bits: int = 0
    kind: str = ""

    @property
    def deviation(self) -> str | None:
        """The commit or function of the listed deviation that explains it."""
        return self.example.deviation

    @property
    def open(self) -> bool:
        """Nobody has admitted or fixed it: what a user comes for."""
        return self.verdict.unexpected or self.kind == "open" or self.verdict is Verdict.FIXED

    @property
    def key(self) -> tuple[object, ...]:
        """The key that equal findings of two runs share: the symptom and the items, not the number of cases."""
        symptom = next(symptoms(self.example.record, self.example.view))
        value = self.example.record.observed if symptom.kind == "behaves" or self._valued else None
        return (self.event, self.verdict, symptom._replace(bit=0), self.bits, self.items, value)

    @property
    def _valued(self) -> bool:
        """It is the very value that is wrong. What counts has another one each time."""
        return self.symptom == "value" and self.example.item not in COUNTERS

    def has(self, result: Result) -> bool:
        """``result``, of the same run, is one of those that it is made of."""
        if result.event != self.event or result.verdict is not self.verdict or result.item not in self.items:
            return False
        found = list(symptoms(result.record, result.view))
        if self.symptom == "bits":
            return any(symptom.kind == "bits" and self.bits >> symptom.bit & 1 for symptom in found)
        return next(symptoms(self.example.record, self.example.view)) in found


class _Group:
    """One item's departures with one symptom, and later those of other items with the same cause."""

    def __init__(self, item: str, first: Result) -> None:
        self.items = {item: None}
        self.first = first
        self.shown: set[int] = set()
        self.bits = 0


class _Place(NamedTuple):
    """The trigger, view and parameters of an observation, without the plant."""

    trigger: str
    view: str
    params: tuple[tuple[str, str | int], ...]


class _Places:
    """The places of observations."""

    def __init__(self, observations: Sequence[Observation]) -> None:
        self._observations = observations
        self._found: dict[int, _Place] = {}

    def of(self, numbers: Iterable[int]) -> set[_Place]:
        """The places of the observations with these numbers."""
        return {self._found.get(number) or self._made(number) for number in numbers}

    def _made(self, number: int) -> _Place:
        seen = self._observations[number]
        params = tuple((name, value) for name, value in seen.case.params if name != "plant") if seen.case else ()
        self._found[number] = _Place(seen.trigger, seen.view, params)
        return self._found[number]


class _Judged:
    """The observations of one event in which an item was judged, by item; computed on demand."""

    def __init__(self, observations: Sequence[Observation], numbers: Iterable[int]) -> None:
        self._observations = observations
        self._numbers = list(numbers)
        self._items: dict[Block, frozenset[str]] = {}

    def of(self, wanted: Iterable[str]) -> dict[str, set[int]]:
        """The numbers of the observations in which each of the ``wanted`` items was judged."""
        found: dict[str, set[int]] = {item: set() for item in wanted}
        for number in self._numbers:
            for block in self._observations[number].blocks:
                items = self._items.get(block)
                if items is None:
                    names = (record.item for record in block.records if record.verdict.judged)
                    items = self._items[block] = frozenset(name for name in names if name in found)
                for item in items:
                    found[item].add(number)
        return found


def findings(observations: Sequence[Observation]) -> list[Finding]:
    """The findings of a run: open ones first, the worst effect first."""
    by_event: dict[str, list[int]] = {}
    for number, seen in enumerate(observations):
        by_event.setdefault(seen.event, []).append(number)
    found: list[Finding] = []
    for event, numbers in by_event.items():
        found += _of_event(event, observations, numbers)
    return sorted(found, key=_rank)


def _rank(finding: Finding) -> tuple[int, ...]:
    return (not finding.open, EFFECTS.index(finding.effect), finding.verdict.severity, -len(finding.items), -finding.cases)


#: The key without which results cannot have one cause: symptom, verdict.
_Key = tuple[Symptom, Verdict]


def _of_event(event: str, observations: Sequence[Observation], numbers: Sequence[int]) -> list[Finding]:
    groups: dict[_Key, dict[str, _Group]] = {}
    for number in numbers:
        for result in observations[number].attention:
            for symptom in symptoms(result.record, result.view):
                by_item = groups.setdefault((symptom, result.verdict), {})
                group = by_item.get(result.item)
                if group is None:
                    group = by_item[result.item] = _Group(result.item, result)
                group.shown.add(number)
    judged = _Judged(observations, numbers).of({item for by_item in groups.values() for item in by_item})
    places = _Places(observations)
    merged: list[tuple[_Key, _Group]] = []
    for key, by_item in _joined_bits(groups):
        merged += [(key, group) for group in _causes(key[0], list(by_item.values()), judged, places)]
    return [_finding(event, key, group, observations, judged) for key, group in merged]


def _joined_bits(groups: dict[_Key, dict[str, _Group]]) -> list[tuple[_Key, dict[str, _Group]]]:
    """The groups by symptom; the bits of one item that are wrong in the same observations are one symptom."""
    made: dict[_Key, dict[str, _Group]] = {}
    bits: dict[tuple[str, Verdict, frozenset[int]], _Group] = {}
    for (symptom, verdict), by_item in groups.items():
        if symptom.kind != "bits":
            made[symptom, verdict] = by_item
            continue
        for item, group in by_item.items():
            whole = bits.setdefault((item, verdict, frozenset(group.shown)), group)
            whole.bits |= 1 << symptom.bit
    for (item, verdict, _), group in bits.items():
        key = (Symptom("bits", group.bits), verdict)
        # Other bits of the item in other observations are another cause.
        made.setdefault(key, {})[item] = group
    return list(made.items())


def _causes(symptom: Symptom, groups: list[_Group], judged: dict[str, set[int]], places: _Places) -> list[_Group]:
    """``groups`` of one symptom, those of one cause as one."""
    whole = symptom.kind in ("deviation", "reason")
    found: list[tuple[_Group, set[_Place]]] = []
    for group in sorted(groups, key=lambda group: -len(group.shown)):
        (item,) = group.items
        here = places.of(group.shown)
        views = {place.view for place in places.of(judged[item] | group.shown)}
        # A function may have several open departures.
        listed = _kind(group.first) == "open"
        for other, there in found:
            alike = whole and not listed or here == {place for place in there if place.view in views}
            if alike and listed == (_kind(other.first) == "open"):
                other.items[item] = None
                other.shown |= group.shown
                break
        else:
            found.append((group, here))
    return [group for group, _ in found]


def _finding(event: str, key: _Key, group: _Group, observations: Sequence[Observation], judged: dict[str, set[int]]) -> Finding:
    symptom, verdict = key
    first = group.first
    could = group.shown.union(*(judged[item] for item in group.items))
    shown = [observations[number] for number in sorted(group.shown)]
    views = tuple(dict.fromkeys(seen.view for seen in shown))
    return Finding(
        verdict,
        event,
        symptom.kind,
        _effect(first, views),
        tuple(group.items),
        tuple(dict.fromkeys(seen.trigger for seen in shown)),
        views,
        len(shown),
        len(could),
        extent(shown, [observations[number] for number in sorted(could)]),
        first,
        group.bits,
        _kind(first),
    )


def _kind(first: Result) -> str:
    commit = first.deviation or ""
    return _KINDS.get((commit, first.item)) or _KINDS.get((commit, first.id), "")


def _effect(first: Result, views: Sequence[str]) -> str:
    verdict = first.verdict
    # Nothing at all came of it; what the host cannot show is skipped also then.
    whole = verdict is Verdict.ERROR and not any(record.verdict.judged for record in first.of.records)
    if whole or "kernel" in views or lost(first.event, first.item):
        return "dead"
    return "guest" if "guest" in views or "views" in views else "host"
