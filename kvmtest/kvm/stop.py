# SPDX-License-Identifier: GPL-2.0-only
"""A request to stop what is running."""

from __future__ import annotations

__all__ = ["RunStopped", "Stop"]


class Stop:
    """A request to stop: ``seen`` is set. ``running`` is whether there is something to stop."""

    def __init__(self) -> None:
        self.seen = self.running = False


class RunStopped(Exception):
    """KVM_RUN was not called again: a stop was requested."""
