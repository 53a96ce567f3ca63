# SPDX-License-Identifier: GPL-2.0-only
"""Text for people: the KVM under test, the findings, and the next commands."""

from __future__ import annotations

import re
import sys
import textwrap
from collections import Counter
from collections.abc import Sequence
from typing import TextIO

from kvmtest.judge.findings import Finding
from kvmtest.model.case import Case
from kvmtest.model.record import EVENTS, VIEWS, Block, Observation
from kvmtest.model.run import Head
from kvmtest.model.verdict import VERDICTS, Verdict
from kvmtest.report import End, finding
from kvmtest.report.show import columns, count, head_lines, printable, wrapped
from kvmtest.report.terminal import COLOURS, bar, coloured

__all__ = ("Text",)

#: Findings that are shown; each kind (verdict, effect) has at least one.
_FINDINGS = 30
#: Reasons of skips that are shown.
_REASONS = 12
_HEX = re.compile("0x[0-9a-f]+")
#: The names of effects.
_EFFECTS = {"dead": "event lost or guest dead", "guest": "the guest sees it", "host": "only ioctls show it"}


class Text:
    """The writer of ``--format text``. ``verbose`` adds known deviations, skips, and totals by trigger."""

    def __init__(
        self, out: TextIO, runs: int = 1, progress: TextIO | None = None, colour: str = "auto", verbose: bool = False
    ) -> None:
        self.out = out
        self._several = runs > 1
        self._begun = 0
        self._verbose = verbose
        self._width = columns(out)
        self._colour = coloured(out, colour)
        self._bar = bar(progress if progress is not None else sys.stderr)

    def _paint(self, verdict: Verdict, text: str) -> str:
        return f"\x1b[{COLOURS[verdict]}m{text}\x1b[0m" if self._colour else text

    def _line(self, text: str = "") -> None:
        self.out.write(text + "\n")

    def _wrapped(self, text: str, first: str, hang: str, verdict: Verdict | None = None) -> None:
        """``text`` in lines of the width; ``first`` begins the first, in the colour of ``verdict``, and ``hang`` the others."""
        filled = wrapped(text, self._width, first, hang)
        self._line(self._paint(verdict, first.rstrip()) + filled[len(first.rstrip()) :] if verdict else filled)

    def begin(self, head: Head, cases: int) -> None:
        """The header: whose KVM, on what, and the parameters that are not off or empty."""
        if self._begun:
            self._line()
        self._begun += 1
        self._head = head
        self._blocks: dict[tuple[str, str, str], Counter[Block]] = {}
        self._results = 0
        if self._several:
            self._wrapped(printable(head.name), "run      ", " " * 9)
        for label, text in head_lines(head):
            self._wrapped(text, f"{label:8} " if label else "", " " * 9)
        self._line()
        self.out.flush()
        self._bar.begin(cases)

    def case(self, case: Case) -> None:
        """Show the case on the progress line."""
        self._bar.running(printable(case.name))

    def observed(self, seen: Sequence[Observation]) -> None:
        """Count it, and move the progress on."""
        for one in seen:
            self._blocks.setdefault((one.event, one.trigger, one.view), Counter()).update(one.blocks)
        if seen and seen[0].case:
            self._bar.done()

    def end(self, end: End) -> None:
        """The findings, the worst first; last, a line for each that failed."""
        self._bar.end()
        open_ = [one for one in end.findings if one.open]
        known = [one for one in end.findings if not one.open]
        shown = _first(open_)
        for one in shown:
            self._show(one)
        if shown and not self._verbose:
            self._line()
        if len(open_) > len(shown):
            self._line(f"and {count(len(open_) - len(shown), 'more finding')}; --format html or json has them all")
            self._line()
        if known and self._verbose:
            for one in known:
                self._show(one)
        elif known:
            why = "admitted by KVM's own words, or fixed in a later kernel"
            self._wrapped(f"{count(len(known), 'more departure')}, {why}: --verbose shows them.", "", "")
            self._line()
        if self._verbose:
            self._show_skips()
            self._show_totals(end.totals)
        self._closing(end, shown)
        self.out.flush()

    def _show(self, one: Finding) -> None:
        verdict = "open" if one.verdict is Verdict.KNOWN and one.open else one.verdict
        self._wrapped(finding.title(one), f"{verdict.upper():5} ", " " * 6, one.verdict)
        for label, text in finding.details(one, self._head.host):
            if label in ("again", "explain"):
                continue
            lines = [text]
            if label == "values" and len(text) + 15 > self._width:
                lines = finding.values(one)
            if label == "where":
                lines = [f"{text}; {_EFFECTS[one.effect]}"]
            first = f"      {label:8} "
            # The rule is in explain as well, and what was observed nowhere else.
            if label == "rule" and not self._verbose:
                lines = [textwrap.shorten(text, max(self._width - len(first), 20), placeholder=" ...")]
            for line in lines:
                self._wrapped(line, first, " " * 15)
                first = " " * 15
        if self._verbose:
            self._line()

    def _show_skips(self) -> None:
        """Show what was skipped; reasons that differ only in numbers share a line."""
        ids: dict[str, set[str]] = {}
        reasons: dict[str, set[str]] = {}
        for where, blocks in self._blocks.items():
            for block in blocks:
                if not block.counts[Verdict.SKIP]:
                    continue
                for record in block.records:
                    if record.verdict is Verdict.SKIP:
                        same = _HEX.sub("N", record.reason)
                        ids.setdefault(same, set()).add(f"{'.'.join(where)}.{record.item}")
                        reasons.setdefault(same, set()).add(record.reason)
        if not ids:
            return
        self._line("Skipped, by reason:")
        ranked = sorted(ids, key=lambda same: (-len(ids[same]), same))
        for same in ranked[:_REASONS]:
            reason = min(reasons[same])
            more = "" if len(reasons[same]) == 1 else ", or with other numbers"
            example = f"{count(len(ids[same]), 'id')}, e.g. {min(ids[same])}" if len(ids[same]) > 1 else min(ids[same])
            self._wrapped(printable(f"{reason}{more} ({example})"), "  ", " " * 6)
        if len(ranked) > _REASONS:
            self._line(f"  and {count(len(ranked) - _REASONS, 'more reason')}; --format json has them all")
        self._line()

    def _show_totals(self, totals: Counter[Verdict]) -> None:
        width = max([len("event.trigger.view"), *(len(".".join(key)) for key in self._blocks)])
        self._line(" ".join([f"{'event.trigger.view':{width}}", *(f"{verdict:>6}" for verdict in VERDICTS)]))
        for key, blocks in sorted(self._blocks.items(), key=lambda row: _rank(*row[0])):
            counts: Counter[Verdict] = Counter()
            for block, times in blocks.items():
                for verdict, number in block.counts.items():
                    counts[verdict] += number * times
            self._line(" ".join([f"{'.'.join(key):{width}}", *(self._cell(verdict, counts[verdict]) for verdict in VERDICTS)]))
        self._line(" ".join([f"{'total':{width}}", *(self._cell(verdict, totals[verdict]) for verdict in VERDICTS)]))
        self._line()

    def _cell(self, verdict: Verdict, number: int) -> str:
        cell = f"{number or '.':>6}"
        return self._paint(verdict, cell) if number else cell

    def _closing(self, end: End, shown: Sequence[Finding]) -> None:
        """Show the failures, a line each, with the command to repeat it. The end is what a terminal still shows."""
        failed = [one for one in shown if one.verdict.unexpected]
        for one in failed:
            head = f"{one.verdict.upper():5} "
            room = max(self._width - len(head), 20)
            self._line(self._paint(one.verdict, head[:5]) + " " + textwrap.shorten(finding.title(one), room, placeholder=" ..."))
            # Not wrapped: it is there to be copied.
            self._line(" " * 8 + dict(finding.details(one, self._head.host))["again"])
        total = sum(end.totals.values())
        results = f"{count(total, 'result')} in {end.duration_s:.1f} s"
        if end.interrupted is None:
            results += ", cut short"
        elif end.interrupted:
            results += ", interrupted"
        unexpected = [one for one in end.findings if one.verdict.unexpected]
        if not unexpected:
            self._line(f"{results}: {self._paint(Verdict.PASS, 'nothing unexpected')}")
            return
        bad = sum(end.totals[verdict] for verdict in VERDICTS if verdict.unexpected)
        found = self._paint(Verdict.FAIL, count(len(unexpected), "finding"))
        self._line(f"{results}: {found} ({count(bad, 'result')})")
        if command := finding.explain(unexpected[0]):
            self._line(f"The rule of the first one: {command}")


def _first(findings: Sequence[Finding]) -> list[Finding]:
    """The first findings, and the first of each kind however many there are."""
    kinds: set[tuple[Verdict, str]] = set()
    found = []
    for number, one in enumerate(findings):
        kind = (one.verdict, one.effect)
        if number < _FINDINGS or kind not in kinds:
            found.append(one)
        kinds.add(kind)
    return found


def _rank(event: str, trigger: str, view: str) -> tuple[int, str, int]:
    return EVENTS.index(event), trigger, VIEWS.index(view)
