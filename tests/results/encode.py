# SPDX-License-Identifier: GPL-2.0-only
"""Runs as results have them, without a writer in between."""

from __future__ import annotations

import io
from collections.abc import Sequence

from kvmtest.model.case import Case
from kvmtest.model.record import Observation
from kvmtest.model.run import Head, Run
from kvmtest.report import End
from kvmtest.report.finding import fields
from kvmtest.report.play import Gatherer, play
from kvmtest.results.document import Document
from kvmtest.results.lines import Lines, end_fields


class _Writer:
    def __init__(self, to: Document | Lines) -> None:
        self._to = to

    def begin(self, head: Head, cases: int) -> None:
        self._to.begin(head)

    def case(self, case: Case) -> None:
        self._to.case(case)

    def observed(self, seen: Sequence[Observation]) -> None:
        self._to.observed(seen)

    def end(self, end: End) -> None:
        found = [fields(finding) for finding in end.findings]
        self._to.end(end_fields(end.duration_s, bool(end.interrupted), end.totals, found))


def lines(*runs: Run) -> str:
    """``runs`` as JSON lines."""
    out: list[str] = []
    writer = _Writer(Lines(out.append))
    for run in runs:
        play(run, Gatherer(writer))
    return "".join(out)


def document(*runs: Run) -> str:
    """``runs`` as one document."""
    made = Document()
    writer = _Writer(made)
    for run in runs:
        play(run, Gatherer(writer))
    out = io.StringIO()
    made.write(out)
    return out.getvalue()
