# SPDX-License-Identifier: GPL-2.0-only
"""A case in which a used vCPU is written back to RESET by ioctls: it must be as a new one, in each legal order of the ioctls."""

from __future__ import annotations

from collections.abc import Mapping

from kvmtest.engine import guest
from kvmtest.engine.cycle import TRACES, context
from kvmtest.engine.judge import judge
from kvmtest.engine.machine import Machine
from kvmtest.engine.plan import Case, items
from kvmtest.engine.result import Host, Result
from kvmtest.engine.verdicts import Verdicts
from kvmtest.engine.worst import Worst
from kvmtest.spec.cite import KVM_API
from kvmtest.spec.rule import Rule, cited, formula, undefined
from kvmtest.spec.untouched import COUNTERS
from kvmtest.state.snapshot import Snapshot
from kvmtest.triggers.error import TriggerError
from kvmtest.triggers.vmm_reset import orders

__all__ = ("AS_NEW", "VmmReset")

#: What the comparison rests on.
AS_NEW = ("a vCPU that was reset is as a new one", KVM_API)
_TSC = cited(formula("TSC-new", "counts on from what was written"), *AS_NEW)
_COUNTS = cited(undefined("it counts by itself"), *AS_NEW)


class VmmReset:
    """The case, ready to run; ``timeout_s`` bounds each KVM_RUN, in seconds. Raises KvmError.

    In the guest's view the guest reports on the new vCPU when this is made.
    """

    def __init__(self, case: Case, machine: Machine, host: Host, timeout_s: float = 1.0) -> None:
        self.case = case
        self.machine = machine
        self.timeout_s = timeout_s
        self.target = machine.target(case.target)
        # Before a plant is made, which tries it out on the vCPU.
        self._new = self._report() if case.view == "guest" else guest.Report({}, {}, "")
        self.plant = self.target.plant(case.plant, case.apic_mode)
        self.orders = orders(self.target.reset.sections)
        # The local APIC's mode after RESET.
        self._ctx = context(case, machine, host)._replace(apic_mode="xapic")
        self._verdicts = Verdicts(case, self._ctx, self.target.layout, self.target.baseline, self.plant, self._rule)

    def run(self) -> list[Result]:
        """The worst result of each item over all orders, in each of the case's views.

        Raises KvmError, and TriggerError where the vCPU was not written at all.
        """
        return self._in_host_view() if self.case.view == "host" else self._in_guest_view()

    def _in_host_view(self) -> list[Result]:
        worst = Worst("orders")
        for order in self.orders:
            before, after, refused = self._reset(order)
            results = dict(self._verdicts.update(before, after))
            why = {item: self._refusal(item, refused) for item, result in results.items() if result.verdict == "fail"}
            results |= {item: results[item]._replace(reason=reason) for item, reason in why.items()}
            worst.add(">".join(order), results, dict.fromkeys((*self._verdicts.judged, *why)))
        return worst.results()

    def _in_guest_view(self) -> list[Result]:
        """What the guest reports after each reset is held against what it reported on the new vCPU."""
        told, held = Worst("orders"), Worst("orders")
        names = items(self.case)
        for order in self.orders:
            before, after, refused = self._reset(order)
            report = self._report()
            label = ">".join(order)
            results = {item: self._told(item, before, report, refused) for item in names}
            told.add(label, results, results)
            results = {item: self._verdicts.compared(item, after, report) for item in names}
            held.add(label, results, results)
        return told.results() + held.results()

    def _reset(self, order: tuple[str, ...]) -> tuple[Snapshot, Snapshot, dict[str, str]]:
        """The state before and after, and what KVM refused."""
        self.plant.write(self.target.vcpu)
        before = self.target.reader.read()
        refused = self.target.reset.write(order)
        after = self.target.reader.read()
        if all(before.sections.get(section) == after.sections.get(section) for section in TRACES):
            raise TriggerError("the vCPU was not written: registers and activity state are as planted")
        return before, after, refused

    def _report(self) -> guest.Report:
        observer = guest.Observer(self.machine, self.target.vcpu, self.target.layout, None)
        report = observer.report(self.timeout_s)
        self.target.vcpu.complete_io()
        return report

    def _refusal(self, item: str, refused: Mapping[str, str]) -> str:
        """Why ``item`` was not written; "" where it was."""
        section = self.target.layout.fields[item].section
        return refused.get(item) or refused.get(section) or self.target.reset.read_only.get(item, "")

    def _rule(self, item: str) -> Rule:
        if item == "msr.tsc":
            return _TSC
        new = self.target.baseline.get(self.target.layout, item)
        # The local APIC's timer counts no more: RESET stops it.
        if new is None or item in COUNTERS and item != "lapic.timer_current":
            return _COUNTS
        return Rule("value", value=new, cite=AS_NEW)

    def _told(self, item: str, before: Snapshot, report: guest.Report, refused: Mapping[str, str]) -> Result:
        seen = self._verdicts.told(item, before, report)
        expected = self._new.values.get(item)
        if expected is None:
            missing = self._new.missing.get(item, "")
            seen = seen._replace(unreadable=missing, failed="" if missing else self._new.problem or "the guest did not tell")
        rule = _TSC if item == "msr.tsc" else _COUNTS if item in COUNTERS else Rule("value", value=expected or 0, cite=AS_NEW)
        result = judge(item, self._ctx, seen, rule)
        return result._replace(reason=self._refusal(item, refused)) if result.verdict == "fail" else result
