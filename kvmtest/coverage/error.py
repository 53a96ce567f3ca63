# SPDX-License-Identifier: GPL-2.0-only
"""What keeps coverage from being measured, or read."""

from __future__ import annotations

__all__ = ("CoverageError",)


class CoverageError(ValueError):
    """One line says why."""
