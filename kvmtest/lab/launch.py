# SPDX-License-Identifier: GPL-2.0-only
"""Programs that die with this one, however that ends."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

__all__ = ("launched",)

#: PR_SET_PDEATHSIG with SIGKILL; then it becomes the program.
_LAUNCHER = """import ctypes, os, sys
ctypes.CDLL(None).prctl(1, 9)
if os.getppid() == int(sys.argv[1]):
    os.execvp(sys.argv[2], sys.argv[2:])
"""


def launched(command: Sequence[str]) -> list[str]:
    """The command that becomes ``command`` and dies with the thread that starts it."""
    return [sys.executable, "-ISc", _LAUNCHER, str(os.getpid()), *command]
