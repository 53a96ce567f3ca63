# SPDX-License-Identifier: GPL-2.0-only
"""Reports of a run, one output format a file.

A report is a writer: ``begin`` before the first result, ``result`` and ``case`` as they come, ``end`` once, also when the run
was cut short, so that what was measured is always written. A report of several saved runs has all of that for each of them, in
the order in which the writer was told of them.
"""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Sequence
from typing import Protocol, TextIO

from kvmtest.engine.result import CaseTime, Host, Result
from kvmtest.report.runs import ONE, Run

__all__ = ("FORMATS", "MissingError", "Run", "Writer", "require", "writer")

#: Each format's module beside this file, and its class there. Imported when it is asked for: not all have what html needs.
_WRITERS = {
    "text": ("text", "Text"),
    "json": ("json", "Json"),
    "jsonl": ("jsonl", "JsonLines"),
    "ktap": ("ktap", "Ktap"),
    "junit": ("junit", "Junit"),
    "kcidb": ("kcidb", "Kcidb"),
    "html": ("html", "Html"),
}
FORMATS = tuple(_WRITERS)


class MissingError(RuntimeError):
    """A format needs a package that is not installed; one line that says how to get it."""


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


def require(name: str) -> type:
    """The class of the writer of format ``name`` (one of FORMATS). Raises MissingError."""
    module, made = _WRITERS[name]
    try:
        found: type = getattr(importlib.import_module(f"kvmtest.report.{module}"), made)
    except ModuleNotFoundError as error:
        raise MissingError(f"--format {name} needs {error.name}: pip install {error.name}") from None
    return found


def writer(name: str, out: TextIO, runs: Sequence[Run] = ONE) -> Writer:
    """The writer of format ``name`` to ``out``, of as many runs as ``runs`` has. Raises MissingError."""
    made: Writer = require(name)(out, runs)
    return made
