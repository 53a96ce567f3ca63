# SPDX-License-Identifier: GPL-2.0-only
"""Reports of a run, one output format a file.

A report is a writer: ``begin`` before anything else, ``case`` and ``observed`` as they come, ``end`` once, also when the run was
cut short, so that what was measured is always written. A report of several saved runs has all of that for each of them in turn.
"""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol, TextIO

from kvmtest.model.case import Case
from kvmtest.model.record import Observation
from kvmtest.model.run import Head
from kvmtest.model.verdict import Verdict

if TYPE_CHECKING:
    from kvmtest.judge.findings import Finding

__all__ = ("FORMATS", "End", "MissingError", "Writer", "require", "writer")

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


class End(NamedTuple):
    """The end of a run, after ``duration_s`` seconds, with its result. ``interrupted`` is None if the run was cut short."""

    duration_s: float
    interrupted: bool | None
    totals: Counter[Verdict]
    findings: Sequence[Finding]


class Writer(Protocol):
    """A report in the making."""

    def begin(self, head: Head, cases: int) -> None:
        """A run begins; ``cases`` is how many will run."""

    def case(self, case: Case) -> None:
        """A case begins."""

    def observed(self, seen: Sequence[Observation]) -> None:
        """The case is over, and showed this; or the kernel spoke outside of any case."""

    def end(self, end: End) -> None:
        """The run is over, or was cut short."""


def require(name: str) -> type:
    """The class of the writer of format ``name`` (one of FORMATS). Raises MissingError."""
    module, made = _WRITERS[name]
    try:
        found: type = getattr(importlib.import_module(f"kvmtest.report.{module}"), made)
    except ModuleNotFoundError as error:
        raise MissingError(f"--format {name} needs {error.name}: pip install {error.name}") from None
    return found


def writer(name: str, out: TextIO, runs: int = 1) -> Writer:
    """The writer of format ``name`` to ``out``, of as many ``runs`` as will begin. Raises MissingError."""
    made: Writer = require(name)(out, runs)
    return made
