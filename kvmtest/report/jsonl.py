# SPDX-License-Identifier: GPL-2.0-only
"""``kvmtest.results/2`` as JSON lines, flushed with each case: a host that crashes loses none. Or one whole object a result."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TextIO

from kvmtest.model.case import Case
from kvmtest.model.record import Observation
from kvmtest.model.run import Head
from kvmtest.report import End, finding
from kvmtest.results.lines import Lines, case_fields, end_fields, record_fields

__all__ = ("Expanded", "JsonLines")


class JsonLines:
    """The writer of ``--format jsonl``."""

    def __init__(self, out: TextIO, runs: int = 1) -> None:
        self.out = out
        self._lines = Lines(out.write)

    def begin(self, head: Head, cases: int) -> None:
        """A line."""
        self._lines.begin(head)
        self.out.flush()

    def case(self, case: Case) -> None:
        """A line, before the case does anything that could end the host."""
        self._lines.case(case)
        self.out.flush()

    def observed(self, seen: Sequence[Observation]) -> None:
        """A line for each observation, and for what is new in it."""
        self._lines.observed(seen)
        self.out.flush()

    def end(self, end: End) -> None:
        """A line, unless nobody knows how the run ended."""
        if end.interrupted is not None:
            self._lines.end(end_fields(end.duration_s, end.interrupted, end.totals, map(finding.fields, end.findings)))
        self.out.flush()


class Expanded:
    """The writer of ``--format jsonl --expand``: for each result an object that needs no other."""

    def __init__(self, out: TextIO, runs: int = 1) -> None:
        self.out = out
        self._several = runs > 1

    def begin(self, head: Head, cases: int) -> None:
        """Only a name, where there are several runs."""
        self._run = {"run": head.name} if self._several else {}

    def case(self, case: Case) -> None:
        """Nothing: it is part of each result."""

    def observed(self, seen: Sequence[Observation]) -> None:
        """A line for each result."""
        for one in seen:
            case = case_fields(one.case) if one.case else {}
            case = {"case": case.pop("name", None)} | case
            for result in one.results:
                where = {"id": result.id, "event": one.event, "trigger": one.trigger, "view": one.view}
                fields = self._run | where | case | record_fields(result.record, result.cite)
                self.out.write(json.dumps(fields, separators=(",", ":")) + "\n")

    def end(self, end: End) -> None:
        """Nothing is left to write."""
        self.out.flush()
