# SPDX-License-Identifier: GPL-2.0-only
"""The behaviours whose failure means that an event is lost, or that a guest does not run: what a report shows first."""

from __future__ import annotations

__all__ = ("lost",)

_EVENTS = ("init", "sipi")
#: What the vCPU executes next, which VM exit L1 gets, that INIT is kept for later, and that of many events each comes
#: once, and where it was sent to.
_LOST = frozenset(("runs", "exits", "pending", "lost", "doubled", "astray"))


def lost(event: str, item: str) -> bool:
    """Whether another value than the expected one of the behaviour ``item`` says that ``event`` is lost."""
    return event in _EVENTS and item in _LOST
