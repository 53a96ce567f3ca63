# SPDX-License-Identifier: GPL-2.0-only
"""What keeps a cell from being run at all."""

from __future__ import annotations

__all__ = ("Cancelled", "LabError", "NotFound")


class LabError(RuntimeError):
    """Nothing can be tested in this lab; one line says why and what to do."""


class NotFound(LabError):
    """What the user named is not there."""


class Cancelled(Exception):
    """A cell ended because of a signal."""
