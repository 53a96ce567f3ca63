# SPDX-License-Identifier: GPL-2.0-only
"""Judging whether KVM keeps a plant: the value that KVM_SET_* wrote is compared with what KVM_GET_* returns next."""

from __future__ import annotations

from typing import NamedTuple

from kvmtest.judge.cache import Cache
from kvmtest.judge.evidence import Basis
from kvmtest.judge.item import Context, excused
from kvmtest.model.host import Host
from kvmtest.model.record import Block, Record
from kvmtest.model.value import Expected, text
from kvmtest.model.verdict import Verdict
from kvmtest.scenario.looks import PLANT, Writing
from kvmtest.spec.emulators import wrong
from kvmtest.spec.kept import AS_WRITTEN, explained
from kvmtest.spec.untouched import COUNTERS
from kvmtest.state.sections import Snapshot
from kvmtest.x86.cpuid import FOLLOWS

__all__ = ("table",)

_PREFIX = ".".join(PLANT)
#: Sections that nothing is written to; of the MSRs only those that the plant names are.
_READ_ONLY, _NAMED = ("cpuid", "nested"), ("msrs",)
#: Cycles that the TSC can have counted since: minutes.
_RUN = 1 << 40
_LOST = "KVM accepted it and did not keep it"
_COUNTS, _UNWRITTEN = "it counts by itself", "the section is only read"
#: Of a KVM without a TSC offset, whose TSC since the boot comes by the planted value.
_STOOD = "before it was written it was as near to that value: this proves nothing"
_ID, _LDR, _X2APIC = "lapic.id", "lapic.ldr", "x2apic"


def table(cache: Cache, host: Host, basis: Basis, writing: Writing, seen: Snapshot) -> tuple[Block, ...]:
    """The blocks of one vCPU, as ``writing`` has left it and it was ``seen`` then."""
    one = _Vcpu(host, basis, writing)
    parts = cache.parts(basis.layout)
    blocks = []
    items = tuple(writing.items.items())
    for section, part in parts.by_section.items():
        data = None if seen.unreadable or section not in seen.sections else part.key(seen.sections[section])
        base = basis.baseline.sections.get(section) if basis.baseline else None
        key: tuple[object, ...] | None = None
        if data is not None:
            number, asked = cache.number(part.items), cache.asked(basis.plant, part.items)
            key = ("kept", number, asked, items, one.kind, base and part.key(base), data)
        found = cache.known(key) if key else None
        blocks.append(found or cache.block((one.judged(item, seen) for item in part.items), key))
        blocks += [cache.block((one.judged(item, seen),)) for item in part.own]
    if parts.rest:
        missing, rest = basis.layout.missing, parts.rest
        blocks.append(
            cache.same(
                ("unshown", id(basis.layout)), lambda: [_skipped(item, missing.get(item, "no ioctl shows it")) for item in rest]
            )
        )
    return tuple(blocks)


class _Vcpu(NamedTuple):
    """One vCPU, and the values written to it."""

    host: Host
    basis: Basis
    writing: Writing

    @property
    def ctx(self) -> Context:
        """The context of the rules."""
        return self.basis.ctx

    @property
    def kind(self) -> tuple[object, ...]:
        """All that a judgement depends on but the values."""
        return (self.ctx.vendor, self.ctx.is_bsp, self.writing.plant.apic_mode)

    def written(self, item: str) -> int | None:
        """The value that ``item`` was written with: what a plant does not name was written as it was at creation."""
        plant = self.basis.plant
        asked = self.writing.items.get(item, plant.asked.get(item) if plant else None)
        field = self.basis.layout.fields.get(item)
        if asked is not None or field is None or field.section in (*_READ_ONLY, *_NAMED) or self.basis.baseline is None:
            return asked
        return self.basis.baseline.get(self.basis.layout, item)

    def judged(self, item: str, seen: Snapshot) -> Record:
        """The record of ``item``."""
        layout, plant = self.basis.layout, self.basis.plant
        observed, expected = seen.get(layout, item), self.written(item)
        if plant is None:
            return _skipped(item, "the plant is not known")
        if observed is None:
            return Record(item, Verdict.ERROR, reason=seen.why(layout, item), cite=AS_WRITTEN)
        if item in plant.refused and item not in self.writing.items:
            return _skipped(item, plant.refused[item])
        if layout.fields[item].section in _READ_ONLY:
            return _skipped(item, layout.missing_sections.get(FOLLOWS.get(item, "")) or _UNWRITTEN)
        if expected is None:
            return _skipped(item, plant.reason(item))
        if item in COUNTERS:
            return self._counts(item, expected, observed)
        if item in (_ID, _LDR):
            return self._named(item, expected, observed)
        if observed == expected:
            return _passed(item, expected)
        if why := wrong(self.host.names, item):
            return _skipped(item, why)
        fact = explained(item, observed, self.host.backend, self.host.version, self.ctx.vendor, self.written)
        if fact:
            shown = f"{text(item, expected)} was written, but KVM_GET_* returned {text(item, observed)}: {fact.says}"
            return Record(item, Verdict.SKIP, None, None, observed, shown, AS_WRITTEN)
        return self._failed(item, expected, observed)

    def _counts(self, item: str, written: int, observed: int) -> Record:
        if item == "msr.tsc":
            baseline = self.basis.baseline.get(self.basis.layout, item) if self.basis.baseline else None
            if baseline is not None and abs(written - baseline) < _RUN:
                return _skipped(item, _STOOD)
            good = written <= observed < written + _RUN
        elif item == "lapic.timer_current":
            # It begins at the initial count.
            written = self.written("lapic.timer_initial") or 0
            good = observed <= written
        else:
            return _skipped(item, _COUNTS)
        # A counter's position is not compared, and would make each record unique.
        if good:
            return Record(item, Verdict.PASS, cite=AS_WRITTEN)
        return self._failed(item, written, observed, "TSC>=" if item == "msr.tsc" else "timer-on")

    def _named(self, item: str, written: int, observed: int) -> Record:
        """Judge what x2APIC mode derives from the id; KVM_SET_LAPIC accepts the ID in either form (KVM API, KVM_GET_LAPIC)."""
        id, mode = self.ctx.apic_id, self.writing.plant.apic_mode
        good: tuple[int, ...] = (written,)
        if mode == _X2APIC:
            good = ((id >> 4 << 16 | 1 << (id & 0xF)),) if item == _LDR else (id, id << 24 & 0xFFFFFFFF)
        return _passed(item, *good) if observed in good else self._failed(item, good[0], observed)

    def _failed(self, item: str, expected: int, observed: int, formula: str = "") -> Record:
        made = Record(item, Verdict.FAIL, None, Expected((expected,), formula=formula), observed, _LOST, AS_WRITTEN)
        target = "bsp" if self.ctx.is_bsp else "ap"
        return excused(made, f"{_PREFIX}.{item}", self.host, PLANT[0], self.ctx.vendor, target, PLANT[2], self.ctx.case)


def _passed(item: str, *expected: int) -> Record:
    return Record(item, Verdict.PASS, None, Expected(expected), expected[0], "", AS_WRITTEN)


def _skipped(item: str, why: str) -> Record:
    return Record(item, Verdict.SKIP, reason=why, cite=AS_WRITTEN)


