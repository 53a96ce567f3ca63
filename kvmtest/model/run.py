# SPDX-License-Identifier: GPL-2.0-only
"""A run as a whole: the host under test, and all observations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from kvmtest.model.case import Case
from kvmtest.model.host import Host, Tool
from kvmtest.model.record import Block, Observation, Result
from kvmtest.model.shard import Shard
from kvmtest.model.verdict import Verdict

__all__ = ("Head", "Run", "counted")


class Head(NamedTuple):
    """The facts about a run that are known at its beginning. ``name`` distinguishes the run; ``started`` is UTC (RFC 3339).

    ``shard`` is the part of its cases that it ran, None where it ran all of them.
    """

    tool: Tool
    host: Host
    started: str
    name: str = ""
    shard: Shard | None = None


class Run(NamedTuple):
    """A run that is over, or was cut short.

    ``cases`` are those that began, in order. ``interrupted`` is None where the run did not say how it ended: it was cut short.
    """

    head: Head
    cases: tuple[Case, ...]
    observations: tuple[Observation, ...]
    duration_s: float = 0.0
    interrupted: bool | None = False

    @property
    def host(self) -> Host:
        """The KVM that was tested."""
        return self.head.host

    @property
    def name(self) -> str:
        """Its name."""
        return self.head.name

    @property
    def results(self) -> Iterator[Result]:
        """Every record in its place, in the order of the run."""
        return (result for seen in self.observations for result in seen.results)

    @property
    def totals(self) -> Counter[Verdict]:
        """Results by verdict."""
        return counted(self.observations)


def counted(observations: Iterable[Observation]) -> Counter[Verdict]:
    """The results of ``observations`` by verdict, block by block."""
    times: Counter[Block] = Counter()
    for seen in observations:
        times.update(seen.blocks)
    totals: Counter[Verdict] = Counter()
    for block, count in times.items():
        for verdict, number in block.counts.items():
            totals[verdict] += number * count
    return totals
