# SPDX-License-Identifier: GPL-2.0-only
"""One cell in several emulators, each with a part of its cases."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Generator, Iterator
from queue import Empty, SimpleQueue

from kvmtest.kvm import Stop
from kvmtest.lab import ids, initramfs
from kvmtest.lab.cell import Cell, cases
from kvmtest.lab.error import Cancelled
from kvmtest.lab.steps import Begin, Booting, Running, Spec, Step, Times
from kvmtest.model.host import Host
from kvmtest.model.record import Observation
from kvmtest.model.shard import WHOLE
from kvmtest.model.verdict import Verdict
from kvmtest.spec.logged import fatal

__all__ = ("Parts", "cell")

#: Seconds between two looks at ``stop``, and those that emulators get to end.
_TICK_S, _END_S = 0.1, 10.0


class _Over(Exception):
    """A part is over."""


class Parts:
    """The cell of ``spec`` in ``count`` emulators. `steps` are those of one emulator: its cases come in the same order."""

    def __init__(self, spec: Spec, count: int, stop: Stop | None = None) -> None:
        self.spec = spec
        self._stop = stop or Stop()
        self._end = Stop()
        self._shards = (spec.shard or WHOLE).split(count)
        self._steps = SimpleQueue[tuple[int, Step | BaseException]]()
        #: The names of the cases that are not over, in order, and the results of those that wait for one before them.
        self._order: dict[str, None] = {}
        self._held: dict[str, tuple[Running, list[Observation]]] = {}
        #: By part: the case that it runs.
        self._running: dict[int, Running] = {}
        self._left, self._quiet, self._unbooted = set(range(count)), 0, False
        self._host: Host | None = None
        self._times: list[Times] = []
        self._errors: list[BaseException] = []

    def steps(self) -> Generator[Step, None, None]:
        """Boot, run, and yield what happens. Raises as `Cell.steps` does, when all parts are over."""
        initramfs.base()
        threads = [threading.Thread(target=self._play, args=(number,), daemon=True) for number in self._left]
        try:
            for thread in threads:
                thread.start()
            while self._left:
                self._end.seen = self._stop.seen
                try:
                    number, step = self._steps.get(timeout=_TICK_S)
                except Empty:
                    continue
                yield from self._merged(number, step)
        finally:
            self._end.seen = True
            for thread in threads:
                thread.join(_END_S)
        if self._quiet == len(threads):
            yield [ids.of_kernel("log", Verdict.PASS, "")]
        if self._times:
            yield Times(*(max(part) for part in zip(*self._times, strict=True)))
        # The error of a part says more than that the others were ended.
        for error in sorted(self._errors, key=lambda error: isinstance(error, Cancelled)):
            raise error

    def _play(self, number: int) -> None:
        ended: BaseException = _Over()
        try:
            with contextlib.closing(Cell(self.spec._replace(shard=self._shards[number]), self._end).steps()) as steps:
                for step in steps:
                    self._steps.put((number, step))
        except BaseException as error:
            ended = error
        finally:  # whatever it is: somebody waits for it
            self._steps.put((number, ended))

    def _merged(self, number: int, step: Step | BaseException) -> Iterator[Step]:
        if isinstance(step, BaseException):
            self._left.remove(number)
            self._running.pop(number, None)
            if not isinstance(step, _Over):
                self._errors.append(step)
            # Nobody runs the rest of its cases any more.
            mine = self._shards[number].has
            self._order = dict.fromkeys(name for name in self._order if name in self._held or not mine(name))
            yield from self._next()
        elif isinstance(step, Begin):
            if self._host is None:
                self._host = host = step.host
                names = [case.name for case in cases(self.spec)]
                self._order = dict.fromkeys(sorted(names, key=lambda name: fatal(name, host.backend, host.version)))
                yield Begin(host, len(self._order))
        elif isinstance(step, Running):
            self._running[number] = step
        elif isinstance(step, list):
            yield from self._seen(number, step)
        elif isinstance(step, Times):
            self._times.append(step)
        elif not isinstance(step, Booting):
            yield step
        elif number == min(self._left) and self._host is None:
            yield step

    def _seen(self, number: int, seen: list[Observation]) -> Iterator[Step]:
        running = self._running.pop(number, None)
        if running is None:
            records = [record for one in seen for record in one.records]
            if records and all(record.verdict is Verdict.PASS for record in records):
                self._quiet += 1
            elif not self._unbooted or any(record.item != "boot" for record in records):
                # One kernel boots or does not, in however many emulators.
                self._unbooted |= any(record.item == "boot" for record in records)
                yield seen
            return
        if running.case.name not in self._order:  # a guest that does as it likes: nothing waits for this
            yield from (running, seen)
            return
        self._held[running.case.name] = running, seen
        yield from self._next()

    def _next(self) -> Iterator[Step]:
        while (first := next(iter(self._order), None)) and (found := self._held.pop(first, None)):
            del self._order[first]
            yield from found


def cell(spec: Spec, count: int, stop: Stop | None = None) -> Cell | Parts:
    """The cell of ``spec`` in ``count`` emulators."""
    return Cell(spec, stop) if count == 1 else Parts(spec, count, stop)
