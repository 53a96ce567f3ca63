# SPDX-License-Identifier: GPL-2.0-only
"""The base of emulators: each boots a kernel with an initramfs, its serial and its parallel port going to files."""

from __future__ import annotations

import contextlib
import copy
import difflib
import os
import re
import shutil
from collections.abc import Callable
from typing import NamedTuple

from kvmtest.lab import emulators
from kvmtest.lab.error import LabError, NotFound

__all__ = ("Cpu", "Emulator", "Started", "append", "number")

#: The whole kernel command line but for the console: no delay on panic, and none of what slows down an emulated CPU, as waiting
#: for the ticks of a grace period whenever a VM comes or goes.
_APPEND = (
    "panic=-1 quiet loglevel=3 nokaslr mitigations=off tsc=reliable random.trust_cpu=on cryptomgr.notests"
    " rcupdate.rcu_expedited=1 rdinit=/init"
)


class Cpu(NamedTuple):
    """The CPUs of a cell: their ``model`` as the emulator calls it, what makes them (``accel``, as of `kvmtest.model.host.Host`),
    and their ``number``; ``suite`` is Debian's that the emulator is of. What is not said is as usual for the backend.
    """

    model: str = ""
    accel: str = ""
    number: int = 1
    suite: str = ""

    @property
    def options(self) -> tuple[str, ...]:
        """The options of ``kvmtest lab run`` that ask for it."""
        smp = str(self.number) if self.number > 1 else ""
        given = (("--accel", self.accel), ("--cpu", self.model), ("--emulator", self.suite), ("--smp", smp))
        return tuple(word for pair in given if pair[1] for word in pair)

    @property
    def name(self) -> str:
        """Short, for a column of a table; empty for the usual ones."""
        smp = f"smp {self.number}" if self.number > 1 else ""
        return " ".join(filter(None, (self.accel, self.model, self.suite, smp)))


class Started(NamedTuple):
    """An emulator's command line, whether it needs a terminal, and variables of its environment."""

    command: list[str]
    terminal: bool
    environment: dict[str, str] = {}


class Emulator:
    """One emulator. ``memory_mib`` is what a cell uses of this machine. The rest is CPU time that it may use: ``boot_s`` for the
    longest boot, ``silence_s`` without a word from a guest that is up, and ``case_s`` for one case, or for whatever
    else is done between two of its lines, while it is alive. ``accel`` is as in `kvmtest.model.host.Host`.

    ``cpu`` is the model and ``number`` how many there are. ``saves`` is whether a guest can be saved and restored: then `waiting`
    and `restored` are there. ``kind`` is as of `emulators.PACKAGES`, and ``place`` where it is, which `check` finds out.
    ``parameters`` are those of KVM's modules that work on such a CPU, unless others are asked for.
    """

    name = kind = ""
    saves = False
    accel = ""
    memory_mib = 0
    boot_s = silence_s = case_s = 0.0

    def __init__(self, backend: str, asked: Cpu, usual: str) -> None:
        self.backend = backend
        self.asked = asked
        self.cpu = asked.model or usual
        self.number = asked.number
        self.place = emulators.INSTALLED
        self.parameters: dict[str, str] = {}

    def programs(self) -> dict[str, str]:
        """Program or file that is needed -> the Debian package that brings it."""
        raise NotImplementedError

    def models(self) -> frozenset[str]:
        """The CPU models that it has. Raises LabError."""
        raise NotImplementedError

    def suites(self) -> tuple[str, ...]:
        """The suites of Debian that have one which does, the best first, where the installed one need not do."""
        return ()

    def does(self) -> bool:
        """Return True if the one at ``place`` has the CPU that is asked for. Raises LabError."""
        return self.cpu.partition(",")[0] in self.models()

    def version(self) -> str:
        """Name and version, and what else decides what it does."""
        raise NotImplementedError

    def prepare(self, folder: str, image: str, initrd: str, serial: str, parallel: str, append: str) -> Started:
        """Write into ``folder`` what is needed to boot ``image`` with ``initrd``. Raises LabError."""
        raise NotImplementedError

    def waiting(self, image: str, initrd: str, serial: str, parallel: str, memory: str) -> Started:
        """Boots ``image`` with ``initrd`` into a guest that can be saved, its RAM in the file ``memory``."""
        raise NotImplementedError

    def restored(self, order: str, serial: str, parallel: str, memory: str) -> Started:
        """Goes on with such a guest, which finds the file ``order``; ``memory`` is left as it is."""
        raise NotImplementedError

    def check(self, say: Callable[[str], None] = lambda line: None) -> None:
        """Find it, and get it where it is not kept, and call ``say`` then.

        Raises LabError that names what is missing and the packages that bring it, NotFound for CPUs that it has not.
        """
        self.place = self._found(say)
        missing = {n: p for n, p in self.programs().items() if not (os.path.exists(n) if "/" in n else shutil.which(n))}
        if missing:
            packages = " ".join(dict.fromkeys(missing.values()))
            raise LabError(f"--backend {self.backend} needs {', '.join(missing)}: apt-get install {packages}")
        if self._model and self._model not in (there := self.models()):
            like = difflib.get_close_matches(self._model, there, 5, 0.3) or sorted(there)
            raise NotFound(f"{self.version()} has no CPU model {self._model}; it has {', '.join(like)} and others")

    @property
    def _model(self) -> str:
        return self.asked.model.partition(",")[0]

    def _found(self, say: Callable[[str], None]) -> emulators.Place:
        """The one that is asked for; else that of these which does: one built for speed, the installed one, another that is kept;
        else one that is got now.
        """
        if self.asked.suite == emulators.OWN:
            return emulators.INSTALLED
        if self.asked.suite:
            return emulators.find(self.kind, self.asked.suite, say)
        suites = self.suites()
        places = [place for kind, _, place in emulators.kept() if kind == self.kind]
        tried = copy.copy(self)  # other cells may run in this one
        for tried.place in sorted((emulators.INSTALLED, *places), key=lambda place: (not place.built, bool(place.root))):
            if not suites and not tried.place.built:
                return emulators.INSTALLED
            with contextlib.suppress(LabError):  # one that is not there
                if tried.does():
                    return tried.place
        return emulators.find(self.kind, suites[0], say)


def append(number: int, more: str) -> str:
    """The kernel command line of a guest with so many CPUs, and ``more``."""
    # With nosmp the kernel leaves the IOAPIC alone. Without, it panics if the timer does not tick in time through it, as an
    # emulated one on a busy machine may not.
    cpus = "nosmp" if number == 1 else "no_timer_check"
    return f"console=ttyS0 {_APPEND} {cpus} {more}".strip()


def number(said: str, pattern: str) -> str:
    """The version that ``pattern`` finds in what an emulator ``said``."""
    found = re.search(pattern, said)
    return found[1] if found else "of unknown version"
