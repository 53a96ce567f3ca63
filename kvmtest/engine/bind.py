# SPDX-License-Identifier: GPL-2.0-only
"""Bind a scenario to a machine of this host, and run its program."""

from __future__ import annotations

from kvmtest.engine.cycle import context
from kvmtest.engine.machine import Machine, Target
from kvmtest.engine.plan import Case
from kvmtest.engine.runner import play
from kvmtest.judge.evidence import Basis, Played
from kvmtest.model.host import Host
from kvmtest.scenario import step as s
from kvmtest.scenario.lower import lower
from kvmtest.scenario.needs import unmet
from kvmtest.state.plant import Plant

__all__ = ("Scene", "Unmet")


class Unmet(Exception):
    """This host lacks what a scenario needs; the text says what."""


class _Facts:
    def __init__(self, machine: Machine, target: Target) -> None:
        self.vendor = machine.setup.vendor
        self._vm, self._leaves, self._vcpu = machine.vm, machine.leaves, target.vcpu

    def extension(self, cap: int) -> int:
        return self._vm.check_extension(cap)

    def leaf(self, function: int, register: str) -> int:
        found = (leaf for leaf in self._leaves if leaf.function == function and not leaf.index)
        return next((int(getattr(leaf, register)) for leaf in found), 0)

    def msr(self, index: int) -> int:
        return self._vcpu.get_msrs([index]).get(index, 0)


class Scene:
    """A scenario's case on a machine, ready to run; ``bases`` is what judging needs. Raises Unmet, PlantRefused, KvmError."""

    def __init__(self, case: Case, machine: Machine, host: Host, timeout_s: float = 1.0) -> None:
        assert case.scenario
        self._machine, self._timeout_s = machine, timeout_s
        self._by_id = {target.vcpu.id: target for target in machine.targets}
        mine = machine.target(case.target)
        if why := unmet(case.scenario.needs, _Facts(machine, mine)):
            raise Unmet(why)
        self.target = mine.vcpu.id
        self.other = next((id for id in self._by_id if id != self.target), self.target)
        self._plant: Plant | None = None
        self.program = lower(case.scenario, self)
        planted = any(isinstance(step, (s.Plant, s.Observe)) for step in case.scenario.steps)
        baseline = mine.baseline if planted else None
        self.bases = (Basis(context(case, machine, host), mine.layout, baseline, self._plant),)

    def plant(self, who: int, name: str, apic_mode: str) -> Plant:
        """The plant of vCPU ``who``; the target's is what judging looks at."""
        made = self._by_id[who].plant(name, apic_mode)
        if who == self.target:
            self._plant = made
        return made

    def observe(self) -> Played:
        """Run the program."""
        return play(self.program, self._machine, self._timeout_s)
