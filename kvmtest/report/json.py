# SPDX-License-Identifier: GPL-2.0-only
"""One JSON document, ``kvmtest.results/1``, written as the results come: the memory it takes does not grow with them."""

from __future__ import annotations

import json
from collections import Counter
from typing import TextIO

from kvmtest import __version__
from kvmtest.engine.result import SCHEMA, VERDICTS, CaseTime, Host, Result

__all__ = ("Json",)


class Json:
    """The writer of ``--format json``."""

    def __init__(self, out: TextIO) -> None:
        self.out = out
        self._cases: list[CaseTime] = []
        self._separator = "\n"

    def begin(self, host: Host, started: str, cases: int) -> None:
        """Everything up to the results."""
        head = {
            "schema": SCHEMA,
            "tool": {"name": "kvmtest", "version": __version__},
            "host": {name: value for name, value in host._asdict().items() if value is not None},
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
        self.out.flush()
