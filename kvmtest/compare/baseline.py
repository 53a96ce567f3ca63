# SPDX-License-Identifier: GPL-2.0-only
"""A run held against a saved one: what departs from the manuals now and did not, what no longer does, what still does."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple, TextIO

from kvmtest.compare import show, states
from kvmtest.compare.groups import blocks
from kvmtest.compare.results import Change, Index, changed
from kvmtest.engine.plan import wanted
from kvmtest.engine.result import UNEXPECTED, VERDICTS, CaseTime, Host, Result
from kvmtest.report import Writer
from kvmtest.report.saved import Saved
from kvmtest.report.show import columns, lines, wrapped

__all__ = ("Against", "Comparison", "compare")

_DEPARTS = UNEXPECTED | {"known"}
#: What shows that a departure is gone. Not ``skip``: what cannot be tried may still be there.
_TOLD = frozenset(("pass", "fixed", "info"))


class Comparison(NamedTuple):
    """What became of each departure, and the cases that one run only has.

    ``new`` are failures with another verdict than before, or none; ``new_known`` what is new and listed. ``gone`` departed
    before, ``same`` still does, ``untold`` cannot be told now. ``late`` are those that gave no answer in time now, or then and
    are no failure now: a busy host looks like that, and so does an event that KVM lost.
    """

    new: list[Change]
    new_known: list[Change]
    gone: list[Change]
    same: list[Change]
    untold: list[Change]
    late: list[Change]
    only_then: set[str]
    only_now: set[str]


def compare(old: Index, now: Index, strict: bool = False) -> Comparison:
    """Hold ``now`` against ``old``; with ``strict`` a ``known`` is a failure."""
    found = Comparison([], [], [], [], [], [], set(), now.cases - old.cases)
    for key, result in now.by_key.items():
        before = old.of(key)
        if result.verdict not in _DEPARTS or before and before.verdict == result.verdict:
            continue
        if result.out_of_time:
            found.late.append(Change(before, result))
        elif result.verdict != "known":
            found.new.append(Change(before, result))
        elif not before or before.verdict not in _DEPARTS:
            (found.new if strict else found.new_known).append(Change(before, result))
    for key, result in old.by_key.items():
        if not now.tried(key):
            found.only_then.add(result.case)
            continue
        after = now.of(key)
        if result.verdict not in _DEPARTS:
            continue
        if after is None or after.verdict == "skip":
            found.untold.append(Change(result, after))
        elif after.verdict in _TOLD:
            (found.late if result.out_of_time else found.gone).append(Change(result, after))
        elif after.verdict in (result.verdict, "known"):
            found.same.append(Change(result, after))
    return found


class Against:
    """A writer that passes everything on, and at the end says on ``out`` what changed since ``old``.

    Of what ``selectors`` do not take neither run is asked, but what a lab's kernel logs counts always.
    """

    def __init__(self, writer: Writer, old: Saved, selectors: tuple[str, ...], strict: bool, out: TextIO) -> None:
        self._writer = writer
        self._out = out
        self._old = old
        self._strict = strict
        taken = [result for result in old.results if wanted(selectors, result.id) or result.view == "kernel"]
        self._then = Index(taken, old.ran)
        self._departed = {(result.id, result.case) for result in taken if result.verdict in _DEPARTS}
        self._results: list[Result] = []
        self._shown: set[str] = set()
        self._cases: list[str] = []
        self._head: show.Head = []
        #: Failures by verdict that are new.
        self.new: Counter[str] = Counter()
        #: How many that were no error by time-out before gave no answer in time.
        self.late = 0

    def begin(self, host: Host, started: str, cases: int) -> None:
        """Note where the two runs differ before they begin."""
        self._head = states.hosts(self._old.host, host)
        self._writer.begin(host, started, cases)

    def running(self, case: str) -> None:
        """Nothing of its own."""
        self._writer.running(case)

    def result(self, result: Result) -> None:
        """Keep what departs now or did then, and skips, of which one may stand for many (Index)."""
        self._shown.add(result.case)
        departs = result.verdict in _DEPARTS or (result.id, result.case) in self._departed
        if departs or result.view == "kernel" or result.verdict == "skip" and result.observed is None:
            self._results.append(result)
        self._writer.result(result)

    def case(self, case: CaseTime) -> None:
        """Note that it ran."""
        self._cases.append(case.case)
        self._writer.case(case)

    def end(self, duration_s: float, totals: Counter[str]) -> None:
        """The report's end, and the comparison behind it."""
        self._writer.end(duration_s, totals)
        found = compare(self._then, Index(self._results, self._cases), self._strict)
        self.new = Counter(change.either.verdict for change in found.new)
        self.late = sum(change.either.out_of_time for change in found.late)
        with contextlib.suppress(BrokenPipeError):  # the status says it, whoever reads
            self._out.writelines(line + "\n" for text in self._lines(found) for line in lines(text))
            self._out.flush()

    def _lines(self, found: Comparison) -> Iterator[str]:
        parts = [f"{len(found.new)} new", f"{len(found.gone)} gone", f"{len(found.same)} the same"]
        parts += [f"{len(found.new_known)} new and known"] * bool(found.new_known)
        parts += [f"{len(found.untold)} cannot be told"] * bool(found.untold)
        parts += [f"{len(found.late)} without an answer in time"] * bool(found.late)
        other = [c for c in found.same if c.a and c.b and changed(c.a._replace(verdict=c.b.verdict), c.b)]
        yield ""
        yield f"Against {self._old.name}, departures from the manuals: {', '.join(parts)}"
        for name, here, there in self._head:
            yield wrapped(f"{name}: {here or '(empty)'} -> {there or '(empty)'}", columns(self._out), "  ", " " * 6)
        titled = (
            ("New", found.new),
            ("New, and known", found.new_known),
            ("Gone", found.gone),
            ("Cannot be told now", found.untold),
            ("No answer in time, now or then; not counted as new or gone", found.late),
            ("The same, with another value", other),
        )
        for title, changes in titled:
            if changes:
                yield ""
                yield f"{title}:"
                for block in blocks(changes):
                    yield from show.block(block)
        if found.same:
            counts = Counter(change.either.verdict for change in found.same)
            yield "The same: " + ", ".join(f"{counts[v]} {v}" for v in VERDICTS if counts[v])
        # A case whose skips another one stands for has no result to name it in a baseline of records.
        for cases, which in ((found.only_then, "the baseline"), (found.only_now & self._shown, "this run")):
            if cases:
                yield f"Cases in {which} only: {len(cases)}, e.g. {min(cases)}"
