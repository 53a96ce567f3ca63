# SPDX-License-Identifier: GPL-2.0-only
"""The wish that what goes on should end."""

from __future__ import annotations

__all__ = ["RunStopped", "Stop"]


class Stop:
    """Whether things are to end, once ``seen`` is set. ``running`` is for who sets it: whether there is something to end."""

    def __init__(self) -> None:
        self.seen = self.running = False


class RunStopped(Exception):
    """KVM_RUN was not gone on with, because things are to end."""
