# SPDX-License-Identifier: GPL-2.0-only
"""A case in which one vCPU sends INIT to all others: every one is planted and read, and the sender as well."""

from __future__ import annotations

from kvmtest.engine.cycle import context, took_init, traced
from kvmtest.engine.machine import Machine, Target
from kvmtest.engine.plan import Case
from kvmtest.judge.evidence import Basis, BroadcastSeen, Evidence
from kvmtest.model.host import Host
from kvmtest.state.plant import Plant
from kvmtest.state.sections import Snapshot
from kvmtest.triggers import broadcast
from kvmtest.triggers.error import TriggerError

__all__ = ("Broadcast",)


class Broadcast:
    """A broadcast case in the host's view, ready to run."""

    def __init__(self, case: Case, machine: Machine, host: Host) -> None:
        self.case = case
        self.sender = machine.target("bsp" if case.target == "ap" else "ap")
        self.targets = [target for target in machine.targets if target is not self.sender]
        bsp = machine.target("bsp")
        # One plant does for all APs: writing it takes care of the id.
        plants: dict[bool, Plant] = {}
        self._plants: list[Plant] = []
        ctx = context(case, machine, host)
        bases = [Basis(ctx, self.sender.layout, None, None)]
        for target in self.targets:
            is_bsp = target is bsp
            if is_bsp not in plants:
                plants[is_bsp] = target.plant(case.plant, case.apic_mode)
            self._plants.append(plants[is_bsp])
            of_target = ctx._replace(is_bsp=is_bsp, apic_id=target.vcpu.id)
            bases.append(Basis(of_target, target.layout, target.baseline, plants[is_bsp]))
        self.bases = tuple(bases)

    def observe(self) -> BroadcastSeen:
        """Run the case. Raises KvmError, TriggerError where a vCPU did not get the INIT or shows no trace of it, Unread where
        that cannot be told.
        """
        befores = [self._planted(target, plant) for target, plant in zip(self.targets, self._plants, strict=True)]
        vcpu = self.sender.vcpu
        self.sender.plant("a", self.case.apic_mode).write(vcpu)
        broadcast.prepare(vcpu, x2apic=self.case.apic_mode == "x2apic")
        own = self.sender.reader.read()
        broadcast.send(vcpu)
        targets = []
        for target, before in zip(self.targets, befores, strict=True):
            after = target.reader.read()
            took_init(target.layout, after)
            if not traced(target.layout, before, after):
                raise TriggerError(
                    f"the event left no trace on vcpu {target.vcpu.id}: registers and activity state are as planted"
                )
            targets.append(Evidence(before, after))
        return BroadcastSeen(broadcast.ICR, Evidence(own, self.sender.reader.read()), tuple(targets))

    def _planted(self, target: Target, plant: Plant) -> Snapshot:
        plant.write(target.vcpu)
        return target.reader.read()
