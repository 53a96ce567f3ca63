# SPDX-License-Identifier: GPL-2.0-only
"""Recorded cases that are judged again and again, with one thing of their evidence otherwise."""

from __future__ import annotations

from functools import cache, cached_property
from typing import Any

from kvmtest.judge.cache import Cache
from kvmtest.judge.cases import judge
from kvmtest.judge.evidence import Basis, Look, Played
from kvmtest.model.host import Host
from kvmtest.model.record import Record
from kvmtest.model.verdict import Verdict
from kvmtest.spec.untouched import COUNTERS
from kvmtest.state.layout import Layout
from kvmtest.state.sections import Snapshot
from tests.judge import recorded

__all__ = ("Place", "Trial", "flipped", "judged_bits", "replaced", "trials")

Place = tuple[str, str]  # event, trigger and view; item


class Trial:
    """A case that is judged again and again."""

    def __init__(self, cache: Cache, host: Host, look: Look, bases: tuple[Basis, ...], seen: Any) -> None:
        self.cache, self.host = cache, host
        self.look, self.bases, self.seen = look, bases, seen
        self.params = dict(look.case.params)
        self.prefix = f"{look.event}.{look.trigger}.{look.view}"

    def by_place(self, seen: Any) -> dict[Place, Record]:
        """The records of what was ``seen``."""
        observations = judge(self.cache, self.look, self.host, self.bases, seen)
        return {(one.prefix, record.item): record for one in observations for record in one.records}

    @cached_property
    def before(self) -> dict[Place, Record]:
        """The records of what was really seen."""
        return self.by_place(self.seen)

    def changed(self, seen: Any) -> dict[Place, Record]:
        """The records that are other than those of what was really seen."""
        now = self.by_place(seen)
        assert self.before.keys() == now.keys()
        return {place: record for place, record in now.items() if record != self.before[place]}

    def of_view(self, view: str = "") -> dict[str, Record]:
        """The records in one view, by default the case's own."""
        prefix = f"{self.look.event}.{self.look.trigger}.{view or self.look.view}"
        return {item: record for (where, item), record in self.before.items() if where == prefix}

    def at(self, kind: type) -> list[int]:
        """Return the indexes of the results of the last step of this ``kind``, one for each vCPU; none if it has no result."""
        evidence = self.seen.evidence
        last = max((number for number, step in enumerate(self.look.scenario.steps) if isinstance(step, kind)), default=-1)
        return [at for at, (number, _) in enumerate(evidence) if number == last]


@cache
def trials(name: str) -> tuple[Trial, ...]:
    host, cases = recorded.read(name)
    cache = Cache()
    return tuple(Trial(cache, host, *case) for case in cases)


def flipped(layout: Layout, snapshot: Snapshot, item: str, bit: int) -> Snapshot:
    """``snapshot`` with one bit of ``item`` otherwise."""
    field = layout.fields[item]
    contents = bytearray(snapshot.sections[field.section])
    contents[field.offset + bit // 8] ^= 1 << bit % 8
    return snapshot._replace(sections=snapshot.sections | {field.section: bytes(contents)})


def replaced(seen: Played, at: int, value: Any) -> Played:
    """``seen`` with another ``value`` in the place ``at``."""
    return seen._replace(evidence=(*seen.evidence[:at], (seen.evidence[at][0], value), *seen.evidence[at + 1 :]))


def judged_bits(record: Record, size: int) -> list[int]:
    """The bits of which each one decides."""
    expected = record.expected
    if record.verdict is not Verdict.PASS or expected is None or len(expected.values) != 1 or record.item in COUNTERS:
        return []
    mask = (1 << 8 * size) - 1 if expected.mask is None else expected.mask
    return [bit for bit in range(8 * size) if mask >> bit & 1]
