# SPDX-License-Identifier: GPL-2.0-only
"""Other programs that the lab runs for a moment: what goes wrong with one is a line that names it."""

from __future__ import annotations

import subprocess
from typing import Any

from kvmtest.lab.error import LabError

__all__ = ("run",)

#: Each takes seconds; on a machine that is busy with something else, minutes.
_LONGEST_S = 900


def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[Any]:
    """Run ``command`` with captured output and empty input; ``options`` are those of `subprocess.run`.

    Raises LabError if it does not start, or does not end.
    """
    try:
        if "input" not in options:
            options["stdin"] = subprocess.DEVNULL
        return subprocess.run(command, capture_output=True, timeout=_LONGEST_S, **options)
    except OSError as error:
        raise LabError(f"{command[0]} does not start: {error.strerror}") from error
    except subprocess.TimeoutExpired:
        raise LabError(f"{' '.join(command[:2])} did not end within {_LONGEST_S} s") from None
