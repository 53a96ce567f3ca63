# SPDX-License-Identifier: GPL-2.0-only
"""Requirements on a reproducer, and the sources that it is made from."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from kvmtest.state.layout import Layout
from kvmtest.state.sections import Snapshot
from kvmtest.state.snapshot import Buffer as Read

__all__ = ("Source", "Together", "Wanted", "Witness")


class Witness(NamedTuple):
    """An item that shows that the event happened: it holds ``after`` then, and another value before."""

    item: str
    after: int


class Together(NamedTuple):
    """Expectation of the vCPUs ``of``, in the order of observation: those that satisfy it are one of the sets ``either``.

    ``event`` is the step with which the event begins.
    """

    of: tuple[int, ...]
    either: tuple[tuple[int, ...], ...]
    event: int


class Wanted(NamedTuple):
    """Requirements on a reproducer: run up to ``step``, and check these items of the host's table there.

    ``items`` is empty if the step itself is the expectation; each item has its values and the mask, None for all bits.
    ``planted`` are items with their values before the event, if these are part of what is expected; ``witness`` is that of the
    event, if there is one. ``guest`` is set if the reporting guest reads the one item, or without one has to begin. ``together``
    is the expectation of several vCPUs.
    """

    step: int
    items: tuple[tuple[str, tuple[int, ...], int | None], ...] = ()
    planted: tuple[tuple[str, int], ...] = ()
    witness: Witness | None = None
    guest: bool = False
    together: Together | None = None


class Source(Protocol):
    """A vCPU of the machine that a program was bound to."""

    layout: Layout
    baseline: Snapshot
    #: The ioctls that read it whole, in order, with their buffers as they are at first.
    reads: list[Read]
