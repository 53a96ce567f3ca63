# SPDX-License-Identifier: GPL-2.0-only
"""Names for runs that were read from files."""

from __future__ import annotations

import os
from collections.abc import Sequence

from kvmtest.model.run import Run

__all__ = ("names",)

_SUFFIXES = (".gz", ".jsonl", ".json")


def names(found: Sequence[tuple[str, Run]]) -> list[str]:
    """A name of its own for each run, found in the file of that path: as short as that allows, of one "" for none."""
    if len(found) == 1:
        return [""]
    folders = [os.path.dirname(path) for path, _ in found]
    try:
        shared = os.path.join(os.path.commonpath(folders), "")
    except ValueError:  # some absolute, some not
        shared = ""
    own = [_short(run.name, shared) if run.name == path else run.name for path, run in found]
    unique = [n if own.count(n) == 1 or run.name == path else f"{path} {n}" for n, (path, run) in zip(own, found, strict=True)]
    return [name if unique.count(name) == 1 else f"{name} ({unique[: i + 1].count(name)})" for i, name in enumerate(unique)]


def _short(path: str, folder: str) -> str:
    path = path.removeprefix(folder)
    for suffix in _SUFFIXES:
        path = path.removesuffix(suffix)
    return path
