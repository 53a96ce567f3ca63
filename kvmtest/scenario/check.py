# SPDX-License-Identifier: GPL-2.0-only
"""Look over a scenario that somebody else made: whether all that it names exists, and whether it can be lowered."""

from __future__ import annotations

import re
from typing import Any

from kvmtest import guests
from kvmtest.model.record import EVENTS, VIEWS
from kvmtest.scenario import memory, migrate
from kvmtest.scenario import step as s
from kvmtest.scenario.lower import lower
from kvmtest.scenario.needs import NEEDS
from kvmtest.scenario.orders import ORDERS, Order
from kvmtest.scenario.program import DEFAULT_ROUNDS, MEASUREMENTS, NEW_VM, VM, Cpuid, Ioctl, Program
from kvmtest.scenario.setup import LEAVES, VENDORS
from kvmtest.scenario.text import MODES, PLANTS
from kvmtest.scenario.triggers import TRIGGERS, events
from kvmtest.state.vmm_reset import SETTERS
from kvmtest.uapi import kvm as uapi
from kvmtest.uapi.names import IOCTLS

__all__ = ("ScenarioError", "check", "kind_of")

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,119}")
#: Limits of the number of vCPUs in a VM, and of their ids.
_VCPUS, _IDS = 288, 4096
#: The number of names that a message lists.
_NAMED = 30
#: Ioctls that would make KVM access an address of its caller, or fill more than it was given: no scenario needs them.
_REFUSED = frozenset(
    (
        *(uapi.KVM_SET_USER_MEMORY_REGION, uapi.KVM_SET_USER_MEMORY_REGION2, uapi.KVM_GET_DIRTY_LOG, uapi.KVM_SET_SIGNAL_MASK),
        *(uapi.KVM_SET_DEVICE_ATTR, uapi.KVM_GET_DEVICE_ATTR, uapi.KVM_GET_ONE_REG, uapi.KVM_SET_ONE_REG),
        *(uapi.KVM_GET_REG_LIST, uapi.KVM_GET_XSAVE2, uapi.KVM_RUN, uapi.KVM_X86_SET_MSR_FILTER),
    )
)
#: Structures with a number of entries: its offset, the bytes before the entries, and the bytes of each.
_COUNTED = {
    **dict.fromkeys((uapi.KVM_GET_MSRS, uapi.KVM_SET_MSRS), (0, 8, 16)),
    **dict.fromkeys((uapi.KVM_GET_CPUID2, uapi.KVM_SET_CPUID2), (0, 8, 40)),
    uapi.KVM_SET_GSI_ROUTING: (0, 8, 48),
    **dict.fromkeys((uapi.KVM_GET_NESTED_STATE, uapi.KVM_SET_NESTED_STATE), (4, 0, 1)),
}


class ScenarioError(ValueError):
    """An invalid scenario; one line that says what is wrong, and where."""


def kind_of(cls: type) -> str:
    """The name of a kind of step or condition."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", cls.__name__).lower()


class _NoHost:
    """A target on no host: a plant writes nothing."""

    def __init__(self, scenario: s.Scenario) -> None:
        setup = scenario.setup
        ids = setup.ids or tuple(range(setup.vcpus or 2))
        aps = [id for id in ids if id != setup.boot_id]
        self.target = setup.boot_id if scenario.target == "bsp" else aps[-1]
        self.other = next((id for id in ids if id != self.target), self.target)
        self.each = tuple(id for id in ids if id != self.other)
        self.ids = ids
        self.stress_rounds = DEFAULT_ROUNDS

    def plant(self, who: int, name: str, apic_mode: str) -> _NoHost:
        return self

    def writes(self, id: int) -> tuple[tuple[str, int, bytes], ...]:
        return ()

    def before(self) -> tuple[tuple[int, int, int, bytes], ...]:
        return ()

    def entry(self) -> None:
        return None

    def saved(self, who: int, order: Order) -> dict[str, tuple[migrate.Part, ...]]:
        return {}

    def cpuid(self, who: int) -> Cpuid:
        return Cpuid(who, ())


def _known(value: object, there: Any, text: str) -> None:
    if value not in there:
        names = list(map(str, there))
        more = f", and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        raise ScenarioError(f"{text}: no {str(value)[:60]!r}; there are {', '.join(names[:_NAMED])}{more}")


def check(scenario: s.Scenario) -> None:
    """Look up every name, and lower it once. Raises ScenarioError."""
    setup = scenario.setup
    _known(scenario.event, EVENTS, "the scenario, event")
    _known(scenario.view, VIEWS[:2], "the scenario, view")
    _known(scenario.target, ("bsp", "ap"), "the scenario, target")
    for name in ("trigger", "sequence"):
        if not _NAME.fullmatch(getattr(scenario, name)):
            raise ScenarioError(f"the scenario, {name}: small letters, digits and hyphens are expected, 120 at most")
    for vendor in (*scenario.vendors, setup.vendor):
        _known(vendor, (*VENDORS, ""), "the scenario, vendors")
    if not scenario.vendors or len(set(scenario.vendors)) < len(scenario.vendors):
        raise ScenarioError("the scenario, vendors: each vendor once, and at least one")
    for need in scenario.needs:
        _known(need, NEEDS, "the scenario, needs")
    _known(setup.irqchip, ("none", "split", "full"), "the set-up, irqchip")
    _known(setup.leaves, LEAVES, "the set-up, leaves")
    if len(setup.denied) > uapi.KVM_MSR_FILTER_MAX_RANGES or not all(0 <= index < 1 << 32 for index in setup.denied):
        raise ScenarioError("the set-up, denied: 16 indexes of MSRs at most are expected, of 32 bits each")
    ids = setup.ids or range(setup.vcpus or 2)
    if not 0 <= setup.vcpus <= _VCPUS or len(set(ids)) != len(ids) <= _VCPUS or not all(0 <= id < _IDS for id in ids):
        raise ScenarioError(f"the set-up: at most {_VCPUS} vCPUs, with different ids below {_IDS}, are expected")
    if setup.boot_id not in ids or setup.ids and setup.boot_id or len(ids) < 2 and scenario.target == "ap":
        raise ScenarioError("the set-up: there is no such BSP, or no AP to be the target")
    for number, step in enumerate(scenario.steps, 1):
        text = _named(scenario, number)
        _step(step, text)
        before = scenario.steps[: number - 1]
        compares = isinstance(getattr(step, "condition", None), (s.Same, s.Written))
        if compares and not any(isinstance(one, s.Observe) for one in before):
            raise ScenarioError(f"{text}: nothing was observed before")
        if isinstance(step, s.Guest) and not any(isinstance(one, s.Reporter) for one in before):
            raise ScenarioError(f"{text}: no step loads the guest that reports")
    if not any(isinstance(step, (s.Expect, s.Observe, s.Guest, s.Migrate, s.Do)) for step in scenario.steps):
        raise ScenarioError("the scenario: no step observes or expects anything")
    _lowered(scenario)


def _step(step: s.Step, text: str) -> None:
    """Look up what a step names."""
    if isinstance(step, s.Send):
        _known(step.by, TRIGGERS, text)
        _known(step.event, events(step.by), f"{text} by {step.by}")
    elif isinstance(step, s.Do):
        _known(step.name, MEASUREMENTS, text)
        for item, _ in step.expected:
            _known(item, MEASUREMENTS[step.name], text)
    elif isinstance(step, s.Migrate):
        _known(step.order, ORDERS, text)
    elif isinstance(step, s.Event):
        _known(step.event, EVENTS, text)
        if not _NAME.fullmatch(step.trigger):
            raise ScenarioError(f"{text}, trigger: small letters, digits and hyphens are expected")
    elif isinstance(step, s.Load):
        _known(step.guest, (*guests.IMAGES, memory.SMRAM), text)
    elif isinstance(step, s.Plant):
        _known(step.name, PLANTS, text)
        for section in step.only:
            _known(section, SETTERS, text)
    elif isinstance(step, (s.Expect, s.Require, s.Until)) and isinstance(step.condition, s.Written):
        _known(step.condition.section, SETTERS, text)
    elif isinstance(step, s.Observe):
        _known(step.rule, ("", *EVENTS), text)
    if mode := getattr(step, "apic_mode", ""):
        _known(mode, MODES, text)
    if isinstance(who := getattr(step, "who", getattr(step, "to", "target")), str):
        _known(who, ("target", "other", "each", "vm", "new-vm"), text)


#: Errors of lowering a scenario with a wrong name, number or order.
_FAULTS = (guests.GuestMissing, LookupError, AttributeError, TypeError, ValueError, OverflowError)


def _named(scenario: s.Scenario, number: int) -> str:
    return f"step {number} ({kind_of(type(scenario.steps[number - 1]))})"


def _lowered(scenario: s.Scenario) -> None:
    """Lower all steps up to each of them, and look at what ioctls get. Raises ScenarioError."""
    bound = _NoHost(scenario)
    try:
        program = lower(scenario, bound)
    except _FAULTS:
        for number in range(1, len(scenario.steps) + 1):
            try:
                lower(scenario._replace(steps=scenario.steps[:number]), bound)
            except _FAULTS as error:
                why = "no guest is loaded" if "guest ''" in str(error) else error or type(error).__name__
                raise ScenarioError(f"{_named(scenario, number)} cannot be done: {why}") from None
        raise
    for number, op in program.ops:
        if isinstance(op, Ioctl) and (why := _unsafe(op, program, bound.ids)):
            raise ScenarioError(f"{_named(scenario, number + 1)}: {why}")
        if (vcpu := getattr(op, "vcpu", None)) is not None and vcpu not in bound.ids:
            raise ScenarioError(f"{_named(scenario, number + 1)}: there is no vCPU {vcpu}")


def _unsafe(op: Ioctl, program: Program, ids: tuple[int, ...]) -> str:
    """Return why KVM must not be asked this: it would access memory outside the buffer. "" if it is safe."""
    name = IOCTLS.get(op.request)
    if name is None or op.request in _REFUSED:
        return f"no scenario may call {name or f'ioctl {op.request:#x}'}"
    if op.on not in (VM, NEW_VM, *ids):
        return f"there is no vCPU {op.on}"
    size = op.request >> 16 & 0x3FFF
    if isinstance(op.arg, int):
        return f"{name} works on a structure of {size} bytes, not on a number" if size else ""
    data = program.buffers[op.arg].contents
    if op.request in _COUNTED and len(data) >= size:
        at, head, each = _COUNTED[op.request]
        size = max(size, head + each * int.from_bytes(data[at : at + 4], "little"))
    return f"{name} works on {size} bytes, not on {len(data)}" if len(data) < size or not size else ""
