# SPDX-License-Identifier: GPL-2.0-only
"""Several cells, as many at once as this machine can run."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from kvmtest.kvm import Stop
from kvmtest.lab import emulator, initramfs, parts
from kvmtest.lab.cell import cases
from kvmtest.lab.error import Cancelled, LabError
from kvmtest.lab.recorder import Recorder
from kvmtest.lab.steps import Alive, Booting, Remark, Spec, Step, Times
from kvmtest.model.run import Run
from kvmtest.model.verdict import UNEXPECTED
from kvmtest.report.play import Gatherer, Unwritten

__all__ = ("Outcome", "jobs", "outcomes", "run", "shared")

_TICK_S = 0.5
#: The number of cases that are worth an emulator: to boot one takes as long as tens of them.
_FEWEST = 100


class Outcome:
    """A cell's result: the ``run``, its ``times``, and the reason if it ``failed``. ``note`` is called for each step.

    ``parts`` is the number of emulators that it runs in.
    """

    def __init__(
        self, spec: Spec, name: str, started: str, note: Callable[[Step], None] = lambda step: None, parts: int = 1
    ) -> None:
        self.spec = spec
        self.parts = parts
        self._note = note
        self.name = name
        self.times: Times | None = None
        self.failed = ""
        self.run: Run | None = None
        self._recorder = Recorder(Gatherer(Unwritten()), spec, started, name)

    def play(self, stop: Stop, say: Callable[[str], None]) -> None:
        """Run the cell until ``stop``. Raises LabError, Cancelled."""
        steps = parts.cell(self.spec, self.parts, stop).steps()
        try:
            for step in steps:
                self._note(step)
                if self._recorder.take(step):
                    continue
                if isinstance(step, Times):
                    self.times = step
                elif isinstance(step, Alive | Remark) or isinstance(step, Booting) and not step.where:
                    say(f"{self.name}: {step}")
        finally:
            steps.close()

    def over(self, failed: str = "", interrupted: bool = False) -> None:
        """End the cell, or give it up: its results so far are its run."""
        self.failed = "interrupted" if interrupted else failed
        self.run = self._recorder.end(interrupted, failed)


def outcomes(specs: Sequence[Spec], started: str, asked: int | None = None) -> list[Outcome]:
    """The cells of ``specs`` before they run, each with a name of its own; ``asked`` is as of `shared`."""
    names = [spec.name for spec in specs]
    shown = [name if names.count(name) == 1 else f"{name} ({names[: i + 1].count(name)})" for i, name in enumerate(names)]
    each = shared(specs, asked)
    return [Outcome(spec, name, started, parts=each) for spec, name in zip(specs, shown, strict=True)]


def jobs(specs: Sequence[Spec], asked: int | None) -> int:
    """Return the number of emulators to run at once: one per core, or as many cores as it has CPUs, limited by free memory."""
    cores = len(os.sched_getaffinity(0)) // max((spec.cpu.number for spec in specs), default=1)
    each = max((emulator.for_backend(spec.backend, spec.cpu).memory_mib for spec in specs), default=1)
    with open("/proc/meminfo", encoding="ascii") as file:
        free = next((int(line.split()[1]) for line in file if line.startswith("MemAvailable:")), each << 10)
    return max(1, min(asked or cores, free // 1024 // each))


def shared(specs: Sequence[Spec], asked: int | None = None) -> int:
    """Return the number of emulators that share each cell where as many as ``asked`` run at once, or as fit this machine."""
    each = jobs(specs, asked) // max(1, len(specs))
    return max(1, min([each, *(len(cases(spec)) // _FEWEST for spec in specs)])) if each > 1 else 1


def run(
    cells: Sequence[Outcome],
    asked: int | None,
    say: Callable[[str], None],
    stop: Stop,
    over: Callable[[Outcome], None] = lambda outcome: None,
) -> None:
    """Run ``cells`` until ``stop``, in ``asked`` emulators at once; then each has its run.

    ``over`` is called with each in their order, as soon as it and those before it have one: those results are kept even if
    others fail.
    """
    initramfs.base()
    # The slow ones first, so that the last to end is not one that began last.
    ordered = sorted(cells, key=lambda outcome: -emulator.for_backend(outcome.spec.backend, outcome.spec.cpu).boot_s)
    specs, each = [outcome.spec for outcome in ordered], max((outcome.parts for outcome in ordered), default=1)
    at_once = max(1, min(jobs(specs, asked) // each, len(ordered)))
    say(f"{len(ordered)} cells, {at_once} at once" + (f", each in {each} emulators" if each > 1 else ""))
    begin = time.monotonic()
    waiting = list(cells)

    def report() -> None:
        while waiting and waiting[0].run:
            over(waiting.pop(0))

    try:
        _all(ordered, at_once, say, stop, report)
    finally:
        report()
    say(f"all of it: {time.monotonic() - begin:.0f} s")


def _all(
    cells: Sequence[Outcome], at_once: int, say: Callable[[str], None], stop: Stop, report: Callable[[], None]
) -> None:
    """Run all cells; after ``stop`` no more begin, and running ones that do not end are given up."""
    pool = ThreadPoolExecutor(at_once)
    pending: dict[Future[None], Outcome] = {}
    try:
        stop.running = True
        pending |= {pool.submit(outcome.play, stop, say): outcome for outcome in cells}
        while pending:
            for done in wait(pending, _TICK_S, FIRST_COMPLETED).done:
                _over(done, pending[done], say)
                del pending[done]
                report()
    except KeyboardInterrupt:
        stop.seen = True
        for outcome in pending.values():
            outcome.over(interrupted=True)
    except BaseException:
        stop.seen = True
        raise
    finally:
        pool.shutdown(wait=not pending, cancel_futures=True)


def _over(done: Future[None], outcome: Outcome, say: Callable[[str], None]) -> None:
    try:
        done.result()
    except Cancelled:
        outcome.over(interrupted=True)
    except Exception as error:
        # Whatever it is: the other cells go on, and what is measured of them is written.
        outcome.over(str(error) if isinstance(error, LabError) else f"{type(error).__name__}: {error}")
        say(f"{outcome.name}: {outcome.failed}")
    else:
        outcome.over()
        assert outcome.run
        totals = outcome.run.totals
        bad = sum(totals[verdict] for verdict in UNEXPECTED)
        say(f"{outcome.name}: {outcome.times}; {sum(totals.values())} results, {bad} unexpected")
