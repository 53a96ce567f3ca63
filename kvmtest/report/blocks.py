# SPDX-License-Identifier: GPL-2.0-only
"""What needs attention, gathered for people: results that went wrong in the same way are one thing to look at."""

from __future__ import annotations

from kvmtest.engine.result import Result
from kvmtest.report.tally import ATTENTION

__all__ = ("Block", "Blocks")

#: What a block shows of values: planted, expected, observed.
Values = tuple[str | None, str | None, str | None]


class Block:
    """Results of one item after one event that went wrong in the same way, over all triggers and cases.

    ``triggers``, ``cases``, ``values`` and ``runs`` are in the order in which they came.
    """

    def __init__(self, first: Result) -> None:
        self.first = first
        self.results = 0
        self.triggers: dict[str, None] = {}
        self.cases: dict[str, None] = {}
        self.values: dict[Values, None] = {}
        self.runs: dict[str, None] = {}

    def add(self, result: Result, run: str) -> None:
        """One more that went wrong like this."""
        self.results += 1
        self.runs[run] = None
        self.triggers[result.trigger] = None
        self.cases[result.case.partition("/")[2]] = None
        self.values[result.planted, result.expected, result.observed] = None

    def merge(self, other: Block) -> None:
        """Take in the triggers and cases of ``other``."""
        self.results += other.results
        self.runs.update(other.runs)
        self.triggers.update(other.triggers)
        self.cases.update(other.cases)

    @property
    def name(self) -> str:
        """The result id; with more than one trigger, as a shell would write them."""
        first, triggers = self.first, ",".join(self.triggers)
        return f"{first.event}.{{{triggers}}}.{first.view}.{first.item}" if "," in triggers else first.id


class Blocks:
    """All of a run, or of several, from results as they come."""

    def __init__(self) -> None:
        self._blocks: dict[tuple[str, ...], Block] = {}

    def add(self, result: Result, run: str = "") -> None:
        """Keep ``result``, of the run of that name, where it needs attention."""
        if result.verdict in ATTENTION:
            same = (result.event, result.view, result.item, result.verdict, result.reason)
            self._blocks.setdefault(same, Block(result)).add(result, run)

    def of(self, verdict: str) -> list[Block]:
        """The blocks of ``verdict``. Errors are one for each reason: a case that failed as a whole is one thing to look at."""
        found = [block for block in self._blocks.values() if block.first.verdict == verdict]
        return _by_reason(found) if verdict == "error" else found


def _by_reason(blocks: list[Block]) -> list[Block]:
    merged: dict[tuple[str, str], Block] = {}
    for block in blocks:
        key = (f"{block.first.event}.{block.first.view}", block.first.reason)
        if key in merged:
            merged[key].merge(block)
        else:
            merged[key] = Block(block.first)
            merged[key].merge(block)
            merged[key].values.update(block.values)
    return list(merged.values())
