# SPDX-License-Identifier: GPL-2.0-only
"""Reports of a run, one output format a file.

A report is a writer: ``begin`` before the first result, ``result`` and ``case`` as they come, ``end`` once, also when the run
was cut short, so that what was measured is always written.
"""

from __future__ import annotations

from collections import Counter
from typing import Protocol, TextIO

from kvmtest.engine.result import CaseTime, Host, Result
from kvmtest.report import json, jsonl, text

__all__ = ("FORMATS", "Writer", "writer")

FORMATS = ("text", "json", "jsonl")


class Writer(Protocol):
    """What every format offers."""

    def begin(self, host: Host, started: str, cases: int) -> None:
        """``started`` is UTC in RFC 3339; ``cases`` is how many will run."""

    def running(self, case: str) -> None:
        """A case begins."""

    def result(self, result: Result) -> None:
        """One result, in the order of the run."""

    def case(self, case: CaseTime) -> None:
        """A case is over."""

    def end(self, duration_s: float, totals: Counter[str]) -> None:
        """The run is over, or was cut short, after ``duration_s`` seconds."""


def writer(name: str, out: TextIO) -> Writer:
    """The writer of format ``name`` (one of FORMATS) to ``out``."""
    made: dict[str, type] = {"text": text.Text, "json": json.Json, "jsonl": jsonl.JsonLines}
    found: Writer = made[name](out)
    return found
