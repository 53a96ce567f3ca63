# SPDX-License-Identifier: GPL-2.0-only
"""The blocks of a module's file, by objdump."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable

from kvmtest.coverage.blocks import Block, blocks
from kvmtest.coverage.error import CoverageError

__all__ = ("read",)

_COMMAND = ("objdump", "-drwl", "--inlines", "--no-show-raw-insn")
#: Sections that are executed once, when a module is loaded or unloaded.
_ONCE = re.compile(r"\.(?:init|exit)\b")


def read(path: str, roots: Iterable[str] = ()) -> list[Block]:
    """The blocks of the module at ``path``, except those that only run when it is loaded or unloaded; none without recorder
    calls.

    ``roots`` are as of `blocks`. Raises CoverageError.
    """
    environment = os.environ | {"LC_ALL": "C"}
    try:
        done = subprocess.run([*_COMMAND, path], capture_output=True, text=True, errors="replace", env=environment)
    except FileNotFoundError:
        raise CoverageError("objdump is missing: apt-get install binutils") from None
    if done.returncode:
        raise CoverageError(f"objdump: {done.stderr.strip()}")
    name = os.path.basename(path).removesuffix(".ko").replace("-", "_")
    return [block for block in blocks(name, done.stdout.splitlines(), roots) if not _ONCE.match(block.section)]
