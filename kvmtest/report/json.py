# SPDX-License-Identifier: GPL-2.0-only
"""``kvmtest.results/2`` as one JSON document, written at the end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TextIO

from kvmtest.model.case import Case
from kvmtest.model.record import Observation
from kvmtest.model.run import Head
from kvmtest.report import End, finding
from kvmtest.results.document import Document
from kvmtest.results.lines import end_fields

__all__ = ("Json",)


class Json:
    """The writer of ``--format json``."""

    def __init__(self, out: TextIO, runs: int = 1) -> None:
        self.out = out
        self._left = runs
        self._document = Document()

    def begin(self, head: Head, cases: int) -> None:
        """One more run."""
        self._document.begin(head)

    def case(self, case: Case) -> None:
        """One more case."""
        self._document.case(case)

    def observed(self, seen: Sequence[Observation]) -> None:
        """Rows of the results."""
        self._document.observed(seen)

    def end(self, end: End) -> None:
        """The document, after the last run."""
        self._document.end(end_fields(end.duration_s, end.interrupted, end.totals, map(finding.fields, end.findings)))
        self._left -= 1
        if not self._left:
            self._document.write(self.out)
