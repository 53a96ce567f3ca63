# SPDX-License-Identifier: GPL-2.0-only
"""The behaviours whose failure means that an event is lost, or that a guest does not run: what a report shows first."""

from __future__ import annotations

__all__ = ("COUNTED", "lost")

_EVENTS = ("init", "sipi")
#: How many of many events do not come, come again, or come elsewhere.
COUNTED = frozenset(("lost", "doubled", "astray"))
#: Besides, what the vCPU executes next, which VM exit L1 gets, and that INIT is kept for later.
_LOST = COUNTED | {"runs", "exits", "pending"}


def lost(event: str, item: str) -> bool:
    """Whether another value than the expected one of the behaviour ``item`` says that ``event`` is lost."""
    return event in _EVENTS and item in _LOST
