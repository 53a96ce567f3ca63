# SPDX-License-Identifier: GPL-2.0-only
"""Results gathered into the tests that CI counts.

A test is a result id. Its verdict is the worst of its cases': ids are stable, so a dashboard can follow one over kernels and
releases, while cases come and go with the plants. What each case said goes along where it needs attention.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from kvmtest.engine.result import CaseTime, Host, Result
from kvmtest.report.show import difference, lines, named, printable, repeat

__all__ = ("ATTENTION", "WORST", "Seen", "Tally", "Test")

#: The worst first. A deviation that was not seen although it is listed (fixed) must not hide behind one that was; one proof
#: (pass) counts for more than cases that could not be tried.
WORST = ("fail", "error", "fixed", "known", "pass", "info", "skip")
_RANK = {verdict: rank for rank, verdict in enumerate(WORST)}
#: Verdicts of which every case is kept.
ATTENTION = frozenset(("fail", "error", "fixed", "known"))
#: How many cases and sets of values a test names before it only counts them.
_CASES, _SEEN = 3, 4


class Seen(NamedTuple):
    """What several cases of one id have in common."""

    verdict: str
    planted: str | None
    expected: str | None
    observed: str | None
    reason: str
    cite: tuple[str, ...]
    deviation: str | None

    @property
    def why(self) -> str:
        """The reason and the commit or function of the deviation, in one line."""
        return printable(self.reason) + (f" [{printable(self.deviation)}]" if self.deviation else "")


class Test:
    """One id: how often each verdict, what was seen where it needs attention, and the first reason of the rest."""

    __slots__ = ("_reasons", "counts", "id", "item", "seen")

    def __init__(self, id: str, item: str) -> None:
        self.id = id
        self.item = item
        self.counts: Counter[str] = Counter()
        self.seen: dict[Seen, list[str]] = {}
        self._reasons: dict[str, str] = {}

    def add(self, result: Result) -> None:
        """Count the result of one case."""
        self.counts[result.verdict] += 1
        if result.verdict in ATTENTION:
            self.seen.setdefault(Seen._make(getattr(result, field) for field in Seen._fields), []).append(result.case)
        else:
            self._reasons.setdefault(result.verdict, result.reason)

    @property
    def verdict(self) -> str:
        """The worst."""
        return min(self.counts, key=_RANK.__getitem__)

    @property
    def worst(self) -> Iterator[tuple[Seen, list[str]]]:
        """What was seen, the worst first, and in which cases."""
        return iter(sorted(self.seen.items(), key=lambda pair: _RANK[pair[0].verdict]))

    @property
    def why(self) -> str:
        """Why it has its verdict, in one line; "" where the values say it."""
        verdict = self.verdict
        if verdict in ATTENTION:
            return next(seen.why for seen in self.seen if seen.verdict == verdict)
        return printable(self._reasons[verdict])

    def details(self, host: Host) -> Iterator[str]:
        """Lines, each printable, on what needs attention: cases, values, the bits that differ, why, the command to repeat it."""
        if not self.seen:
            return
        yield f"cases: {', '.join(f'{count} {verdict}' for verdict, count in self.counts.items())}"
        alike: dict[tuple[object, ...], list[Seen]] = {}
        for seen, _ in self.worst:
            alike.setdefault((seen.verdict, seen.reason, seen.cite, seen.deviation), []).append(seen)
        for group in list(alike.values())[:_SEEN]:
            yield from self._group(group)
        if len(alike) > _SEEN:
            yield f"and {len(alike) - _SEEN} more reasons; --format json has them all"
        yield f"repeat: {repeat(host, self.id)}"

    def _group(self, group: list[Seen]) -> Iterator[str]:
        """The lines of what differs in its values only."""
        first = group[0]
        cases = [printable(case.partition("/")[2] or case) for seen in group for case in self.seen[seen]]
        more = f"  and {len(cases) - _CASES} more" if len(cases) > _CASES else ""
        yield f"{first.verdict} in {'  '.join(cases[:_CASES])}{more}"
        for seen in group[:_SEEN]:
            if (seen.planted, seen.expected, seen.observed) == (None, None, None):  # what a kernel says has no value
                continue
            values = (seen.planted, seen.expected, seen.observed)
            yield "  planted {}  expected {}  observed {}".format(*(named(self.item, value) for value in values))
            if found := difference(self.item, seen.expected, seen.observed):
                yield f"  differs {found}"
        if len(group) > _SEEN:
            yield f"  and {len(group) - _SEEN} more sets of values; --format json has them all"
        if first.reason:
            yield from (f"  {line}" for line in lines(first.reason))
        if first.deviation:
            yield f"  deviation {printable(first.deviation)}"
        if first.cite and first.verdict != "error":
            yield f"  cite {printable('; '.join(first.cite))}"


class Tally:
    """The tests of one run."""

    def __init__(self) -> None:
        self.tests: dict[str, Test] = {}
        self._seconds: Counter[str] = Counter()

    def add(self, result: Result) -> None:
        """Count one result."""
        test = self.tests.get(result.id)
        if test is None:
            test = self.tests[result.id] = Test(result.id, result.item)
        test.add(result)

    def took(self, case: CaseTime) -> None:
        """A case is over."""
        self._seconds[case.case.partition("/")[0]] += case.duration_s  # type: ignore[assignment]

    def groups(self) -> dict[str, dict[str, dict[str, list[Test]]]]:
        """The tests by event, trigger and view, in the order in which they came."""
        made: dict[str, dict[str, dict[str, list[Test]]]] = {}
        for test in self.tests.values():
            event, trigger, view, _ = test.id.split(".", 3)
            made.setdefault(event, {}).setdefault(trigger, {}).setdefault(view, []).append(test)
        return made

    def seconds(self, group: str) -> float:
        """How long the cases of ``<event>.<trigger>.<view>`` took."""
        return self._seconds[group]
