# SPDX-License-Identifier: GPL-2.0-only
"""Results gathered into the tests that CI counts.

A test is a result id. Its verdict is that of its cases together: ids are stable, so a dashboard can follow one over kernels and
releases, while cases come and go with the plants. What each case said goes along where it needs attention.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from operator import itemgetter

from kvmtest.judge.findings import Finding
from kvmtest.model.host import Host
from kvmtest.model.record import Block, Observation, Record, Result
from kvmtest.model.verdict import Verdict, overall
from kvmtest.report.finding import summary
from kvmtest.report.show import count, difference, inline, lines, printable, repeat

__all__ = ("Tally", "Test")

#: The number of cases and sets of values that a test names before it only counts them.
_CASES, _SEEN = 3, 4


_Numbered = tuple[int, Observation]


class Test:
    """One id: how often each verdict, where each record that needs attention was made, and the first reason of the rest."""

    __slots__ = ("_reasons", "_seen", "counts", "findings", "id", "item")

    def __init__(self, first: Result) -> None:
        self.id = first.id
        self.item = first.item
        self.counts: Counter[Verdict] = Counter()
        #: The observations of each record, with their numbers: a block gathers those that have it, whatever came between.
        self._seen: dict[Record, list[_Numbered]] = {}
        #: The findings that its records belong to.
        self.findings: list[Finding] = []
        self._reasons: dict[Verdict, str] = {}

    def add(self, record: Record, seen: Sequence[_Numbered]) -> None:
        """Count ``record`` in each of the observations."""
        self.counts[record.verdict] += len(seen)
        if record.verdict.attention:
            self._seen.setdefault(record, []).extend(seen)
        else:
            self._reasons.setdefault(record.verdict, record.reason)

    @property
    def verdict(self) -> Verdict:
        """The verdict of its cases together."""
        return overall(self.counts)

    @property
    def seen(self) -> dict[Record, list[Observation]]:
        """The observations of each record that needs attention, in the order of the run."""
        ordered = {record: sorted(seen, key=itemgetter(0)) for record, seen in self._seen.items()}
        records = sorted(ordered, key=lambda record: ordered[record][0][0])
        return {record: [one for _, one in ordered[record]] for record in records}

    @property
    def worst(self) -> list[Result]:
        """The first result of each record that needs attention, the worst first."""
        found = [Result(seen[0], record) for record, seen in self.seen.items()]
        return sorted(found, key=lambda result: result.verdict.severity)

    @property
    def why(self) -> str:
        """The reason of the verdict in one line; "" if the values are the reason."""
        verdict = self.verdict
        return printable(self._reasons[verdict]) if verdict in self._reasons else _why(self.worst[0].record)

    def details(self, host: Host) -> Iterator[str]:
        """Printable lines on what needs attention: findings, cases, values, bits that differ, why, and how to repeat it."""
        seen = self.seen
        if not seen:
            return
        yield from (f"finding: {summary(finding)}" for finding in self.findings)
        yield f"cases: {', '.join(f'{count} {verdict}' for verdict, count in self.counts.items())}"
        alike: dict[tuple[object, ...], list[Result]] = {}
        for result in self.worst:
            alike.setdefault((result.verdict, result.reason, result.cite, result.deviation), []).append(result)
        for group in list(alike.values())[:_SEEN]:
            yield from self._group(group, seen)
        if len(alike) > _SEEN:
            yield f"and {count(len(alike) - _SEEN, 'more reason')}; --format json has them all"
        yield f"repeat: {repeat(host, self.id)}"

    def _group(self, group: list[Result], where: dict[Record, list[Observation]]) -> Iterator[str]:
        """The lines of what differs in its values only."""
        first = group[0]
        of = [seen.case for result in group for seen in where[result.record]]
        cases = [printable(case.words or case.name if case else "no case") for case in of]
        more = f"  and {len(cases) - _CASES} more" if len(cases) > _CASES else ""
        yield f"{first.verdict} in {'  '.join(cases[:_CASES])}{more}"
        for result in group[:_SEEN]:
            values = (result.planted, result.expected, result.observed)
            if values == (None, None, None):  # what a kernel says has no value
                continue
            yield "  planted {}  expected {}  observed {}".format(*(inline(self.item, value) for value in values))
            if found := difference(result.record):
                yield f"  differs {found}"
        if len(group) > _SEEN:
            yield f"  and {count(len(group) - _SEEN, 'more set')} of values; --format json has them all"
        if first.reason:
            yield from (f"  {line}" for line in lines(first.reason))
        if first.deviation:
            yield f"  deviation {printable(first.deviation)}"
        if first.cite and first.verdict is not Verdict.ERROR:
            yield f"  cite {printable('; '.join(first.cite))}"


def _why(record: Record) -> str:
    """The reason and the commit or function of the deviation."""
    return printable(record.reason) + (f" [{printable(record.deviation)}]" if record.deviation else "")


class Tally:
    """The tests of one run, from observations as they come."""

    def __init__(self) -> None:
        #: By event, trigger and view: the blocks, and where each was seen.
        self._blocks: dict[tuple[str, str, str], dict[Block, list[_Numbered]]] = {}
        self._number = 0
        self._seconds: Counter[tuple[str, str, str]] = Counter()

    def observed(self, seen: Sequence[Observation]) -> None:
        """Count what one case showed. All of its time counts for the first observation."""
        for one in seen:
            blocks = self._blocks.setdefault((one.event, one.trigger, one.view), {})
            self._number += 1
            for block in one.blocks:
                blocks.setdefault(block, []).append((self._number, one))
        for first in seen[:1]:
            took = sum(one.seconds or 0.0 for one in seen)
            self._seconds[first.event, first.trigger, first.view] += took  # type: ignore[assignment]

    def tests(self, findings: Sequence[Finding]) -> dict[tuple[str, str, str], list[Test]]:
        """The tests by event, trigger and view, in the order in which they came, each with those of the ``findings`` it shows."""
        return {where: _tests(blocks, findings) for where, blocks in self._blocks.items() if any(b.records for b in blocks)}

    def seconds(self, where: tuple[str, str, str]) -> float:
        """Return the time that the cases of this event, trigger and view took."""
        return self._seconds[where]


def _tests(blocks: dict[Block, list[_Numbered]], findings: Sequence[Finding]) -> list[Test]:
    made: dict[str, Test] = {}
    for block, seen in blocks.items():
        for record in block.records:
            test = made.get(record.item)
            if test is None:
                test = made[record.item] = Test(Result(seen[0][1], record))
            test.add(record, seen)
    for test in made.values():
        results = test.worst
        test.findings = [finding for finding in findings if results and any(map(finding.has, results))]
    return list(made.values())
