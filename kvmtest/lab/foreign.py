# SPDX-License-Identifier: GPL-2.0-only
"""Programs of another suite, unpacked and not installed: each runs by the loader and the libraries of its suite."""

from __future__ import annotations

import os

from kvmtest.lab.error import LabError

__all__ = ("loader",)

_LOADER = "ld-linux-x86-64.so.2"


def loader(folder: str) -> list[str]:
    """Return the words to put before a program so that it runs with the libraries below ``folder``. Raises LabError."""
    found, libraries = [], []
    for where, folders, names in os.walk(folder):
        folders.sort()
        if _LOADER in names and os.path.basename(where) != "lib64":
            found.append(os.path.join(where, _LOADER))
        if any(".so." in name for name in names):
            libraries.append(where)
    if not found:
        raise LabError(f"no {_LOADER} among the libraries of this suite")
    return [found[0], "--library-path", ":".join(libraries)]
