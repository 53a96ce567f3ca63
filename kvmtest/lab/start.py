# SPDX-License-Identifier: GPL-2.0-only
"""What an emulator is to the lab: it boots a kernel with an initramfs, its serial and its parallel port going to files."""

from __future__ import annotations

import os
import re
import shutil
from typing import NamedTuple

from kvmtest.lab import program
from kvmtest.lab.error import LabError

__all__ = ("APPEND", "Emulator", "Started", "version")

#: The whole kernel command line but for the console: no delay on panic, and none of what slows down an emulated CPU, as waiting
#: for the ticks of a grace period whenever a VM comes or goes.
APPEND = (
    "panic=-1 quiet loglevel=3 nokaslr mitigations=off nosmp tsc=reliable random.trust_cpu=on cryptomgr.notests"
    " rcupdate.rcu_expedited=1 rdinit=/init"
)


class Started(NamedTuple):
    """An emulator's command line, and whether it needs a terminal."""

    command: list[str]
    terminal: bool


class Emulator:
    """One emulator. ``memory_mib`` is what a cell takes of this machine. The rest is CPU time that it may use: ``boot_s`` for the
    longest boot, ``silence_s`` without a word from a guest that is up, and ``case_s`` for one case, or for whatever
    else is done between two of its lines, while it is alive. ``accel`` is as in `kvmtest.model.host.Host`.

    ``saves`` is whether a guest can be saved and restored: then `waiting` and `restored` are there.
    """

    name = ""
    saves = False
    backend = ""
    accel = ""
    cpu = ""
    memory_mib = 0
    boot_s = silence_s = case_s = 0.0

    def programs(self) -> dict[str, str]:
        """Program or file that is needed -> the Debian package that brings it."""
        raise NotImplementedError

    def version(self) -> str:
        """Name and version."""
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
        """Raises LabError that names what is missing and the packages that bring it."""
        missing = {n: p for n, p in self.programs().items() if not (os.path.exists(n) if "/" in n else shutil.which(n))}
        if missing:
            packages = " ".join(dict.fromkeys(missing.values()))
            raise LabError(f"--backend {self.backend} needs {', '.join(missing)}: apt-get install {packages}")


def version(command: list[str], pattern: str) -> str:
    """What ``pattern`` finds in what ``command`` says."""
    done = program.run(command, text=True, errors="replace")
    found = re.search(pattern, done.stdout + done.stderr)
    return found[1] if found else "of unknown version"
