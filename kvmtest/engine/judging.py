# SPDX-License-Identifier: GPL-2.0-only
"""The judge of each kind of case. Pure: what they need is in the evidence, wherever that was gathered.

A case on one vCPU is judged by Verdicts; here are those that see more than one vCPU, or one more than once, and what is said of
a case that could not be tried.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from kvmtest import spec
from kvmtest.checks import CHECKS
from kvmtest.engine import guest
from kvmtest.engine.judge import BOTH_VIEWS, excused, judge
from kvmtest.engine.plan import BROADCAST, Case, items, views
from kvmtest.engine.result import Host, Result
from kvmtest.engine.verdicts import Basis, Evidence, Judge, Verdicts
from kvmtest.engine.worst import Worst
from kvmtest.spec.cite import KVM_API
from kvmtest.spec.rule import Rule, cited, formula, undefined
from kvmtest.spec.untouched import COUNTERS
from kvmtest.state.layout import Layout
from kvmtest.state.snapshot import Snapshot
from kvmtest.x86.cpuid import FOLLOWS

__all__ = ("BroadcastJudge", "BroadcastSeen", "ResetJudge", "ResetSeen", "ResetTry", "Untried", "differences", "judge_of")


class Untried(NamedTuple):
    """In the place of evidence: every item of the case gets this ``verdict``, ``skip`` or ``error``.

    ``late`` is whether something did not come in time.
    """

    verdict: str
    reason: str
    late: bool = False


#: What comparing a vCPU that was reset with a new one rests on.
_AS_NEW = ("a vCPU that was reset is as a new one", KVM_API)


class _UntriedJudge:
    """The results of a case that could not be run to its end."""

    def __init__(self, case: Case, host: Host) -> None:
        self._case = case
        self._host = host

    def of(self, seen: Untried) -> list[Result]:
        """One result for each item in each view."""
        found = []
        for case in views(self._case):
            prefix, name = case.prefix, case.name
            for item in items(case):
                where = (f"{prefix}.{item}", case.event, case.trigger, case.view, item, name)
                found.append(Result(*where, None, None, None, seen.verdict, seen.reason, self._cite(case, item), None))
        return found

    def _cite(self, case: Case, item: str) -> tuple[str, ...]:
        if case.check:
            return CHECKS[f"{case.prefix}.{item}"].cite
        if case.view == "views":
            return (BOTH_VIEWS,)
        if item in BROADCAST:
            return BROADCAST[item]
        if case.trigger == "vmm-reset":
            return _AS_NEW
        return spec.rule_for(item, case.event, case.setup.vendor or "intel", self._host.backend).cite


class BroadcastSeen(NamedTuple):
    """What a broadcast showed: the ``sender`` before and after it wrote ``icr`` (bits 31:0), and each target."""

    icr: int
    sender: Evidence
    targets: tuple[Evidence, ...]


#: Their rules name the vCPU's id: judged for each vCPU, whether or not the bytes are those of the last one.
_BY_ID = ("lapic.id", "lapic.ldr")
#: Where the sender has to have changed; the ICR reads as written, but for Delivery Status.
_BY_SENDING = frozenset(("rip", "lapic.icr", "lapic.icr2", "msr.hv_icr"))
#: The x87 pointers: AMD CPUs save and restore them only with an exception pending (APM vol. 5, FXSAVE), QEMU's TCG never.
_BY_RUNNING = frozenset(("fop", "fip", "fdp"))
_DELIVERY_STATUS = 1 << 12
_UNTOUCHED = "unchanged"


def differences(layout: Layout, before: Snapshot, after: Snapshot) -> list[str]:
    """The items whose values differ, without those that count on by themselves."""
    found = []
    for section, names in layout.by_section.items():
        if before.sections.get(section) != after.sections.get(section):
            found += [item for item in names if before.get(layout, item) != after.get(layout, item)]
    return [item for item in found if item not in COUNTERS]


class BroadcastJudge:
    """The worst result of each item over all targets, and what the sender says. ``bases`` are the sender's, then the targets'."""

    def __init__(self, case: Case, bases: tuple[Basis, ...]) -> None:
        self._case = case
        self._layout = bases[0].layout
        self._targets = bases[1:]
        # The BSP is judged by other rules.
        self._verdicts: dict[bool, Verdicts] = {}
        for basis in self._targets:
            if basis.ctx.is_bsp not in self._verdicts:
                self._verdicts[basis.ctx.is_bsp] = Verdicts(case, basis)

    def of(self, seen: BroadcastSeen) -> list[Result]:
        """The results, in the order of the project's tables."""
        worst, last = Worst("vcpus"), None
        for basis, target in zip(self._targets, seen.targets, strict=True):
            verdicts = self._verdicts[basis.ctx.is_bsp]
            verdicts.ctx, verdicts.baseline = basis.ctx, basis.baseline
            assert target.after
            verdicts.update(target.before, target.after, _BY_ID)
            # What was judged last may have been by the other rules.
            again = verdicts.judged if last is verdicts else verdicts.results
            worst.add(basis.ctx.apic_id, verdicts.results, again)
            last = verdicts
        everyone = f"{len(seen.targets)} of {len(seen.targets)}"
        return [
            self._behaviour("reached", everyone, everyone),
            self._sender(seen),
            *worst.results(),
        ]

    def _sender(self, seen: BroadcastSeen) -> Result:
        before, after = seen.sender.before, seen.sender.after
        assert before and after
        for section in self._layout.by_section:
            if why := before.lost(self._layout, section) or after.lost(self._layout, section):
                return self._behaviour("sender-untouched", _UNTOUCHED, None, why)
        return self._behaviour("sender-untouched", _UNTOUCHED, ", ".join(self._changed(seen)) or _UNTOUCHED)

    def _changed(self, seen: BroadcastSeen) -> list[str]:
        """What of the sender is not as it was, or not as sending leaves it."""
        before, after = seen.sender.before, seen.sender.after
        assert before and after
        found = [item for item in differences(self._layout, before, after) if item not in _BY_SENDING | _BY_RUNNING]
        for item, value in {"lapic.icr": seen.icr, "lapic.icr2": 0}.items():
            read = after.get(self._layout, item)
            if read is None or (read & ~_DELIVERY_STATUS) != value:
                found.append(item)
        return found

    def _behaviour(self, name: str, expected: str, observed: str | None, lost: str = "") -> Result:
        case = self._case
        where = (f"{case.prefix}.{name}", case.event, case.trigger, case.view, name, case.name)
        verdict = "error" if lost else "pass" if observed == expected else "fail"
        result = Result(*where, None, None if lost else expected, observed, verdict, lost, BROADCAST[name], None)
        return excused(result, self._targets[0].ctx.host, case.setup.vendor, case.target)


class ResetTry(NamedTuple):
    """A used vCPU that was written back in one ``order`` of the ioctls; ``refused`` is KVM's error by section or item."""

    order: tuple[str, ...]
    refused: dict[str, str]
    seen: Evidence


class ResetSeen(NamedTuple):
    """What the guest reported on the ``new`` vCPU (None in the host's view), the MSRs that are ``read_only`` with the error, and
    what each order left.
    """

    new: guest.Report | None
    read_only: dict[str, str]
    tries: tuple[ResetTry, ...]


_TSC = cited(formula("TSC-new", "counts on from what was written"), *_AS_NEW)
_COUNTS = cited(undefined("it counts by itself"), *_AS_NEW)


class ResetJudge:
    """The worst result of each item over all orders, in each of the case's views."""

    def __init__(self, case: Case, basis: Basis) -> None:
        self._case = case
        self._basis = basis
        self._verdicts = Verdicts(case, basis, self._rule)

    def of(self, seen: ResetSeen) -> list[Result]:
        """The results, in the order of the project's tables."""
        return self._in_host_view(seen) if seen.new is None else self._in_guest_view(seen, seen.new)

    def _in_host_view(self, seen: ResetSeen) -> list[Result]:
        worst = Worst("orders")
        for order, refused, (before, after, _) in seen.tries:
            assert after
            results = dict(self._verdicts.update(before, after))
            failed = [item for item, result in results.items() if result.verdict == "fail"]
            for item in failed:
                results[item] = self._refused(results[item], refused, seen.read_only)
            worst.add(">".join(order), results, dict.fromkeys((*self._verdicts.judged, *failed)))
        return worst.results()

    def _in_guest_view(self, seen: ResetSeen, new: guest.Report) -> list[Result]:
        """What the guest reports after each reset is held against what it reported on the new vCPU."""
        told, held = Worst("orders"), Worst("orders")
        names = items(self._case)
        for order, refused, (before, after, report) in seen.tries:
            assert report
            label = ">".join(order)
            results = {}
            for item in names:
                results[item] = self._refused(self._told(item, before, report, new), refused, seen.read_only)
            told.add(label, results, results)
            results = {item: self._verdicts.compared(item, after, report) for item in names}
            held.add(label, results, results)
        return told.results() + held.results()

    def _refused(self, result: Result, refused: Mapping[str, str], read_only: Mapping[str, str]) -> Result:
        """The ``result``; of what failed it says why it was not written. It is an error where KVM refused the whole section that
        it lies in or follows, a skip where this KVM does not show that: there was nothing to write back.
        """
        if result.verdict != "fail":
            return result
        item, layout = result.item, self._basis.layout
        if why := layout.missing.get(item) or layout.missing_sections.get(FOLLOWS.get(item, "")):
            return result._replace(verdict="skip", reason=why)
        section = FOLLOWS.get(item) or layout.fields[item].section
        if section in refused:
            return result._replace(verdict="error", reason=refused[section])
        return result._replace(reason=refused.get(item) or read_only.get(item, ""))

    def _rule(self, item: str) -> Rule:
        if item == "msr.tsc":
            return _TSC
        baseline, layout = self._basis.baseline, self._basis.layout
        new = baseline.get(layout, item) if baseline else None
        # The local APIC's timer counts no more: RESET stops it.
        if new is None or item in COUNTERS and item != "lapic.timer_current":
            return _COUNTS
        return Rule("value", value=new, cite=_AS_NEW)

    def _told(self, item: str, before: Snapshot | None, report: guest.Report, new: guest.Report) -> Result:
        seen = self._verdicts.told(item, before, report)
        expected = new.values.get(item)
        if expected is None:
            missing = new.missing.get(item, "")
            seen = seen._replace(unreadable=missing, failed="" if missing else new.problem or "the guest did not tell")
        rule = _TSC if item == "msr.tsc" else _COUNTS if item in COUNTERS else Rule("value", value=expected or 0, cite=_AS_NEW)
        return judge(item, self._basis.ctx, seen, rule)


def judge_of(case: Case, host: Host, bases: tuple[Basis, ...]) -> Judge:
    """The judge of ``case`` for the vCPUs that it takes; of Untried where there are none."""
    if not bases:
        return _UntriedJudge(case, host)
    if case.trigger == "broadcast" and case.view == "host":
        return BroadcastJudge(case, bases)
    if case.trigger == "vmm-reset":
        return ResetJudge(case, bases[0])
    return Verdicts(case, bases[0])
