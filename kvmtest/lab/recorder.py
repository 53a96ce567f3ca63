# SPDX-License-Identifier: GPL-2.0-only
"""Between a cell and a report: what the cell says becomes a run."""

from __future__ import annotations

import os
import time

from kvmtest import __version__
from kvmtest.lab import emulator, ids
from kvmtest.lab.steps import Begin, Running, Spec, Step
from kvmtest.model.host import Host, Tool
from kvmtest.model.run import Head, Run
from kvmtest.model.verdict import Verdict
from kvmtest.report.play import Gatherer

__all__ = ("Recorder",)


class Recorder:
    """Passes what a cell of ``spec`` says on to ``to``, as a run of that ``name``."""

    def __init__(self, to: Gatherer, spec: Spec, started: str, name: str = "") -> None:
        self._to = to
        self._spec = spec
        self._started = started
        self._name = name
        self._began = 0.0
        self.begun = False

    def take(self, step: Step) -> bool:
        """Pass ``step`` on; return False for a step that only shows progress."""
        if isinstance(step, list):
            self._to.observed(step)
        elif isinstance(step, Running):
            self._to.case(step.case)
        elif isinstance(step, Begin):
            self._begin(step.host, step.cases)
        else:
            return False
        return True

    def end(self, interrupted: bool | None = False, failed: str = "") -> Run:
        """The cell is over, or was cut short (None); ``failed`` is what kept it from its end, or from its beginning."""
        begun = self.begun
        if not begun:
            spec = self._spec
            accel = emulator.for_backend(spec.backend, spec.cpu).accel
            name = os.uname().nodename
            self._begin(Host(spec.kernel.release, spec.backend, "unknown", "unknown", {}, name=name, accel=accel), 0)
        if failed:
            self._to.observed([ids.of_kernel("run" if begun else "boot", Verdict.ERROR, failed)])
        return self._to.end(time.monotonic() - self._began, interrupted)

    def _begin(self, host: Host, cases: int) -> None:
        self.begun, self._began = True, time.monotonic()
        self._to.begin(Head(Tool(__version__), host, self._started, self._name, self._spec.shard), cases)
