# SPDX-License-Identifier: GPL-2.0-only
"""The kernel's checkpatch.pl, where one is."""

from __future__ import annotations

import os
import shutil
import tarfile
from pathlib import Path

import pytest

#: The files that checkpatch.pl needs.
_FILES = ("checkpatch.pl", "const_structs.checkpatch", "spelling.txt")


@pytest.fixture(scope="session")
def checkpatch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """checkpatch.pl of $CHECKPATCH, or of an unpacked tree below /usr/src; skips the test where there is none."""
    there = [Path(os.environ.get("CHECKPATCH", "/nonexistent")), *sorted(Path("/usr/src").glob("linux-*/scripts/checkpatch.pl"))]
    found = next((one for one in there if one.exists()), None)
    if not found or not shutil.which("perl"):
        pytest.skip("checkpatch.pl and perl are needed: CHECKPATCH=linux/scripts/checkpatch.pl")
    return found


@pytest.fixture(scope="session")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """checkpatch.pl out of Debian's package of the kernel's source; skips the test where that is not installed."""
    archives = sorted(Path("/usr/src").glob("linux-source-*.tar.xz"))
    if not archives or not shutil.which("perl"):
        pytest.skip("the kernel's source and perl are needed: apt-get install linux-source perl")
    into = tmp_path_factory.mktemp("scripts")
    with tarfile.open(archives[-1]) as archive:
        left = set(_FILES)
        for member in archive:
            folder, _, name = member.name.rpartition("/")
            if folder.endswith("/scripts") and folder.count("/") == 1 and name in left:
                archive.extract(member, into, filter="data")
                left.discard(name)
                if not left:
                    return into / member.name.rpartition("/")[0] / "checkpatch.pl"
    pytest.fail(f"{archives[-1]} has no checkpatch.pl")
