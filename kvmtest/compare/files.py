# SPDX-License-Identifier: GPL-2.0-only
"""Files to compare: a snapshot, or results, of a matrix one cell as ``FILE#CELL``."""

from __future__ import annotations

import os

from kvmtest.compare import snapshot
from kvmtest.compare.snapshot import State
from kvmtest.report import saved
from kvmtest.report.saved import Saved, SavedError

__all__ = ("load", "one_run")


def load(path: str) -> State | list[Saved]:
    """What is in ``path``, which may be a pipe. Raises SavedError."""
    file, cell = _split(path)
    contents = saved.read(file)
    if snapshot.is_one(contents):
        if cell:
            raise SavedError(f"{file} is a snapshot, which has no cell {cell}")
        return snapshot.parse(file, contents)
    runs = saved.parse(file, contents, saved.runs)
    if not cell:
        return runs
    found = [run for run in runs if run.name == cell]
    if not found:
        have = ", ".join(run.name for run in runs)
        raise SavedError(f"{file} has no cell {cell}: there is {have}")
    return found


def one_run(path: str) -> Saved:
    """The one run in ``path``. Raises SavedError."""
    found = load(path)
    if isinstance(found, State):
        raise SavedError(f"{path} is a snapshot, not results")
    if len(found) != 1:
        have = f": add #CELL, one of {', '.join(run.name for run in found)}" if found else ""
        raise SavedError(f"{path} has {len(found)} runs{have}")
    return found[0]


def _split(path: str) -> tuple[str, str]:
    """File and cell. A name that has a # is a file's first."""
    file, sign, cell = path.rpartition("#")
    return (file, cell) if sign and file and not os.path.exists(path) else (path, "")
