# SPDX-License-Identifier: GPL-2.0-only
"""The link between a run and its reports: gathers observations, and computes the findings at the end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kvmtest.model.case import Case
from kvmtest.model.record import Observation
from kvmtest.model.run import Head, Run, counted
from kvmtest.report import End, Writer

if TYPE_CHECKING:
    from kvmtest.judge.waivers import Waivers

__all__ = ("Gatherer", "Unwritten", "play")


class Gatherer:
    """Passes a run on to ``writer``, and keeps it. What is in the user's own list is ``known``."""

    def __init__(self, writer: Writer, known: Waivers | None = None) -> None:
        self._writer = writer
        self._known = known
        self._cases: list[Case] = []
        self._seen: list[Observation] = []

    def begin(self, head: Head, cases: int) -> None:
        """A run begins; ``cases`` is how many will run."""
        self._head = head
        self._cases.clear()
        self._seen.clear()
        self._writer.begin(head, cases)

    def case(self, case: Case) -> None:
        """A case begins."""
        self._cases.append(case)
        self._writer.case(case)

    def observed(self, seen: Sequence[Observation]) -> None:
        """Add the observations of a case."""
        if self._known:
            seen = self._known.apply(seen)
        self._seen.extend(seen)
        self._writer.observed(seen)

    def end(self, duration_s: float, interrupted: bool | None = False) -> Run:
        """The run is over; all of it."""
        from kvmtest.judge.findings import findings

        seen = tuple(self._seen)
        self._writer.end(End(duration_s, interrupted, counted(seen), findings(seen)))
        return Run(self._head, tuple(dict.fromkeys(self._cases)), seen, duration_s, interrupted)


def play(run: Run, to: Gatherer) -> Run:
    """Show a saved ``run`` to ``to`` as if it went on now; the run as it is reported."""
    to.begin(run.head, len(run.cases))
    idle = dict.fromkeys(run.cases)
    for group in _together(run.observations):
        case = group[0].case
        if case is not None:
            idle.pop(case, None)
            to.case(case)
        to.observed(group)
    for case in idle:
        to.case(case)
    return to.end(run.duration_s, run.interrupted)


def _together(observations: Sequence[Observation]) -> list[list[Observation]]:
    """The observations of each run of a case: the last one of them has its seconds."""
    groups: list[list[Observation]] = []
    for seen in observations:
        last = groups[-1][-1] if groups else None
        if last is not None and seen.case is not None and last.case == seen.case and last.seconds is None:
            groups[-1].append(seen)
        else:
            groups.append([seen])
    return groups


class Unwritten:
    """A writer to nowhere, of runs that are reported when all are over."""

    def begin(self, head: Head, cases: int) -> None:
        """Nothing."""

    def case(self, case: Case) -> None:
        """Nothing."""

    def observed(self, seen: Sequence[Observation]) -> None:
        """Nothing."""

    def end(self, end: End) -> None:
        """Nothing."""
