# SPDX-License-Identifier: GPL-2.0-only
"""A case in which one vCPU sends INIT to all others: every one is planted, read and judged, and the sender as well."""

from __future__ import annotations

from kvmtest.engine.cycle import TRACES, context
from kvmtest.engine.judge import excused
from kvmtest.engine.machine import Machine, Target
from kvmtest.engine.plan import BROADCAST, Case
from kvmtest.engine.result import Host, Result
from kvmtest.engine.verdicts import Verdicts
from kvmtest.engine.worst import Worst
from kvmtest.spec.untouched import COUNTERS
from kvmtest.state.layout import Layout
from kvmtest.state.snapshot import Snapshot
from kvmtest.triggers import broadcast
from kvmtest.triggers.error import TriggerError

__all__ = ("Broadcast", "differences")

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
    for section, items in layout.by_section.items():
        if before.sections.get(section) != after.sections.get(section):
            found += [item for item in items if before.get(layout, item) != after.get(layout, item)]
    return [item for item in found if item not in COUNTERS]


class Broadcast:
    """A broadcast case in the host's view, ready to run."""

    def __init__(self, case: Case, machine: Machine, host: Host) -> None:
        self.case = case
        self._host = host
        self.sender = machine.target("bsp" if case.target == "ap" else "ap")
        self.targets = [target for target in machine.targets if target is not self.sender]
        # The BSP is judged by other rules.
        self._verdicts: dict[bool, Verdicts] = {}
        for target in self.targets:
            is_bsp = target is machine.target("bsp")
            if is_bsp not in self._verdicts:
                plant = target.plant(case.plant, case.apic_mode)
                ctx = context(case, machine, host)._replace(is_bsp=is_bsp)
                self._verdicts[is_bsp] = Verdicts(case, ctx, target.layout, target.baseline, plant)
        self._bsp = machine.target("bsp")

    def run(self) -> list[Result]:
        """The worst result of each item over all targets, and what the sender says.

        Raises KvmError, and TriggerError where a vCPU did not get the INIT, or shows no trace of it.
        """
        befores = [self._plant(target) for target in self.targets]
        vcpu = self.sender.vcpu
        self.sender.plant("a", self.case.apic_mode).write(vcpu)
        broadcast.prepare(vcpu, x2apic=self.case.apic_mode == "x2apic")
        own = self.sender.reader.read()
        broadcast.send(vcpu)
        afters = [target.reader.read() for target in self.targets]
        changed = self._changed(own, self.sender.reader.read())
        worst, last = Worst("vcpus"), None
        for target, before, after in zip(self.targets, befores, afters, strict=True):
            verdicts = self._judged(target, before, after)
            # What was judged last may have been the BSP's, by other rules.
            again = verdicts.results if target is self._bsp or last is self._bsp else verdicts.judged
            worst.add(target.vcpu.id, verdicts.results, again)
            last = target
        everyone = f"{len(self.targets)} of {len(self.targets)}"
        return [
            self._behaviour("reached", everyone, everyone),
            self._behaviour("sender-untouched", _UNTOUCHED, ", ".join(changed) or _UNTOUCHED),
            *worst.results(),
        ]

    def _plant(self, target: Target) -> Snapshot:
        plant = self._verdicts[target is self._bsp].plant
        assert plant
        plant.write(target.vcpu)
        return target.reader.read()

    def _judged(self, target: Target, before: Snapshot, after: Snapshot) -> Verdicts:
        if all(before.sections.get(section) == after.sections.get(section) for section in TRACES):
            raise TriggerError(f"the event left no trace on vcpu {target.vcpu.id}: registers and activity state are as planted")
        verdicts = self._verdicts[target is self._bsp]
        verdicts.ctx = verdicts.ctx._replace(apic_id=target.vcpu.id)
        verdicts.baseline = target.baseline
        verdicts.update(before, after, _BY_ID)
        return verdicts

    def _changed(self, before: Snapshot, after: Snapshot) -> list[str]:
        """What of the sender is not as it was, or not as sending leaves it."""
        layout = self.sender.layout
        found = [item for item in differences(layout, before, after) if item not in _BY_SENDING | _BY_RUNNING]
        written = {"lapic.icr": broadcast.ICR, "lapic.icr2": 0}
        for item, value in written.items():
            seen = after.get(layout, item)
            if seen is None or (seen & ~_DELIVERY_STATUS) != value:
                found.append(item)
        return found

    def _behaviour(self, name: str, expected: str, observed: str) -> Result:
        case = self.case
        where = (f"{case.prefix}.{name}", case.event, case.trigger, case.view, name, case.name)
        verdict = "pass" if observed == expected else "fail"
        result = Result(*where, None, expected, observed, verdict, "", BROADCAST[name], None)
        return excused(result, self._host, case.setup.vendor, case.target)
