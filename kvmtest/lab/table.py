# SPDX-License-Identifier: GPL-2.0-only
"""The text of a matrix: each cell's totals and times, then the findings that are not the same in all cells."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from typing import TextIO

from kvmtest.judge.findings import Finding
from kvmtest.lab.matrix import Outcome
from kvmtest.model.case import Case
from kvmtest.model.record import Block, Observation
from kvmtest.model.run import Head
from kvmtest.model.verdict import VERDICTS, Verdict
from kvmtest.report import End
from kvmtest.report.finding import title
from kvmtest.report.show import columns, count, printable

__all__ = ("Table",)

#: The marks for a finding that a cell does not have.
_UNSEEN, _UNTRIED, _UNKNOWN = "-", "skip", "?"
_MEANS = {
    _UNSEEN: "not seen there",
    _UNTRIED: "its items could not be judged there",
    _UNKNOWN: "that cell did not finish",
}
_FEWEST = 60


class _Cell:
    """The results of one cell."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.end: End | None = None
        self._blocks: set[tuple[str, Block]] = set()
        self._judged: set[tuple[str, str]] = set()
        self._died = False

    def observed(self, seen: Observation) -> None:
        """Note what was judged, and whether the kernel lived."""
        for block in seen.blocks:
            if (seen.event, block) in self._blocks:
                continue
            self._blocks.add((seen.event, block))
            self._judged.update((seen.event, record.item) for record in block.records if record.verdict.judged)
            self._died |= seen.view == "kernel" and block.counts[Verdict.ERROR] > 0

    def without(self, finding: Finding) -> str:
        """Stands for a finding of another cell."""
        if self.end is None or self.end.interrupted or self._died:
            return _UNKNOWN
        judged = "kernel" in finding.views or any((finding.event, item) in self._judged for item in finding.items)
        return _UNSEEN if judged else _UNTRIED


class Table:
    """A writer of the results of ``outcomes``, in their order."""

    def __init__(self, out: TextIO, outcomes: Sequence[Outcome]) -> None:
        self._out = out
        self._outcomes = outcomes
        self._cells: list[_Cell] = []

    def begin(self, head: Head, cases: int) -> None:
        """The next cell."""
        self._cells.append(_Cell(head.name))

    def case(self, case: Case) -> None:
        """Nothing."""

    def observed(self, seen: Sequence[Observation]) -> None:
        """Note it."""
        for one in seen:
            self._cells[-1].observed(one)

    def end(self, end: End) -> None:
        """The cell is over; all of the table after the last one."""
        self._cells[-1].end = end
        if len(self._cells) == len(self._outcomes):
            lines = [*self._totals(), "", *_differences(self._cells, max(_FEWEST, columns(self._out)))]
            self._out.write("\n".join(map(printable, lines)) + "\n")
            self._out.flush()

    def _totals(self) -> Iterator[str]:
        first = max(4, *(len(cell.name) for cell in self._cells))
        yield f"{'cell':{first}} {' '.join(f'{v:>6}' for v in VERDICTS)}  {'boot':>7} {'run':>7} {'end':>5}  kernel"
        for cell, outcome in zip(self._cells, self._outcomes, strict=True):
            assert cell.end
            counts = " ".join(f"{cell.end.totals[v] or '.':>6}" for v in VERDICTS)
            times = outcome.times
            took = f"{'-':>7} {'-':>7} {'-':>5}"
            if times:
                took = f"{times.boot_s:6.1f}s {times.run_s:6.1f}s {times.shutdown_s:4.1f}s"
            yield f"{cell.name:{first}} {counts}  {took}  {outcome.failed or outcome.spec.kernel.release}"


def _differences(cells: Sequence[_Cell], width: int) -> Iterator[str]:
    """The findings by the row of what each cell says of them, without those that all have which could show them."""
    titles: dict[tuple[object, ...], tuple[Finding, list[str]]] = {}
    for number, cell in enumerate(cells):
        assert cell.end
        for finding in cell.end.findings:
            _, row = titles.setdefault(finding.key, (finding, [other.without(finding) for other in cells]))
            row[number] = finding.verdict
    by_row: dict[tuple[str, ...], list[str]] = {}
    alike = 0
    for finding, row in titles.values():
        if set(row) - {_UNTRIED} == {finding.verdict}:
            alike += 1
        else:
            by_row.setdefault(tuple(row), []).append(title(finding))
    if by_row:
        widths = [max(len(cell.name), 6) for cell in cells]
        number = sum(map(len, by_row.values()))
        verb = "differs" if number == 1 else "differ"
        yield f"{count(number, 'finding')} {verb} between the cells, in {count(len(by_row), 'way')}:"
        yield "  ".join(f"{cell.name:>{w}}" for cell, w in zip(cells, widths, strict=True))
        for shown in sorted(by_row, key=_severity):
            yield "  ".join(f"{said:>{w}}" for said, w in zip(shown, widths, strict=True)) + f"  ({len(by_row[shown])})"
            for text in dict.fromkeys(by_row[shown]):
                yield from textwrap.wrap(text, width, initial_indent="    ", subsequent_indent="      ", break_on_hyphens=False)
        yield from _legend(by_row)
    else:
        yield "No finding differs between the cells."
    if alike:
        yield f"In each cell that could show it: {count(alike, 'more finding')}; --format json has them all"


def _severity(row: tuple[str, ...]) -> tuple[int, ...]:
    """Sorts the rows that say most to the front: those with the worst verdicts, and with most of them."""
    return tuple(-row.count(verdict) for verdict in VERDICTS)


def _legend(rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    said = {one for row in rows for one in row}
    if legend := [f"{sign} {text}" for sign, text in _MEANS.items() if sign in said]:
        yield f"({'; '.join(legend)})"
