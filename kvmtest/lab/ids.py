# SPDX-License-Identifier: GPL-2.0-only
"""Results that only the lab has: the kernel's log, and how the guest died."""

from __future__ import annotations

from kvmtest.judge.item import excused
from kvmtest.lab import klog
from kvmtest.model.case import Case
from kvmtest.model.host import Host
from kvmtest.model.record import Block, Observation, Record
from kvmtest.model.select import parse
from kvmtest.model.verdict import Verdict
from kvmtest.spec.logged import ID

__all__ = ("ID", "LAB", "of_death", "of_incident", "of_kernel", "wanted")

#: Item -> what it is, and how it comes to be.
LAB = {
    "log": (
        "what the kernel under test logs while the cases run: WARN, BUG, Oops, KASAN and UBSAN reports, a panic",
        "fail, or known, for each report, with its lines and the case that ran; one pass where there was none",
    ),
    "boot": (
        "the kernel under test came up, loaded KVM, and found /dev/kvm",
        "error where it did not, with the end of its log and of its console; otherwise there is no such result",
    ),
    "run": (
        "the kernel under test lived to the end of the run",
        "error where it did not, with the case it died in and how many were left; known where a deviation says why, "
        "and no other case was left; otherwise there is no such result",
    ),
}
_CITE = ("a kernel has nothing to warn of while it is used by its documented interface",)


def of_kernel(item: str, verdict: Verdict, reason: str, case: Case | None = None) -> Observation:
    """The observation of an item of `LAB`, while ``case`` ran."""
    return _observation(Record(item, verdict, reason=reason, cite=_CITE if item == "log" else ()), case)


def of_incident(incident: list[str], host: Host, case: Case | None, where: str = "") -> Observation:
    """The observation of an incident in the log; outside of a case ``where`` says when it was."""
    # Of a stall nobody knows whose fault it is: this machine's, that of its emulator, or KVM's.
    verdict = Verdict.INFO if klog.is_stall(incident[0]) else Verdict.FAIL
    record = Record("log", verdict, reason=where + "\n".join(incident), cite=_CITE)
    return _observation(_excused(record, incident, host, case), case)


def of_death(reason: str, incident: list[str], host: Host, case: Case | None) -> Observation:
    """The observation of a kernel that did not live to the end of the run; ``incident`` is why, if the log says that."""
    record = _excused(Record("run", Verdict.FAIL, reason=reason), incident, host, case)
    return _observation(record if record.deviation else record._replace(verdict=Verdict.ERROR), case)


def _excused(record: Record, incident: list[str], host: Host, case: Case | None) -> Record:
    """``record``, ``known`` where ``incident`` is a listed deviation of this kernel in ``case``."""
    seen = record._replace(observed=klog.place(incident) or None)
    return excused(seen, ID + record.item, host, "none", "", "", "kernel", case.name if case else "")._replace(observed=None)


def _observation(record: Record, case: Case | None) -> Observation:
    return Observation(case, "none", "lab", "kernel", (Block((record,)),))


def wanted(selectors: tuple[str, ...]) -> list[str]:
    """The ids that one of ``selectors`` matches, as an id or a bare item; none if there are no selectors."""
    asked = [one for selector in selectors for one in parse(selector) if not one.case]
    return [ID + item for item in LAB if any(one.id_matches(ID + item) for one in asked)]
