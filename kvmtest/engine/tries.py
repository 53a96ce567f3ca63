# SPDX-License-Identifier: GPL-2.0-only
"""A case that ran out of time, and what its second try says. Pure.

Where a limit is for what must come, its end says that this host was too busy, or that KVM lost something; a second try, alone,
tells the two apart. Where silence is what is observed (no exit of a vCPU that must execute nothing) nothing has run out.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple

from kvmtest.engine.judging import ResetSeen, Untried, judge_of
from kvmtest.engine.plan import Case
from kvmtest.engine.result import OUT_OF_TIME, Host, Result
from kvmtest.engine.verdicts import Basis, Evidence, Judge

__all__ = ("Again", "Settled", "judge_tries", "out_of_time", "untried")


class Again(NamedTuple):
    """What was ``seen`` at the second try, and what the ``first`` one lacked."""

    seen: Any
    first: str


def _by_time(error: BaseException | None) -> bool:
    """Whether ``error`` is that something did not come in time, or comes of such a one."""
    while error is not None and not isinstance(error, TimeoutError):
        error = error.__cause__
    return error is not None


def untried(error: Exception) -> Untried:
    """What stands in the place of evidence after ``error``."""
    late = _by_time(error)
    return Untried("error", f"{OUT_OF_TIME}: {error}" if late else str(error), late)


def out_of_time(seen: Any) -> bool:
    """Whether evidence lacks something that did not come in time."""
    if isinstance(seen, Untried):
        return seen.late
    reports = []
    if isinstance(seen, Evidence):
        reports = [seen.report]
    elif isinstance(seen, ResetSeen):
        reports = [seen.new, *(one.seen.report for one in seen.tries)]
    return any(report is not None and report.late for report in reports)


class Settled:
    """A judge that takes what was seen Again as well: what passes only then is no pass."""

    def __init__(self, judge: Judge) -> None:
        self._judge = judge

    def of(self, seen: Any) -> Collection[Result]:
        """The results; those that the second try alone makes pass are ``info``."""
        if not isinstance(seen, Again):
            return self._judge.of(seen)
        return [
            result._replace(verdict="info", reason=f"{result.reason}; {seen.first}" if result.reason else seen.first)
            if result.verdict == "pass"
            else result
            for result in self._judge.of(seen.seen)
        ]


def judge_tries(case: Case, host: Host, bases: tuple[Basis, ...]) -> Judge:
    """As judge_of(), of one try or two."""
    return Settled(judge_of(case, host, bases))
