# SPDX-License-Identifier: GPL-2.0-only
"""What an emulator is to the lab: it boots a kernel with an initramfs, its serial and its parallel port going to files."""

from __future__ import annotations

import difflib
import os
import re
import shutil
from typing import NamedTuple

from kvmtest.lab import program
from kvmtest.lab.error import LabError, NotFound

__all__ = ("Cpu", "Emulator", "Started", "append", "version")

#: The whole kernel command line but for the console: no delay on panic, and none of what slows down an emulated CPU, as waiting
#: for the ticks of a grace period whenever a VM comes or goes.
_APPEND = (
    "panic=-1 quiet loglevel=3 nokaslr mitigations=off tsc=reliable random.trust_cpu=on cryptomgr.notests"
    " rcupdate.rcu_expedited=1 rdinit=/init"
)


class Cpu(NamedTuple):
    """The CPUs of a cell: their ``model`` as the emulator calls it, what makes them (``accel``, as of `kvmtest.model.host.Host`),
    and their ``number``. What is not said is as usual for the backend.
    """

    model: str = ""
    accel: str = ""
    number: int = 1

    @property
    def options(self) -> tuple[str, ...]:
        """The options of ``kvmtest lab run`` that ask for it."""
        found = ["--accel", self.accel] if self.accel else []
        found += ["--cpu", self.model] if self.model else []
        return tuple([*found, "--smp", str(self.number)] if self.number > 1 else found)

    @property
    def name(self) -> str:
        """Short, for a column of a table; empty for the usual ones."""
        return " ".join([*filter(None, (self.accel, self.model)), *([f"smp {self.number}"] if self.number > 1 else [])])


class Started(NamedTuple):
    """An emulator's command line, and whether it needs a terminal."""

    command: list[str]
    terminal: bool


class Emulator:
    """One emulator. ``memory_mib`` is what a cell takes of this machine. The rest is CPU time that it may use: ``boot_s`` for the
    longest boot, ``silence_s`` without a word from a guest that is up, and ``case_s`` for one case, or for whatever
    else is done between two of its lines, while it is alive. ``accel`` is as in `kvmtest.model.host.Host`.

    ``cpu`` is the model and ``number`` how many there are. ``saves`` is whether a guest can be saved and restored: then `waiting`
    and `restored` are there.
    """

    name = ""
    saves = False
    accel = ""
    memory_mib = 0
    boot_s = silence_s = case_s = 0.0

    def __init__(self, backend: str, asked: Cpu, usual: str) -> None:
        self.backend = backend
        self.asked = asked
        self.cpu = asked.model or usual
        self.number = asked.number

    def programs(self) -> dict[str, str]:
        """Program or file that is needed -> the Debian package that brings it."""
        raise NotImplementedError

    def models(self) -> frozenset[str]:
        """The CPU models that it has. Raises LabError."""
        raise NotImplementedError

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

    def check(self) -> None:
        """Raises LabError that names what is missing and the packages that bring it, NotFound for CPUs that it has not."""
        missing = {n: p for n, p in self.programs().items() if not (os.path.exists(n) if "/" in n else shutil.which(n))}
        if missing:
            packages = " ".join(dict.fromkeys(missing.values()))
            raise LabError(f"--backend {self.backend} needs {', '.join(missing)}: apt-get install {packages}")
        model = self.asked.model.partition(",")[0]
        if model and model not in (there := self.models()):
            like = difflib.get_close_matches(model, there, 5, 0.3) or sorted(there)
            raise NotFound(f"{self.version()} has no CPU model {model}; it has {', '.join(like)} and others")


def append(number: int, more: str) -> str:
    """The kernel command line of a guest with so many CPUs, and ``more``."""
    return f"console=ttyS0 {_APPEND}{' nosmp' if number == 1 else ''} {more}".strip()


def version(command: list[str], pattern: str) -> str:
    """What ``pattern`` finds in what ``command`` says."""
    done = program.run(command, text=True, errors="replace")
    found = re.search(pattern, done.stdout + done.stderr)
    return found[1] if found else "of unknown version"
