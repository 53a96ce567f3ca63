# SPDX-License-Identifier: GPL-2.0-only
"""Files to compare: a snapshot, or results, of several runs one as ``FILE#NAME``."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from kvmtest.compare import snapshot
from kvmtest.compare.snapshot import State
from kvmtest.model.run import Run
from kvmtest.results.saved import Loader, SavedError, read

__all__ = ("merged", "one_run", "runs", "state")


def state(path: str) -> State:
    """The snapshot in ``path``, which may be a pipe. Raises SavedError."""
    contents = read(path)
    if not snapshot.is_one(contents) and b"kvmtest.results/" in contents[:1000]:
        raise SavedError(f"{path} has results, not a snapshot: kvmtest report --baseline OLD NEW compares those")
    return snapshot.parse(path, contents)


def runs(path: str, note: Callable[[str], object] = lambda line: None, loader: Loader | None = None) -> list[Run]:
    """The runs in ``path``, or the one that is named after its #. ``loader`` shares what several files have in common.

    Raises SavedError.
    """
    file, sign, name = path.rpartition("#")
    # A name that has a # is a file's first.
    if not sign or not file or os.path.exists(path):
        file, name = path, ""
    contents = read(file)
    if snapshot.is_one(contents[:1000]):
        raise SavedError(f"{file} is a snapshot, not results: kvmtest diff compares two")
    found = (loader or Loader(note)).runs(file, contents)
    if not name:
        return found
    if named := [run for run in found if run.name == name]:
        return named
    raise SavedError(f"{file} has no run {name}: there is {', '.join(run.name for run in found)}")


def merged(found: Sequence[tuple[str, Run]], note: Callable[[str], object] = lambda line: None) -> list[tuple[str, Run]]:
    """Merge the shards of a run among ``found``, each with the file that it is from; ``note`` is called with missing parts."""
    if not any(run.head.shard for _, run in found):
        return list(found)
    from kvmtest.engine import plan
    from kvmtest.results import merge

    return merge.merged(found, {case.name: number for number, case in enumerate(plan.plan())}, note)


def one_run(path: str, note: Callable[[str], object] = lambda line: None) -> Run:
    """The one run in ``path``. Raises SavedError."""
    found = runs(path, note)
    if len(found) != 1:
        raise SavedError(f"{path} has {len(found)} runs: add #NAME, one of {', '.join(run.name for run in found)}")
    return found[0]
