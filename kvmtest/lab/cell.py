# SPDX-License-Identifier: GPL-2.0-only
"""One cell of the lab: one kernel's KVM in one emulator, from its boot to its end."""

from __future__ import annotations

import os
import shlex
import tempfile
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping

from kvmtest.engine import plan
from kvmtest.judge.evidence import Look
from kvmtest.kvm import Stop
from kvmtest.lab import cache, emulator, ids, initramfs, klog, modules
from kvmtest.lab.error import Cancelled, LabError
from kvmtest.lab.hits import Hits
from kvmtest.lab.limits import Died, Limits
from kvmtest.lab.relay import Receiver
from kvmtest.lab.saved_boot import SavedBoot, Unusable
from kvmtest.lab.start import Started
from kvmtest.lab.steps import Alive, Answer, Begin, Booting, Remark, Running, Spec, Step, Times
from kvmtest.lab.stream import WAITS, Decoder
from kvmtest.lab.watch import Watch
from kvmtest.model.case import Case
from kvmtest.model.host import Host
from kvmtest.model.record import Observation
from kvmtest.model.select import Selection, takes
from kvmtest.model.verdict import Verdict

__all__ = ("Cell", "cases", "inner")

_LOG_LINES = 10_000
#: A case that takes so long is reported, and again after as long.
_REPORT_S = 30.0
#: After the last word, to power off.
_POWER_OFF_S = 5.0
#: The part of a dead guest's console that goes into its result.
_SHOWN_LINES = 12
_SHOWN_CHARACTERS = 300
#: Lines that may only come after the number of cases.
_OF_CASES = ("O", "C", "c")
_LONGEST_S = 1e12


class Cell:
    """A cell that can be run once. `steps` ends with a Times; close() of that generator, or ``stop``, ends the emulator."""

    def __init__(self, spec: Spec, stop: Stop | None = None) -> None:
        self._stop = stop or Stop()
        self.spec = spec
        self.emulator = emulator.for_backend(spec.backend, spec.cpu)
        self._decoder = Decoder()
        self._watch = Watch(self.emulator.name)
        self._log: deque[str] = deque(maxlen=_LOG_LINES)
        self._tail: deque[str] = deque(maxlen=_SHOWN_LINES)
        self._reported: set[str] = set()
        #: The last one in the log, of the current case or what else runs.
        self._incident: list[str] = []
        self._where = ""  # the case that runs, or what else does
        self._look: Look | None = None
        #: The observations of the current case so far.
        self._seen: list[Observation] = []
        self._selection = Selection(spec.selectors)
        self._cases = self._done = 0
        self._facts: list[str] = []
        self._receiver = Receiver(spec.cases)
        self._hits = Hits()
        self._release = ""
        self._ended = self._failed = ""
        self._start = self._since = self._reported_s = time.monotonic()
        self._marks: dict[str, float] = {}

    def steps(self) -> Generator[Step, None, None]:
        """Boot, run, and yield what happens. Raises LabError where this machine cannot even start the emulator, Cancelled.

        What goes wrong in there is an observation of its own, and what a case that died had shown is kept.
        """
        self.emulator.check()
        vendor = modules.VENDOR[self.spec.backend]
        needed = modules.closure(vendor, self.spec.kernel.modules, self.spec.own_modules)
        yield self._booting("")
        try:
            with cache.workspace(tempfile.gettempdir(), "kvmtest-lab-") as folder:
                if self._stop.seen:
                    raise Cancelled
                yield from self._run(folder, needed)
        except OSError as error:
            raise LabError(f"{error.filename or tempfile.gettempdir()}: {error.strerror}") from error

    def _run(self, folder: str, needed: list[modules.Module]) -> Iterator[Step]:
        spec = self.spec
        config: dict[str, object] = {
            # As marshal takes them: to plan and to choose takes an emulated CPU seconds.
            "cases": [case.packed for case in cases(spec)],
            "timeout_s": spec.timeout_s,
            "stress_rounds": tuple(spec.stress_rounds),
            "job": spec.job,
            "coverage": spec.coverage,
        }
        given = _with(spec.parameters, self.emulator.parameters)
        built_in = given.keys() - {module.name for module in needed}
        append = " ".join(f"{name}.{value}" for name in sorted(built_in) for value in given[name].split())
        self._version = self.emulator.version()
        for fifo in ("serial", "parallel"):
            os.mkfifo(os.path.join(folder, fifo))
        self._start = time.monotonic()
        # Parameters of built-in code come from the kernel's command line.
        if self.emulator.saves and not append and not spec.fresh_boot:
            try:
                saved = SavedBoot(self.emulator, self._version, spec.kernel.image, folder, self._watch.alive)
                yield from self._saved(saved, initramfs.order(needed, given, config), folder)
                return
            except Unusable as error:
                yield Remark(f"{error}; booting afresh")
            self._again()
        initrd = os.path.join(folder, "initrd")
        initramfs.write(initrd, initramfs.cell(needed, given, config))
        serial, parallel = (os.path.join(folder, fifo) for fifo in ("serial", "parallel"))
        started = self.emulator.prepare(folder, spec.kernel.image, initrd, serial, parallel, append)
        yield from self._play(started, folder)

    def _saved(self, saved: SavedBoot, order: bytes, folder: str) -> Iterator[Step]:
        """The cell from a saved boot on, which is made first where there is none. Raises Unusable before anything was run."""
        if not saved.kept():
            with saved.making() as (started, save):
                yield from self._play(started, folder, save=save)
            if self._ended != WAITS:
                return
            self._again()
        try:
            yield from self._play(saved.restored(order), folder, restore=saved.restore)
        except Unusable:
            saved.remove()
            raise

    def _play(
        self,
        started: Started,
        folder: str,
        *,
        save: Callable[[], None] | None = None,
        restore: Callable[[], None] | None = None,
    ) -> Iterator[Step]:
        """From the emulator's start to its end; a guest that waits for its order is saved. Raises Unusable."""
        with self._watch.opened(started, folder):
            self._limits = Limits(self.emulator, self._watch.spent, "known" in (self.spec.job or {}))
            try:
                if restore:
                    restore()
                yield from self._listen()
                if save and self._ended == WAITS:
                    save()
                    return
            except Died as died:
                if restore and not self._release:
                    raise Unusable(f"the saved boot does not continue: {died}") from died
                yield from self._died(str(died))
            else:
                yield from self._final_log()
            self._mark("end")
            if self._ended:
                self._watch.wait(_POWER_OFF_S)
        yield self._times()

    def _again(self) -> None:
        """Forget the emulator that ended, for the next one."""
        self._decoder = Decoder()
        self._ended = self._failed = ""

    def _mark(self, name: str) -> None:
        self._marks.setdefault(name, time.monotonic())

    def _times(self) -> Times:
        up = self._marks.get("up", self._marks["end"])
        return Times(up - self._start, self._marks["end"] - up, time.monotonic() - self._marks["end"])

    def _listen(self) -> Iterator[Step]:
        """Yield steps until the guest says that it has ended. Raises Died, Cancelled."""
        shown: Booting | None = None
        while not self._ended:
            if self._stop.seen:
                yield from self._over()
                raise Cancelled
            if "up" not in self._marks:
                now = self._booting(self._where or "its firmware and kernel")
                if now != shown:
                    shown = now
                    yield now
            for data in self._watch.read():
                self._limits.heard()
                yield from self._decode(data)
            if self._failed:
                raise Died(self._failed)
            self._limits.check(self._where, self._watch.dying)

    def _booting(self, where: str) -> Booting:
        return Booting(self.spec.kernel.release, self.emulator.name, where, int(time.monotonic() - self._start))

    def _decode(self, data: bytes) -> Iterator[Step]:
        try:
            for letter, fields in self._decoder.feed(data):
                if letter in _OF_CASES and "up" not in self._marks:
                    raise ValueError(f"{letter} before there are cases")
                if letter == "O":
                    if self._look is None:
                        raise ValueError("evidence of no case")
                    found = self._receiver.observations(self._look, fields[0], self._host)
                    self._seen += self._selection.all_of(found)
                elif letter == "R":
                    self._enter("a job")
                    yield Answer(fields[0])
                elif letter == "K":
                    yield self._hits.executed(self._look.case if self._look else None, fields[0])
                elif letter in "DV":
                    self._receiver.take(letter, fields[0])
                else:
                    yield from self._line(letter, fields)
        except Exception as error:  # there is no saying what judging does with evidence that is none
            what = f"{type(error).__name__}: {error}"[:_SHOWN_CHARACTERS]
            raise Died(f"it sent malformed data: {what}") from error

    def _line(self, letter: str, fields: list[str]) -> Iterator[Step]:
        if letter == "L":
            self._log.append(fields[0])
            self._tail.append(fields[0])
        elif letter == "C":
            yield from self._new_incidents()
            if self._look:
                raise ValueError("a case within another one")
            look = self._receiver.look(*fields)
            self._enter(look.case.name, look)
            yield Running(look.case)
        elif letter == "c":
            yield from self._new_incidents()
            self._done += 1
            if not self._look or not 0 <= (seconds := float(fields[0])) < _LONGEST_S:
                raise ValueError("a time of no case, or that is none")
            yield from self._over(seconds)
            self._enter("the time after a case" if self._done < self._cases else "the end of the run")
        elif letter == "B":
            self._release = fields[0]
            self._enter("the start of its init")
        elif letter == "M":
            yield from self._new_incidents()
            self._enter(f"loading {fields[0]}.ko")
        elif letter == "H":
            yield from self._new_incidents()
            _facts(fields)
            self._facts = fields
            self._enter("the start of the run")
        elif letter == "N":
            if "up" in self._marks or not self._facts or int(fields[0]) < 0:
                raise ValueError("a number of cases that is none")
            self._cases = int(fields[0])
            self._mark("up")
            self._host = self.host()
            yield Begin(self._host, self._cases)
            yield from self._over()
        elif letter == "S":
            self._hits.section(*fields)
        elif letter == "h":
            now = time.monotonic()
            if self._look and now - self._reported_s > _REPORT_S:
                self._reported_s = now
                yield Alive(self._look.case, now - self._since)
        elif letter == "X":
            self._failed = fields[0]
        elif letter in ("E", WAITS):
            self._ended = letter
        else:
            raise ValueError(f"a line {letter[:1]!r}")

    def _enter(self, where: str, look: Look | None = None) -> None:
        """Note that the guest has begun ``where``, and restart the limits."""
        self._where, self._look, self._incident = where, look, []
        self._since = self._reported_s = time.monotonic()
        self._limits.entered()
        self._watch.goes_on()

    def host(self) -> Host:
        """The KVM in the guest, as reported by the guest; if it did not get that far, as far as known."""
        spec = self.spec
        lab: dict[str, str | float] = {
            "emulator": self._version,
            "cpu": self.emulator.cpu,
            "kernel_source": spec.kernel.source + (f", modules of {spec.own_modules}" if spec.own_modules else ""),
        }
        if source := self.emulator.place.source:
            lab["emulator_source"] = source
        if spec.options:
            lab["options"] = shlex.join(spec.options)
        if "up" in self._marks:
            lab["boot_s"] = round(self._marks["up"] - self._start, 3)
        known = _facts(self._facts or [self._release or spec.kernel.release, spec.backend, "unknown", "unknown"])
        return known._replace(lab=lab, name=os.uname().nodename, accel=self.emulator.accel)

    def _over(self, seconds: float | None = None) -> Iterator[list[Observation]]:
        """Yield the observations of the current case, or of the boot, even if it did not finish."""
        if seconds is not None and self._seen:
            self._seen[-1] = self._seen[-1]._replace(seconds=seconds)
        if seconds is not None or self._seen:
            yield self._seen
        self._seen = []

    @property
    def _case(self) -> Case | None:
        return self._look.case if self._look else None

    def _kernel(self, observation: Observation) -> Iterator[list[Observation]]:
        """An observation of the kernel; it comes with those of the case that runs, and after the Begin."""
        self._seen.append(observation)
        if self._look is None and "up" in self._marks:
            yield from self._over()

    def _new_incidents(self) -> Iterator[list[Observation]]:
        """An observation for each incident in the log since the last time."""
        lines = list(self._log)
        self._log.clear()
        for incident in klog.incidents(lines):
            if incident[0] not in self._reported:
                self._reported.add(incident[0])
                self._incident = incident
                place = "" if self._look else f"{self._where}: "
                yield from self._kernel(ids.of_incident(incident, self.host(), self._case, place))

    def _final_log(self) -> Iterator[list[Observation]]:
        """Yield what the kernel logged after the last case, and a pass for a log without incidents."""
        yield from self._new_incidents()
        yield from self._over()
        if not self._reported and takes(self.spec.selectors, f"{ids.ID}log"):
            yield [ids.of_kernel("log", Verdict.PASS, "")]

    def _died(self, why: str) -> Iterator[Step]:
        """The observations of a guest that died: what its log says, and the end of its console."""
        if "up" not in self._marks:
            yield Begin(self.host(), self._cases)
        self._log.extend(self._watch.console)
        yield from self._new_incidents()
        console, screen = self._watch.last_lines()
        end = "; ".join(
            f"its {what} ends with: {' | '.join(lines)}" if lines else f"its {what} is empty"
            for what, lines in (
                ("log", list(self._tail)),
                ("console", console[-_SHOWN_LINES:]),
                ("emulator's terminal", screen[-_SHOWN_LINES:]),
            )
            if lines or what == "console" and not self._tail
        )
        if "up" not in self._marks:
            place = f" at {self._where}" if self._where else ""
            yield from self._kernel(ids.of_kernel("boot", Verdict.ERROR, f"did not boot{place}: {why}; {end}", self._case))
        else:
            left = self._cases - self._done
            reason = f"died in {self._where}: {why}; {left} of {self._cases} cases did not run to their end; {end}"
            # Other cases were left untried by it, which no deviation explains.
            yield from self._kernel(ids.of_death(reason, self._incident if left == 1 else [], self.host(), self._case))
        yield from self._over()


def _with(given: Mapping[str, str], usual: Mapping[str, str]) -> dict[str, str]:
    """Parameters of modules: those ``given``, and the ``usual`` ones that are not among them."""
    found = dict(given)
    for module, values in usual.items():
        there = {one.partition("=")[0] for one in given.get(module, "").split()}
        more = [one for one in values.split() if one.partition("=")[0] not in there]
        if more:
            found[module] = " ".join([*more, *given.get(module, "").split()])
    return found


def _facts(fields: list[str]) -> Host:
    """The host that a guest says it is. Raises ValueError."""
    kernel, backend, vendor, model, *parameters = fields
    return Host(kernel, backend, vendor, model, dict(field.split("=", 1) for field in parameters))


def inner(asked: tuple[str, ...]) -> tuple[str, ...]:
    """The selectors for the engine inside, which does not know ``none.lab``: all cases, if there are no others.

    What the kernel said in some cases needs these cases.
    """
    found = []
    for selector in asked:
        _, slash, words = selector.partition("/")
        if not ids.wanted((selector,)) or plan.finds(selector):  # as `none` does
            found.append(selector)
        elif slash:
            found.append(f"*/{words}")
    return tuple(found)


def cases(spec: Spec) -> list[plan.Case]:
    """The cases that are to run."""
    if spec.job and (spec.job["programs"] or "fuzz" in spec.job):
        return []
    chosen = plan.chosen(inner(spec.selectors), spec.full, spec.cases)
    return [case for case in chosen if spec.shard is None or spec.shard.has(case.name)]
