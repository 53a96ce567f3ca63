# SPDX-License-Identifier: GPL-2.0-only
"""Bochs built from its source for speed alone: what distributions ship has a debugger, which takes more than half of it.

The CPU is Debian's, option by option; of devices there is what a cell needs, and there is no display.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Callable

from kvmtest.lab import cache, emulators, program
from kvmtest.lab.emulators import Place
from kvmtest.lab.error import LabError, NotFound

__all__ = ("OPTIONS", "build")

#: Of `configure`. Those of the CPU are of Debian's package, without --enable-debugger and --enable-instrumentation.
OPTIONS = (
    "--enable-cpu-level=6",
    "--enable-x86-64",
    "--enable-fpu",
    "--enable-3dnow",
    "--enable-avx",
    "--enable-evex",
    "--enable-cet",
    "--enable-memtype",
    "--enable-protection-keys",
    "--enable-svm",
    "--enable-vmx=2",
    "--enable-x86-debugger",
    "--enable-a20-pin",
    "--enable-all-optimizations",
    "--enable-pci",
    "--enable-cdrom",
    "--with-nogui",
    "--disable-docbook",
    "CFLAGS=-O3",
    "CXXFLAGS=-O3",
)
_PROGRAMS = {"g++": "g++", "make": "make"}
_ERROR = re.compile(r"\berror:|^configure: error|^make(?:\[\d+\])?: \*\*\*")
#: Their names in the source, and at their place.
_ROMS = {
    "BIOS-bochs-latest": ("BIOS-bochs-latest",),
    "VGABIOS-lgpl-latest": ("VGABIOS-lgpl-latest", "VGABIOS-lgpl-latest.bin"),
}
_SHARE = "usr/share/bochs"


def build(source: str, say: Callable[[str], None] = lambda line: None) -> Place:
    """Build the Bochs in ``source``, a folder or an archive of one, and keep it. Raises NotFound, LabError."""
    if missing := [package for name, package in _PROGRAMS.items() if not shutil.which(name)]:
        raise LabError(f"building Bochs needs: apt-get install {' '.join(missing)}")
    with cache.scratch(emulators.KIND) as work:
        tree = _tree(source, work)
        say(f"building Bochs from {source}, a minute or two")
        _run(["sh", "./configure", *OPTIONS], tree)
        _run(["make", f"-j{os.cpu_count() or 1}"], tree)
        root = os.path.join(work, "root")
        os.makedirs(os.path.join(root, "usr/bin"))
        os.makedirs(os.path.join(root, _SHARE))
        binary = shutil.copy(os.path.join(tree, "bochs"), os.path.join(root, "usr/bin/bochs-bin"))
        for name, names in _ROMS.items():
            _rom(tree, names, os.path.join(root, _SHARE, name))
        said = Place(root, built=True).run("bochs-bin", "--help")
        if not (version := re.search(r"Emulator ([\d.]+)", said)):
            raise LabError(f"what was built from {source} does not start: {said.strip()[:200]}")
        with open(binary, "rb") as file:
            digest = hashlib.sha256(file.read()).hexdigest()[:12]
        return emulators.keep("bochs", f"{version[1]}-{digest}", root, f"built from {source}")


def _tree(source: str, work: str) -> str:
    """A copy of the source to build in."""
    copy = os.path.join(work, "tree")
    if os.path.isfile(source):
        os.mkdir(copy)
        _run(["tar", "--no-same-owner", "-xf", os.path.abspath(source), "-C", copy], work)
    elif os.path.isdir(source):
        shutil.copytree(source, copy, symlinks=True, ignore=shutil.ignore_patterns(".git"))
    else:
        raise NotFound(f"{source}: no such file or folder")
    # A clone has it in a folder of its own, an archive in one with its version.
    for where, folders, names in os.walk(copy):
        if "configure" in names and os.path.exists(os.path.join(where, "bx_debug")):
            # What was built there before was built in another way.
            if "Makefile" in names:
                _run(["make", "dist-clean"], where)
            return where
        folders.sort()
    raise NotFound(f"{source} is not Bochs's source: it has no configure")


def _run(command: list[str], folder: str) -> None:
    done = program.run(command, text=True, errors="replace", cwd=folder, start_new_session=True)
    if done.returncode:
        said = (done.stdout + done.stderr).splitlines()
        why = next((line for line in said if _ERROR.search(line)), said[-1] if said else "failed")
        raise LabError(f"Bochs does not build: {' '.join(command[:2])}: {why.strip()}")


def _rom(tree: str, names: tuple[str, ...], to: str) -> None:
    """Debian's source has none, and packages of their own for them."""
    folders = (os.path.join(tree, "bios"), f"/{_SHARE}")
    for path in (os.path.join(folder, name) for folder in folders for name in names):
        if os.path.exists(path):
            shutil.copyfile(path, to)
            return
    raise LabError(f"no {names[0]} in the source, and none is installed: apt-get install bochsbios vgabios")
