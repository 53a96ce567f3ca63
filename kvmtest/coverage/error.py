# SPDX-License-Identifier: GPL-2.0-only
"""The error of coverage that cannot be measured, or read."""

from __future__ import annotations

__all__ = ("CoverageError",)


class CoverageError(ValueError):
    """One line says why."""
