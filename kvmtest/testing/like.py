# SPDX-License-Identifier: GPL-2.0-only
"""Compare a vCPU with another one, or with its earlier state: also items that the manuals leave undefined."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase

from kvmtest.model.case import Case
from kvmtest.model.record import Block, Observation, Record
from kvmtest.model.value import Expected
from kvmtest.model.verdict import Verdict
from kvmtest.spec.cite import KVM_API
from kvmtest.spec.migrated import AS_SAVED, COUNTED, rule

from .state import State

__all__ = ["compared"]

_AS_OTHER = ("a vCPU that is used again holds nothing of its last use", KVM_API)
#: Items that depend on the vCPU's own id.
_OF_ID = ("lapic.id", "lapic.ldr", "cpuid.1.ebx", "cpuid.b*", "cpuid.1f*", "cpuid.8000001e.eax", "msr.hv_vp_index")
_BSP = 1 << 8


def compared(state: State, other: State, ignore: Iterable[str], *, itself: bool) -> Observation:
    """Compare each item of ``state`` with that of ``other``, which is the same vCPU earlier if ``itself``."""
    items = list(dict.fromkeys((*other.layout.fields, *state.layout.fields)))
    globs = tuple(ignore)
    for glob in globs:
        if not any(fnmatchcase(item, glob) for item in items):
            raise ValueError(f"ignore: no item matches {glob!r}; kvmtest spec shows them all")
    left = [item for item in items if not any(fnmatchcase(item, glob) for glob in globs)]
    records = tuple(_one(item, state, other, itself) for item in left)
    return Observation(Case("none.external/compared", ()), "none", "external", "host", (Block(records),))


def _one(item: str, state: State, other: State, itself: bool) -> Record:
    cite, now, then = AS_SAVED if itself else _AS_OTHER, state.value(item), other.value(item)
    planted = then if itself else None
    if now is None or then is None:
        lacking = state if now is None else other
        return Record(item, Verdict.SKIP, planted, None, now, lacking.absent.get(item, "no ioctl shows it"), cite)
    if item == "msr.tsc" and itself:
        verdict = Verdict.PASS if now >= then else Verdict.FAIL
        return Record(item, verdict, planted, Expected((then,)), now, "" if now >= then else "must not go back", cite)
    ours = state.apic_id != other.apic_id
    if ours and any(fnmatchcase(item, glob) for glob in _OF_ID):
        return Record(item, Verdict.SKIP, planted, None, now, "follows from the vCPU's id", cite)
    if item in COUNTED or rule(item).kind == "undefined":
        return Record(item, Verdict.INFO, planted, None, now, rule(item).note or "it counts by itself", cite)
    mask = ~_BSP & (1 << 64) - 1 if ours and item in ("apic_base", "msr.apic_base") else None
    same = now == then if mask is None else not (now ^ then) & mask
    return Record(item, Verdict.PASS if same else Verdict.FAIL, planted, Expected((then,), mask), now, "", cite)
