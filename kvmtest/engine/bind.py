# SPDX-License-Identifier: GPL-2.0-only
"""Bind a scenario to a machine of this host, and run its program."""

from __future__ import annotations

from collections.abc import Iterable

from kvmtest.engine.machine import Machine, Machines, Target
from kvmtest.engine.plan import Case
from kvmtest.engine.runner import Player
from kvmtest.judge.evidence import Basis, Played
from kvmtest.judge.item import Context
from kvmtest.model.host import Host
from kvmtest.scenario import step as s
from kvmtest.scenario.lower import lower
from kvmtest.scenario.needs import unmet
from kvmtest.scenario.orders import Order
from kvmtest.scenario.program import DEFAULT_ROUNDS, VM, Cpuid, Look, StressRounds
from kvmtest.scenario.setup import Setup
from kvmtest.state import saved
from kvmtest.state.plant import Plant

__all__ = ("BoundCase", "Facts", "Unmet", "context", "skips")


class Unmet(Exception):
    """This host lacks what a scenario needs; the text says what."""


class Facts:
    """Facts about a vCPU and its machine, which needs are checked against."""

    def __init__(self, machine: Machine, target: Target) -> None:
        self.vendor = machine.setup.vendor
        self._vm, self._leaves, self._vcpu = machine.vm, machine.leaves, target.vcpu

    def extension(self, cap: int) -> int:
        """KVM_CHECK_EXTENSION."""
        return self._vm.check_extension(cap)

    def leaf(self, function: int, register: str) -> int:
        """A register of the vCPU's CPUID leaf, 0 where it has none."""
        found = (leaf for leaf in self._leaves if leaf.function == function and not leaf.index)
        return next((int(getattr(leaf, register)) for leaf in found), 0)

    def msr(self, index: int) -> int:
        """An MSR of the vCPU, 0 where KVM refuses it."""
        return self._vcpu.get_msrs([index]).get(index, 0)


def context(case: Case, machine: Machine, host: Host) -> Context:
    """Return the context of the rules in ``case``."""
    setup = case.setup
    signature, counters, extended_apic = machine.cpuid
    made = Context(
        case.prefix,
        case.name,
        host,
        setup.vendor,
        case.target == "bsp",
        machine.target(case.target).vcpu.id,
        setup.irqchip != "none",
        case.apic_mode or "xapic",
        signature,
        case.vector,
        counters,
        extended_apic=extended_apic,
    )
    return made._replace(cycles=machine.cycles()) if case.trigger == "create" else made


def skips(cases: Iterable[Case], machines: Machines) -> dict[Case, str]:
    """Those of ``cases`` that lack what they need, and why, as far as needs say it. Raises SetupError, KvmError, Unread."""
    found = {}
    for case in cases:
        machine = machines.kept(Setup("full", case.setup.vendor))
        if why := unmet(case.needs, Facts(machine, machine.target("bsp"))):
            found[case] = why
    return found


class BoundCase:
    """A scenario's case on a machine, ready to run; ``bases`` is what judging needs. Raises Unmet, PlantRefused, KvmError."""

    def __init__(
        self, case: Case, machine: Machine, host: Host, timeout_s: float = 1.0, stress_rounds: StressRounds = DEFAULT_ROUNDS
    ) -> None:
        assert case.scenario
        self._machine, self.stress_rounds = machine, stress_rounds
        self._by_id = {target.vcpu.id: target for target in machine.targets}
        mine = machine.target(case.target)
        if why := unmet(case.scenario.needs, Facts(machine, mine)):
            raise Unmet(why)
        self.target = mine.vcpu.id
        self.other = machine.target("bsp" if case.target == "ap" else "ap").vcpu.id if len(self._by_id) > 1 else self.target
        self.each = (self.target, *(id for id in self._by_id if id not in (self.target, self.other)))
        self._plants: dict[int, Plant] = {}
        self._fresh = case.scenario.fresh
        self.program = lower(case.scenario, self)
        self._player = Player(self.program, machine, timeout_s)
        baseline = None if case.event == "reset" else mine.baseline
        ctx = context(case, machine, host)._replace(apic_mode=case.scenario.apic_mode or "xapic")
        of_each = any(isinstance(step, s.Observe) and step.who == "each" for step in case.scenario.steps)
        moves = [number for number, step in enumerate(case.scenario.steps) if isinstance(step, s.Migrate)]
        migrated = [op.vcpu for number, op in self.program.ops if isinstance(op, Look) and number in moves] if moves else []
        ids = (*(self.each if of_each else (self.target,)), *migrated)
        bsp = machine.target("bsp")
        self.bases = tuple(
            Basis(
                ctx._replace(is_bsp=self._by_id[id] is bsp, apic_id=id),
                mine.layout,
                baseline and self._by_id[id].baseline,
                self._plants.get(id),
            )
            for id in dict.fromkeys(ids)
        )

    def plant(self, who: int, name: str, apic_mode: str) -> Plant:
        """The plant of vCPU ``who``. One serves for all APs: writing it sets the id.

        A plant is found by trying, which leaves its traces: that of a vCPU to which nothing has happened is tried on another one.
        """
        like = self.target if self._is_ap(who) and self._is_ap(self.target) else who
        target = self._machine.kept(like) if self._fresh else self._by_id[like]
        made = self._plants[who] = target.plant(name, apic_mode)
        return made

    def saved(self, who: int, order: Order) -> dict[str, tuple[saved.Part, ...]]:
        """Return the parts that can be saved of vCPU ``who`` or the VM, by section."""
        machine = self._machine
        if who == VM:
            return saved.of_vm(machine.setup.irqchip)
        # Which MSRs can be written is found by trying, on a vCPU that is not this case's.
        return machine.kept(who).saved(order.apart)

    def cpuid(self, who: int) -> Cpuid:
        """The op that gave vCPU ``who`` its CPUID."""
        given = (op for _, op in self._machine.program.ops if isinstance(op, Cpuid) and op.vcpu == who)
        return next(given, Cpuid(who, ()))

    def _is_ap(self, who: int) -> bool:
        return who != self._machine.setup.boot_id

    def observe(self) -> Played:
        """Run the program; several times if it can be repeated."""
        return self._player.run()
