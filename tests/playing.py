# SPDX-License-Identifier: GPL-2.0-only
"""Steps that are lowered and executed on a machine, without a case around them."""

from __future__ import annotations

from kvmtest.engine.machine import Machine
from kvmtest.engine.runner import play
from kvmtest.judge.evidence import Played
from kvmtest.scenario import step as s
from kvmtest.scenario.lower import lower
from kvmtest.scenario.program import DEFAULT_ROUNDS, Op, Program
from kvmtest.state.plant import Plant

__all__ = ("Bound", "ops", "steps")


class Bound:
    """The facts that binding has of ``machine``. The ``target`` is the vCPU with id 1 or the BSP; the other one is the sender."""

    stress_rounds = DEFAULT_ROUNDS

    def __init__(self, machine: Machine, target: str = "ap") -> None:
        self._machine = machine
        self.target = machine.target(target).vcpu.id
        self.other = machine.target("bsp" if target == "ap" else "ap").vcpu.id
        self.each = tuple(one.vcpu.id for one in machine.targets if one.vcpu.id != self.other)

    def plant(self, who: int, name: str, apic_mode: str) -> Plant:
        """The plant of vCPU ``who``."""
        (target,) = (one for one in self._machine.targets if one.vcpu.id == who)
        return target.plant(name, apic_mode)


def steps(machine: Machine, *of: s.Step, target: str = "ap", timeout_s: float = 1.0) -> Played:
    """Run the steps ``of`` a scenario on ``machine``."""
    scenario = s.Scenario("init", "msi", "made-up", of, ("a manual",), target)
    return play(lower(scenario, Bound(machine, target)), machine, timeout_s)


def ops(machine: Machine, program: Program, *of: Op, timeout_s: float = 1.0) -> Played:
    """Run single ops with the buffers of ``program``; each is a step of its own."""
    return play(program._replace(ops=tuple(enumerate(of))), machine, timeout_s)
