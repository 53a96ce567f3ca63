# SPDX-License-Identifier: GPL-2.0-only
"""One JSON document, written as the results come: the memory it takes does not grow with them.

It is ``kvmtest.results/1``; of several runs ``kvmtest.matrix/1``, a cell for each.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import TextIO

from kvmtest.engine.result import SCHEMA, VERDICTS, CaseTime, Host, Result
from kvmtest.report.runs import MATRIX, ONE, Run

__all__ = ("Json",)


class Json:
    """The writer of ``--format json``."""

    def __init__(self, out: TextIO, runs: Sequence[Run] = ONE) -> None:
        self.out = out
        self._runs = runs
        self._begun = 0
        self._cases: list[CaseTime] = []
        self._separator = "\n"

    def begin(self, host: Host, started: str, cases: int) -> None:
        """Everything up to the results."""
        run = self._runs[self._begun]
        if len(self._runs) > 1:
            self.out.write(f'{{"schema": "{MATRIX}", "cells": [\n' if not self._begun else ",\n")
            self.out.write(f'{{"cell": {json.dumps(run.name)}, "failed": "", "document": ')
        self._begun += 1
        self._cases, self._separator = [], "\n"
        head = {
            "schema": SCHEMA,
            "tool": {"name": "kvmtest", "version": run.version},
            "host": {name: value for name, value in (host._asdict() | {"accel": run.accel or None}).items() if value is not None},
            "started": started,
        }
        self.out.write(json.dumps(head, indent=1).removesuffix("\n}") + ',\n "results": [')

    def running(self, case: str) -> None:
        """Nothing: a document has no progress."""

    def result(self, result: Result) -> None:
        """One record of the results array."""
        self.out.write(f"{self._separator}  {json.dumps(result._asdict())}")
        self._separator = ",\n"

    def case(self, case: CaseTime) -> None:
        """Kept for the end."""
        self._cases.append(case)

    def end(self, duration_s: float, totals: Counter[str]) -> None:
        """Close the document."""
        tail = {
            "cases": [{"case": c.case, "duration_s": round(c.duration_s, 6)} for c in self._cases],
            "duration_s": round(duration_s, 6),
            "totals": {verdict: totals[verdict] for verdict in VERDICTS},
        }
        self.out.write("\n ],\n" + json.dumps(tail, indent=1).removeprefix("{\n") + "\n")
        if len(self._runs) > 1:
            self.out.write("}" if self._begun < len(self._runs) else "}\n]}\n")
        self.out.flush()
