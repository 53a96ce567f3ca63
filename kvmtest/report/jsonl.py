# SPDX-License-Identifier: GPL-2.0-only
"""The result records of ``kvmtest.results/1``, one a line, flushed as they happen: a host that crashes loses none."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import TextIO

from kvmtest.engine.result import CaseTime, Host, Result
from kvmtest.report.runs import ONE, Run

__all__ = ("JsonLines",)


class JsonLines:
    """The writer of ``--format jsonl``."""

    def __init__(self, out: TextIO, runs: Sequence[Run] = ONE) -> None:
        self.out = out

    def begin(self, host: Host, started: str, cases: int) -> None:
        """Nothing: every line is a result."""

    def running(self, case: str) -> None:
        """Nothing."""

    def result(self, result: Result) -> None:
        """One line."""
        self.out.write(json.dumps(result._asdict()) + "\n")
        self.out.flush()

    def case(self, case: CaseTime) -> None:
        """Nothing."""

    def end(self, duration_s: float, totals: Counter[str]) -> None:
        """Nothing is left to write."""
