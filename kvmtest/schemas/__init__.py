# SPDX-License-Identifier: GPL-2.0-only
"""JSON schemas (draft 2020-12) of what kvmtest writes: coverage, results (whole or by lines), scenarios, snapshots, rules."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

__all__ = ("NAMES", "load")

NAMES = ("coverage", "results", "scenario", "snapshot", "spec")


def load(name: str) -> dict[str, Any]:
    """The schema ``name``, one of NAMES."""
    found: dict[str, Any] = json.loads(resources.files(__name__).joinpath(f"{name}.schema.json").read_text("utf-8"))
    return found
