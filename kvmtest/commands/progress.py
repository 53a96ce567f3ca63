# SPDX-License-Identifier: GPL-2.0-only
"""A line on a terminal that says how far things are, beside lines that stay."""

from __future__ import annotations

import shutil
import sys
import threading
import time
from typing import TYPE_CHECKING

from kvmtest.commands import common
from kvmtest.report.show import printable

if TYPE_CHECKING:
    from kvmtest.lab.steps import Step

__all__ = ("Cells", "Line")

#: Seconds between two looks of a line that changes all the time.
_OFTEN_S = 0.2


class Line:
    """The last line of standard error, where that is a terminal; several threads may use it."""

    def __init__(self) -> None:
        self._width = 0
        self._lock = threading.RLock()
        self.terminal = sys.stderr.isatty()

    def show(self, text: str) -> None:
        """Write ``text`` in place of what the line says."""
        if self.terminal:
            line = printable(f"kvmtest: {text}")[: max(20, shutil.get_terminal_size().columns - 1)]
            with self._lock:
                sys.stderr.write(f"\r{line:{self._width}}")
                sys.stderr.flush()
                self._width = len(line)

    def say(self, message: str) -> None:
        """Write a line that stays."""
        with self._lock:
            self.over()
            common.say(message)

    def over(self) -> None:
        """Clear the line."""
        with self._lock:
            if self._width:
                sys.stderr.write(f"\r{'':{self._width}}\r")
                sys.stderr.flush()
                self._width = 0


class Cells:
    """Progress of several cells, in one line."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self._cases: dict[str, int] = {}
        self._done: dict[str, int] = {}
        self._booting: dict[str, int] = {}
        self._shown = 0.0

    def take(self, name: str, step: Step) -> None:
        """Note a step of the cell ``name``."""
        from kvmtest.lab.steps import Begin, Booting, Running

        if isinstance(step, Booting):
            self._booting[name] = step.seconds
        elif isinstance(step, Begin):
            self._cases[name] = step.cases
        elif isinstance(step, Running):
            self._done[name] = self._done.get(name, 0) + 1
        now = time.monotonic()
        if now - self._shown > _OFTEN_S:
            self._shown = now
            self._line.show("; ".join(self._boot(name) for name in list(self._booting)))

    def _boot(self, name: str) -> str:
        cases = self._cases.get(name)
        if cases is None:
            return f"{name} boots, {self._booting[name]} s"
        return f"{name} {self._done.get(name, 0)} of {cases}"
