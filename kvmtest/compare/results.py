# SPDX-License-Identifier: GPL-2.0-only
"""What differs between the results of two runs. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from kvmtest.engine.plan import wanted
from kvmtest.engine.result import Result
from kvmtest.spec.untouched import COUNTERS

__all__ = ("Change", "Difference", "Index", "changed", "difference")

#: What of a result is compared. Not the reason, which may hold addresses and times, nor the citation.
_VALUES = ("planted", "expected", "observed")
#: Addresses, lines and process numbers in what a kernel logs.
_NUMBER = re.compile(r"0x[0-9a-f]+|\d+")

#: What tells one result of a run from another: its id, its case, and of what the kernel logged the first line.
Key = tuple[str, str, str]


class Change(NamedTuple):
    """One result that is not the same in both runs; None where a run that tried the case has none."""

    a: Result | None
    b: Result | None

    @property
    def either(self) -> Result:
        """The later one, for what both have in common."""
        found = self.b or self.a
        assert found
        return found

    @property
    def verdicts(self) -> tuple[str, str]:
        """Before and after; "-" where there is none."""
        return self.a.verdict if self.a else "-", self.b.verdict if self.b else "-"


class Difference(NamedTuple):
    """What differs: results, and by case how many results are in one run only, since the other did not try the case."""

    changes: list[Change]
    only_a: dict[str, int]
    only_b: dict[str, int]

    def __bool__(self) -> bool:
        return bool(self.changes or self.only_a or self.only_b)


def changed(a: Result, b: Result) -> tuple[str, ...]:
    """The fields in which two results of the same id and case differ; of a counter the verdict alone."""
    names = ("verdict",) if a.item in COUNTERS else ("verdict", *_VALUES)
    return tuple(name for name in names if getattr(a, name) != getattr(b, name))


def _key(result: Result) -> Key:
    if result.view != "kernel":
        return result.id, result.case, ""
    # Which case ran when the kernel spoke is chance; a log without incidents is one result.
    first = result.reason.split("\n", 1)[0] if result.item == "log" else ""
    return result.id, "", _NUMBER.sub("N", first)


class Index:
    """The results of a run by what they are about; ``cases`` are those that ran, as far as that is known."""

    def __init__(self, results: Iterable[Result], cases: Iterable[str] = ()) -> None:
        self.by_key = {_key(result): result for result in results}
        self.cases = {result.case for result in self.by_key.values() if result.view != "kernel"}
        for case in cases:
            self.cases |= {case, _in_both_views(case)}
        # What a host cannot show at all is skipped once for an id and a reason, not in every case (kvmtest.engine.run).
        self._absent = {r.id: r for r in reversed(self.by_key.values()) if r.verdict == "skip" and r.observed is None}
        self._quiet = {r.id: r for r in self.by_key.values() if r.view == "kernel" and r.verdict == "pass"}

    def of(self, key: Key) -> Result | None:
        """The result for ``key``, also where it is not written out: an id skipped once, a log without incidents."""
        found = self.by_key.get(key)
        if found is not None:
            return found
        if key[2]:
            return self._quiet.get(key[0])
        absent = self._absent.get(key[0])
        return absent._replace(case=key[1]) if absent and key[1] in self.cases else None

    def tried(self, key: Key) -> bool:
        """Whether the case of ``key`` ran."""
        return not key[1] or key[1] in self.cases


def _in_both_views(case: str) -> str:
    """The name under which a guest's case is held against the host's view."""
    prefix, slash, rest = case.partition("/")
    event, dot, view = prefix.rpartition(".")
    return f"{event}{dot}views{slash}{rest}" if view == "guest" else case


def difference(a: Index, b: Index, selectors: tuple[str, ...] = ()) -> Difference:
    """What of the results that ``selectors`` take is not the same in both."""
    changes: list[Change] = []
    only_a: dict[str, int] = {}
    only_b: dict[str, int] = {}
    for key in _keys(a, b):
        if not wanted(selectors, key[0]):
            continue
        here, there = a.of(key), b.of(key)
        if here is None and not a.tried(key):
            only_b[key[1]] = only_b.get(key[1], 0) + 1
        elif there is None and not b.tried(key):
            only_a[key[1]] = only_a.get(key[1], 0) + 1
        elif here is None or there is None or changed(here, there):
            changes.append(Change(here, there))
    return Difference(changes, only_a, only_b)


def _keys(a: Index, b: Index) -> Iterator[Key]:
    """The keys of both, those of ``a`` first. A log without incidents stands for whatever the other run's log holds."""
    for key in dict.fromkeys((*a.by_key, *b.by_key)):
        quiet = [run for run in (a, b) if key in run.by_key and run.by_key[key].verdict == "pass"]
        if key[1] or key[2] or not quiet or all(key in run.by_key for run in (a, b)):
            yield key
