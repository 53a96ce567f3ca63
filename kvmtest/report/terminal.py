# SPDX-License-Identifier: GPL-2.0-only
"""Terminal output: colours, and a progress line."""

from __future__ import annotations

import contextlib
import io
import os
from typing import TextIO

from kvmtest.model.verdict import Verdict
from kvmtest.report.show import columns

__all__ = ("COLOURS", "Bar", "bar", "coloured")

#: To be read on black and on white: faint for "90", which is the background in some palettes, and bright blue for blue.
COLOURS = {
    Verdict.PASS: "32",
    Verdict.FAIL: "1;31",
    Verdict.KNOWN: "33",
    Verdict.FIXED: "36",
    Verdict.SKIP: "2",
    Verdict.ERROR: "1;35",
    Verdict.INFO: "94",
}

def coloured(out: TextIO, when: str = "auto") -> bool:
    """Colour is wanted: ``always``, ``never``, or ``auto``: on a terminal that has it, unless NO_COLOR (no-color.org) is set."""
    plain = not out.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return when == "always" or when == "auto" and not plain


class Bar:
    """Progress where nobody watches: none."""

    def begin(self, cases: int) -> None:
        """So many ``cases`` will run."""

    def running(self, case: str) -> None:
        """A case begins."""

    def done(self) -> None:
        """A case is over."""

    def end(self) -> None:
        """Leave the line as it was."""


class _Line(Bar):
    """One line that is written over, for a terminal without rich."""

    def __init__(self, out: TextIO) -> None:
        self.out = out
        self._cases = self._done = 0

    def begin(self, cases: int) -> None:
        self._cases = cases

    def running(self, case: str) -> None:
        # The last column stays free: some terminals begin the next line with it.
        self.out.write("\r\x1b[K" + f"[{self._done}/{self._cases}] {case}"[: columns(self.out) - 1])
        self.out.flush()

    def done(self) -> None:
        self._done += 1

    def end(self) -> None:
        self.out.write("\r\x1b[K")
        self.out.flush()


class _Rich(Bar):
    """rich's progress bar."""

    def __init__(self, out: TextIO) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
        from rich.table import Column

        name = TextColumn("{task.description}", table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis"))
        shown = (BarColumn(20), MofNCompleteColumn(), TimeElapsedColumn(), name)
        self._progress = Progress(*shown, console=Console(file=out, width=columns(out)), transient=True, expand=True)
        self._task = self._progress.add_task("", total=None)

    def begin(self, cases: int) -> None:
        self._progress.update(self._task, total=cases)
        self._progress.start()

    def running(self, case: str) -> None:
        self._progress.update(self._task, description=case)

    def done(self) -> None:
        self._progress.advance(self._task)

    def end(self) -> None:
        self._progress.stop()


class _Lasting(io.TextIOBase):
    """A terminal, which may go away: what it shows of the progress is nothing that a report lacks."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            self._out.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._out.flush()

    def isatty(self) -> bool:
        return self._out.isatty()

    def fileno(self) -> int:
        return self._out.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._out.encoding


def bar(out: TextIO) -> Bar:
    """The progress that ``out`` can show."""
    if not out.isatty() or os.environ.get("TERM") == "dumb":
        return Bar()
    lasting = _Lasting(out)
    try:
        return _Rich(lasting)  # type: ignore[arg-type]
    except ImportError:
        return _Line(lasting)  # type: ignore[arg-type]
