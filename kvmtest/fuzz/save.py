# SPDX-License-Identifier: GPL-2.0-only
"""Findings as files. Each is written whole or not at all, even if the host dies right afterwards."""

from __future__ import annotations

import json
import os
import re
from typing import Any

from kvmtest.scenario import file
from kvmtest.scenario.step import Scenario

__all__ = ("begins", "name_of", "write")


def name_of(scenario: Scenario, keys: tuple[tuple[str, ...], ...], again: bool) -> str:
    """The name of the file of a finding: what departs, and which scenario shows it."""
    once = "" if again else "once-"
    return re.sub(r"[^\w.-]", "-", f"{once}{begins(keys[0])}{scenario.sequence}.json")


def begins(key: tuple[str, ...]) -> str:
    """Return the beginning of the name of a file with this ``key``."""
    event, item, *_ = key
    return f"{event}-{item or 'error'}-"


def write(path: str, scenario: Scenario) -> None:
    """Write ``scenario`` to ``path``. Raises OSError."""
    data: dict[str, Any] = file.dump(scenario)
    made = f"{path}.{os.getpid()}"
    with open(made, "w", encoding="utf-8") as out:
        json.dump(data, out, indent=1)
        out.write("\n")
        out.flush()
        os.fsync(out.fileno())
    os.replace(made, path)
    folder = os.open(os.path.dirname(path) or ".", os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
