# SPDX-License-Identifier: GPL-2.0-only
"""Errors that prevent a cell from running."""

from __future__ import annotations

__all__ = ("Cancelled", "LabError", "NotFound")


class LabError(RuntimeError):
    """Nothing can be tested in this lab; one line says why and what to do."""


class NotFound(LabError):
    """Something that the user named does not exist."""


class Cancelled(Exception):
    """A cell ended because of a signal."""
