# SPDX-License-Identifier: GPL-2.0-only
"""Emulators for the lab: those that this machine's distribution installed, Debian's of other suites, and those built here.

Debian's are fetched as kernels are, with the libraries that they need, and unpacked into the cache. They run from there, and
stay as they are until a newer one is asked for. `kvmtest.lab.bochs_build` builds.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from typing import NamedTuple

from kvmtest.lab import apt, cache, deb, foreign, program
from kvmtest.lab.error import LabError, NotFound

__all__ = ("BUILT", "INSTALLED", "KIND", "OWN", "PACKAGES", "SUITES", "Place", "find", "keep", "kept", "remove")

#: Their folder in the cache.
KIND = "emulators"
#: Names that stand where suites do: that of the distribution, and what was built here.
OWN, BUILT = "installed", "built"
_ABOUT = "emulator.json"
#: Each emulator's packages; the first is the one whose version is the emulator's.
PACKAGES = {"bochs": ("bochs", "bochs-term", "bochsbios", "vgabios"), "qemu": ("qemu-system-x86",)}
#: Suites that have an emulator newer than that of the oldest one that the lab runs on; oldest first.
SUITES = ("trixie", "forky", "sid")
#: Dependencies of these that cells need: libraries and firmware, not what an installed system would want besides.
_OF = re.compile(r"(?:lib|zlib1g|bochs|vgabios|qemu-system|seabios)")
#: Files that are not kept: nothing in a cell reads them.
_SHARE = ("bochs", "vgabios", "qemu", "seabios")


class Place(NamedTuple):
    """The place of an emulator: below ``root``, empty for one that is installed.

    ``source`` is the package that it came in, or what it was ``built`` from on this machine.
    """

    root: str = ""
    source: str = ""
    built: bool = False

    def command(self, name: str) -> list[str]:
        """Return the command that runs the program ``name``. Raises LabError."""
        if not self.root:
            return [name]
        return [*([] if self.built else foreign.loader(self.root)), self.path(f"/usr/bin/{name}")]

    def path(self, path: str) -> str:
        """The file that would lie at ``path`` if it were installed."""
        return self.root + path

    def run(self, name: str, *arguments: str) -> str:
        """Return the output of the program ``name``. Raises LabError."""
        done = program.run([*self.command(name), *arguments], text=True, errors="replace", env=os.environ | self.environment)
        return str(done.stdout + done.stderr)

    @property
    def environment(self) -> dict[str, str]:
        """Variables by which the emulators find what else is of them."""
        if not self.root:
            return {}
        libraries = self.path("/usr/lib/x86_64-linux-gnu")
        return {
            "LTDL_LIBRARY_PATH": f"{libraries}/bochs/plugins",
            "BXSHARE": self.path("/usr/share/bochs"),
            "QEMU_MODULE_DIR": f"{libraries}/qemu",
        }


INSTALLED = Place()


def _load(folder: str) -> Place:
    with open(os.path.join(folder, _ABOUT), encoding="utf-8") as file:
        return Place(os.path.join(folder, "root"), **json.load(file))


def keep(kind: str, name: str, root: str, source: str) -> Place:
    """Keep the folder ``root``, which was built from ``source`` and is moved, as that of an emulator ``kind``."""

    def fill(folder: str) -> None:
        shutil.move(root, os.path.join(folder, "root"))
        _say_what(folder, source, built=True)

    folder = cache.folder(KIND, f"{kind}_{BUILT}_{name}", fill)
    os.utime(folder)
    return _load(folder)


def _say_what(folder: str, source: str, built: bool) -> None:
    with open(os.path.join(folder, _ABOUT), "w", encoding="utf-8") as file:
        json.dump({"source": source, "built": built}, file)


def kept() -> Iterator[tuple[str, str, Place]]:
    """Which emulator, of which suite, and where, of all that are kept; the newest first."""
    parent = os.path.join(cache.home(), KIND)
    names = [name for name in os.listdir(parent) if not name.startswith(".")] if os.path.isdir(parent) else []
    for name in sorted(names, key=lambda name: os.stat(os.path.join(parent, name)).st_mtime, reverse=True):
        kind, suite, _ = name.split("_", 2)
        yield kind, suite, _load(os.path.join(parent, name))


def remove() -> None:
    """Keep none of them."""
    shutil.rmtree(os.path.join(cache.home(), KIND), ignore_errors=True)


def find(kind: str, suite: str, say: Callable[[str], None] = lambda line: None, *, fresh: bool = False) -> Place:
    """The emulator ``kind`` (of PACKAGES) of ``suite``; ``fresh`` asks the mirror even where one is kept.

    Raises NotFound, LabError.
    """
    if not fresh and (found := _newest(kind, suite)):
        return found
    if suite == BUILT:
        raise NotFound(f"no {kind} was built here (kvmtest lab emulators --build SOURCE builds Bochs)")
    with cache.locked(f"apt-{suite}"):
        if not fresh and (found := _newest(kind, suite)):  # somebody else got it meanwhile
            return found
        say(f"looking for {suite}'s {PACKAGES[kind][0]} on this machine's mirror")
        here = apt.Apt(suite)
        here.update()
        packages = [pair for pair in here.installation(*PACKAGES[kind]) if _OF.match(pair[0])]
        version = dict(packages)[PACKAGES[kind][0]]
        source = f"Debian {suite}, {PACKAGES[kind][0]} {version}"

        def fill(folder: str) -> None:
            say(f"getting {PACKAGES[kind][0]} {version} and {len(packages) - 1} packages that it needs")
            _unpack(here, packages, os.path.join(folder, "root"))
            _say_what(folder, source, built=False)

        return _load(cache.folder(KIND, re.sub(r"[/:]", "_", f"{kind}_{suite}_{version}"), fill))


def _newest(kind: str, suite: str) -> Place | None:
    return next((place for one, of, place in kept() if (one, of) == (kind, suite)), None)


def _unpack(here: apt.Apt, packages: list[tuple[str, str]], root: str) -> None:
    with cache.scratch(KIND) as download:
        for path in here.download(packages, download):
            deb.unpack(path, root)
    share = os.path.join(root, "usr/share")
    for name in os.listdir(share) if os.path.isdir(share) else ():
        if name not in _SHARE:
            shutil.rmtree(os.path.join(share, name), ignore_errors=True)
    try:
        foreign.loader(root)
    except LabError as error:
        raise LabError(f"{here.suite}'s packages have no libraries to run by: {error}") from error
