# SPDX-License-Identifier: GPL-2.0-only
"""Of which vCPUs something holds: one value, in which each vCPU's id is a bit."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from kvmtest.scenario import program as p
from kvmtest.uapi import kvm as uapi

__all__ = ("Several", "bits", "rests_on")



class Several(NamedTuple):
    """In the place of a Place: of each vCPU, by its id, the comparison that holds there or not.

    The event begins with the ops of step ``event``.
    """

    of: tuple[tuple[int, p.Compare], ...]
    event: int = 0


def bits(ids: Iterable[int]) -> int:
    """The value for the vCPUs of these ids."""
    return sum(1 << id for id in ids)


def rests_on(program: p.Program, event: int, idle: frozenset[int] = frozenset()) -> frozenset[int]:
    """The ops without which it cannot be said who gets a message: all from step ``event`` on, and what local APICs are before.

    Without those of ``idle``, which write what is there already.
    """
    found: set[int] = set()
    since: dict[str, int] = {}
    for at, (step, op) in enumerate(program.ops):
        if step >= event:
            found.add(at)
        elif isinstance(op, p.Ioctl) and isinstance(op.arg, str):
            if op.request >> 31:
                since[op.arg] = at
            elif puts := [one for one in range(since.get(op.arg, at), at) if one not in idle and _writes(program, one, op.arg)]:
                found |= {since[op.arg], at, *puts}
    return frozenset(found)


def _writes(program: p.Program, at: int, buffer: str) -> bool:
    """Return True if op ``at`` writes the id or mode of a local APIC into ``buffer``."""
    op, kind = program.ops[at][1], program.buffers[buffer].kind
    if not isinstance(op, p.Put) or op.place.buffer != buffer:
        return False
    return kind == "kvm_lapic_state" or kind == "kvm_sregs" and op.place.offset == uapi.kvm_sregs.apic_base.offset
