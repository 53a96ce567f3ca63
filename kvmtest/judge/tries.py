# SPDX-License-Identifier: GPL-2.0-only
"""A case that ran out of time, or could not run for what was done before, and what its second try says.

Where a limit is for what must come, its end says that this host was too busy, or that KVM lost something; a second try, alone,
distinguishes the two. Where silence is what is observed (no exit of a vCPU that must execute nothing) nothing has run out.
"""

from __future__ import annotations

from typing import Any

from kvmtest.judge.evidence import Evidence, Played, ResetSeen, Untried
from kvmtest.model.host import Host
from kvmtest.model.record import OUT_OF_TIME, Record
from kvmtest.model.verdict import Verdict
from kvmtest.spec.emulators import past_event
from kvmtest.state.guest_view import Report

__all__ = ("lacks", "out_of_time", "second", "untried")


def _by_time(error: BaseException | None) -> bool:
    """Return True if ``error`` is a time-out, or was caused by one."""
    while error is not None and not isinstance(error, TimeoutError):
        error = error.__cause__
    return error is not None


def untried(error: Exception) -> Untried:
    """Return what replaces evidence after ``error``."""
    late = _by_time(error)
    return Untried("error", f"{OUT_OF_TIME}: {error}" if late else str(error), late)


def out_of_time(seen: Any) -> bool:
    """Return True if evidence lacks something that did not come in time."""
    if isinstance(seen, Untried):
        return seen.late
    if isinstance(seen, Played):
        return bool(seen.end and seen.end.late) or any(isinstance(one, Report) and one.late for _, one in seen.evidence)
    reports = []
    if isinstance(seen, Evidence):
        reports = [seen.report]
    elif isinstance(seen, ResetSeen):
        # A vCPU that was not written back as a whole need not run: the refusal says why, and no time would help.
        whole = (one for one in seen.tries if all(item.startswith("msr.") for item in one.refused))
        reports = [seen.new, *(one.seen.report for one in whole)]
    return any(report is not None and report.late for report in reports)


def lacks(seen: Any, host: Host, timeout_s: float) -> str:
    """Return what a try lacked that another one, alone and on a new VM, may have; "" if nothing."""
    if out_of_time(seen):
        return f"no exit within {timeout_s:g} s"
    end = seen.end if isinstance(seen, Played) else None
    why = end.why if end else seen.reason if isinstance(seen, Untried) else ""
    return past_event(host.names, host.backend, host.version, why)


def second(record: Record, first: str) -> Record:
    """The ``record`` of a second try, after a ``first`` one that lacked something: what passes only then is not a pass."""
    if record.verdict is not Verdict.PASS:
        return record
    return record._replace(verdict=Verdict.INFO, reason=f"{record.reason}; {first}" if record.reason else first)
