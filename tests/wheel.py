# SPDX-License-Identifier: GPL-2.0-only
"""kvmtest as it is shipped: the source archive and the wheel, built as make dist does, with what is installed here."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

__all__ = ("ROOT", "built", "unpacked")

ROOT = Path(__file__).parents[1]
#: The modules that a build imports.
_NEEDED = ("hatchling", "argparse_manpage", "shtab")


def built(source: Path, target: str, folder: Path) -> Path:
    """Build the ``target``, sdist or wheel, of ``source`` into ``folder``; skips the test where that cannot be done."""
    if missing := [name for name in _NEEDED if not importlib.util.find_spec(name)]:
        pytest.skip(f"{', '.join(missing)} not installed (make docs dist)")
    before = set(folder.iterdir())
    command = [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(folder)]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (made,) = set(folder.iterdir()) - before
    return made


def unpacked(wheel: Path, folder: Path) -> Path:
    """Unpack ``wheel`` into ``folder``: the package as pip installs it, without what goes elsewhere."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder
