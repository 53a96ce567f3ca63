# SPDX-License-Identifier: GPL-2.0-only
"""Conditions of scenarios: what a vCPU does next, what its state or the guest's memory holds, what KVM returned."""

from __future__ import annotations

from typing import NamedTuple

__all__ = (
    "Answer",
    "Changed",
    "Condition",
    "Differs",
    "Exit",
    "Fails",
    "Filled",
    "Holds",
    "In",
    "Is",
    "Mmio",
    "Moves",
    "Past",
    "Quiet",
    "Reached",
    "Same",
    "Who",
    "Word",
    "Words",
    "Written",
    "Zero",
)

Who = str | int

# The first seven are what a vCPU does next: it runs for them, or is joined where it runs on a thread.


class Word(NamedTuple):
    """The guest's next word: an OUT to its PORT_``name``, with ``value``, if given, in the bits of ``mask``.

    ``says`` is what it means, where the guest's words have not one meaning (`kvmtest.scenario.memory`); of one of several Words
    what its value means, with {} in its place. ``past`` are words that may come before it.
    """

    name: str
    value: int | None = None
    says: str = ""
    past: tuple[str, ...] = ()
    mask: int = (1 << 32) - 1


class Words(NamedTuple):
    """The guest's next ``words``, one after the other."""

    words: tuple[Word, ...]


class Exit(NamedTuple):
    """An exit with this ``reason``, KVM_EXIT_*."""

    reason: int
    says: str = ""


class In(NamedTuple):
    """The guest reads a port, that of PORT_``name``."""

    name: str


class Mmio(NamedTuple):
    """The guest reads memory of a device at the address that is its ``name``."""

    name: str


class Quiet(NamedTuple):
    """The vCPU makes no exit."""

    says: str = "executes nothing"


class Fails(NamedTuple):
    """KVM_RUN ends with ``error``, an errno."""

    error: int


class Is(NamedTuple):
    """``item`` reads as ``value`` in the bits of ``mask``."""

    item: str
    value: int
    mask: int = -1


class Reached(NamedTuple):
    """Of the vCPUs ``of`` it is those of ``ids`` whose ``item`` reads as ``value`` in the bits of ``mask``; for Expect.

    With ``one`` it is any one of ``ids``, and no other.
    """

    item: str
    value: int
    ids: tuple[int, ...]
    of: tuple[int, ...]
    mask: int = -1
    one: bool = False


class Differs(NamedTuple):
    """``item`` reads as another value than ``value``; for Until and Require."""

    item: str
    value: int


class Holds(NamedTuple):
    """The guest's 32-bit ``word`` in memory has this ``value``."""

    word: str
    value: int


class Filled(NamedTuple):
    """Guest memory at ``gpa`` is ``data``."""

    gpa: int
    data: bytes


class Changed(NamedTuple):
    """The 32 bits of guest memory at ``gpa`` are not ``value``; for Until and Require."""

    gpa: int
    value: int = 0


class Moves(NamedTuple):
    """The guest's 32-bit ``word`` in memory changes."""

    word: str


class Same(NamedTuple):
    """All that the host's ioctls show is as last observed, except counters and ``but``."""

    but: tuple[str, ...] = ()


class Written(NamedTuple):
    """A condition for Expect: what a Plant of ``section`` alone asked for is there, and all else is as last observed.

    Counters are excepted, and what follows from that section (`kvmtest.spec.alone`).
    """

    section: str


class Zero(NamedTuple):
    """Each of ``items`` that this host can read is 0; each has a record of its own."""

    items: tuple[str, ...]


class Past(NamedTuple):
    """``item`` is at least ``least`` and less than ``most`` above the value that the last Count wrote; for Expect.

    With ``of`` it is that far past its value on another vCPU. What it is past counts on meanwhile.
    """

    item: str
    least: int
    most: int
    of: Who | None = None


class Answer(NamedTuple):
    """KVM's return value of the last Call that keeps it: 0 or more, or an errno as a negative number."""

    value: int


Condition = (
    Word
    | Words
    | Exit
    | In
    | Mmio
    | Quiet
    | Fails
    | Is
    | Reached
    | Differs
    | Holds
    | Filled
    | Changed
    | Moves
    | Same
    | Zero
    | Written
    | Past
    | Answer
)
