# SPDX-License-Identifier: GPL-2.0-only
"""KVM's modules built with a recorder of what they execute, with tables of their code; kept with their source.

Each block calls the recorder, a module of its own that KVM's then depend on (`kvmtest/lab/kvmcov`): KVM's source stays as it is,
line by line. What is loaded is stripped of debug information, from which the blocks were read before.
"""

from __future__ import annotations

import gzip
import os
import shutil
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import NamedTuple

from kvmtest.coverage import disassembly, file
from kvmtest.coverage.error import CoverageError
from kvmtest.coverage.table import Table
from kvmtest.lab import build, cache, kbuild, program
from kvmtest.lab.error import LabError
from kvmtest.lab.inside import RECORDER
from kvmtest.lab.kernels import Kernel

__all__ = ("Instrumented", "instrumented", "kept", "modules")

_KIND = "coverage"
_KEPT = 8
_FLAG = "-fsanitize-coverage=trace-pc"
#: The end of a function, where it is a block of its own, would jump to the recorder: that would return to the function's caller.
_FLAGS = (_FLAG, "-fno-optimize-sibling-calls")
_MODULES = ("kvm", "kvm-amd", "kvm-intel")
_TABLE = "table.json.gz"
#: Changes with how blocks are read.
_RECIPE = 2


class Instrumented(NamedTuple):
    """The folder of one build: ``modules/`` to load, ``tree/`` with the source, and the table of what ran so far."""

    folder: str

    @property
    def modules(self) -> str:
        """The folder with the modules to load."""
        return os.path.join(self.folder, "modules")

    @property
    def tree(self) -> str:
        """The folder with the source."""
        return os.path.join(self.folder, "tree")

    def table(self) -> Table:
        """The blocks, and the cases known to have run them. Raises LabError."""
        try:
            (table,) = file.load(os.path.join(self.folder, _TABLE))
        except CoverageError as error:
            raise LabError(f"{self.folder} is damaged, remove it: {error}") from error
        return table

    def keep(self, table: Table) -> None:
        """Keep ``table`` in place of the one that is there. Raises LabError."""
        with cache.scratch(_KIND) as work:
            fresh = os.path.join(work, _TABLE)
            _write(table, fresh)
            os.replace(fresh, os.path.join(self.folder, _TABLE))
        os.utime(self.folder)


def instrumented(kernel: Kernel, tree: str = "", say: Callable[[str], None] = lambda line: None) -> Instrumented:
    """The modules of ``kernel``, of Debian's source or of the kernel tree ``tree``; built where they are not kept. Raises
    LabError.
    """
    built = modules(kernel, tree, say)

    def fill(folder: str) -> None:
        say("reading where the blocks of the modules are")
        os.mkdir(os.path.join(folder, "modules"))
        for name in (*_MODULES, RECORDER):
            stripped = os.path.join(folder, "modules", f"{name}.ko")
            _strip(os.path.join(built, f"{name}.ko"), stripped)
        shutil.copytree(os.path.join(built, "tree"), os.path.join(folder, "tree"))
        headers = kbuild.headers(kernel)
        roots = [*build.objects(), headers, str(build.common(headers))]
        try:
            found = [block for name in _MODULES for block in disassembly.read(os.path.join(built, f"{name}.ko"), roots)]
        except CoverageError as error:
            raise LabError(str(error)) from error
        if not found:
            raise LabError(f"the compiler put no call of the recorder into KVM's modules for {kernel.release}")
        source = f"{kernel.source}" + (f", KVM of {tree}" if tree else "")
        _write(Table(kernel.release, source, os.path.basename(built), found, []), os.path.join(folder, _TABLE))

    place = cache.folder(_KIND, f"{kernel.release}_{os.path.basename(built)}-{_RECIPE}", fill)
    os.utime(place)
    cache.trim(_KIND, _KEPT)
    return Instrumented(place)


def modules(
    kernel: Kernel,
    tree: str = "",
    say: Callable[[str], None] = lambda line: None,
    tick: Callable[[str], None] = lambda line: None,
) -> str:
    """The folder with the modules alone, with debug information, as `kvmtest.lab.build.build` gives it. Raises LabError."""
    with resources.as_file(resources.files("kvmtest.lab") / RECORDER) as recorder:
        also = (f"{RECORDER}/{RECORDER}",)
        return build.build(kernel, tree, edit=lambda kvm: _add(kvm, recorder), flags=_FLAGS, also=also, say=say, tick=tick)


def kept(release: str = "") -> list[Instrumented]:
    """All builds that are kept of kernels whose release begins with ``release``; the one that was used last is first."""
    parent = os.path.join(cache.home(), _KIND)
    names = [name for name in os.listdir(parent) if name.startswith(release) and name[0] != "."] if os.path.isdir(parent) else []
    places = [place for name in names if os.path.exists(os.path.join(place := os.path.join(parent, name), _TABLE))]
    return [Instrumented(place) for place in sorted(places, key=lambda place: -os.stat(place).st_mtime)]


def _write(table: Table, path: str) -> None:
    with gzip.open(path, "wt", compresslevel=4, encoding="utf-8") as out:
        file.write([table], out)


def _add(kvm: Path, recorder: Path) -> None:
    """Add the recorder to what is built in the folder ``kvm``."""
    shutil.copytree(recorder, kvm / RECORDER, ignore=shutil.ignore_patterns("__pycache__"))
    makefile = kvm / "Makefile"
    # The offsets are read from assembly that is never run.
    head = f"CFLAGS_REMOVE_kvm-asm-offsets.o := {_FLAG}\nobj-m += {RECORDER}/\n"
    makefile.write_text(head + makefile.read_text(encoding="utf-8"), encoding="utf-8")


def _strip(path: str, stripped: str) -> None:
    done = program.run(["strip", "--strip-debug", "-o", stripped, path], text=True, errors="replace")
    if done.returncode:
        raise LabError(f"strip: {done.stderr.strip()}")
