# SPDX-License-Identifier: GPL-2.0-only
"""What a trigger raises when it knows that the event did not happen."""

from __future__ import annotations

__all__ = ("TriggerError",)


class TriggerError(RuntimeError):
    """The event was not delivered."""
