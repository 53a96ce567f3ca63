# SPDX-License-Identifier: GPL-2.0-only
"""The error of a trigger that knows that its event did not happen."""

from __future__ import annotations

__all__ = ("TriggerError",)


class TriggerError(RuntimeError):
    """The event was not delivered."""
