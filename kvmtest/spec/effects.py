# SPDX-License-Identifier: GPL-2.0-only
"""The behaviours whose failure means that an event is lost, or that a guest does not run: what a report shows first."""

from __future__ import annotations

__all__ = ("COUNTED", "lost")

_EVENTS = ("init", "sipi")
#: Counts of events that do not come, come again, or reach another vCPU.
COUNTED = frozenset(("lost", "doubled", "astray"))
#: Also the next instruction of the vCPU, the VM exit that L1 gets, and whether INIT stays pending.
_LOST = COUNTED | {"runs", "exits", "pending"}


def lost(event: str, item: str) -> bool:
    """Return True if a departure of the behaviour ``item`` means that ``event`` was lost."""
    return event in _EVENTS and item in _LOST
