# SPDX-License-Identifier: GPL-2.0-only
"""KVM_SET_* of RESET's values one by one out of each mode, and two that no order is asked of one after the other, both ways."""

from __future__ import annotations

from itertools import combinations, product
from typing import NamedTuple

from kvmtest.scenario import step as s
from kvmtest.scenario.catalogue.common import FINDS
from kvmtest.scenario.covering import covering
from kvmtest.scenario.setup import VENDORS, Setup
from kvmtest.scenario.step import Scenario
from kvmtest.spec.alone import CITE
from kvmtest.spec.cite import KVM_API
from kvmtest.state.values import APIC_MODES, NEW, PLANTS
from kvmtest.state.vmm_reset import CONSTRAINTS, SECTIONS

__all__ = ("SCENARIOS", "independent")

#: Sections that plants write.
_WRITTEN = tuple(section for section in SECTIONS if section != "nested")
#: KVM may compute it when the vCPU runs.
_COMPUTED = ("lapic.ppr",)
_TRIGGERS = {"events": "vcpu-events", "mp_state": "mp-state"}


class _Alone(NamedTuple):
    section: str
    plant: str
    mode: str
    vendor: str


class _Two(NamedTuple):
    first: str
    second: str
    plant: str
    mode: str
    vendor: str


def independent(first: str, second: str) -> bool:
    """Return True if the API requires no order of two sections that are written with RESET's values."""
    return not any(one.at_reset and {one.first, one.second} == {first, second} for one in CONSTRAINTS)


def _case(section: str, sequence: str, steps: tuple[s.Step, ...], vendor: str, cite: tuple[str, ...]) -> Scenario:
    trigger = _TRIGGERS.get(section, f"set-{section}")
    return Scenario("none", trigger, sequence, steps, cite, setup=Setup(mce=True), vendors=(vendor,), fresh=False)


def _alone(one: _Alone) -> Scenario:
    steps = (
        s.Plant(one.plant, one.mode), FINDS, s.Plant(NEW, only=(one.section,)), s.Expect(s.Written(one.section)),
    )  # fmt: skip
    return _case(one.section, f"alone-from-{one.plant}-{one.mode}", steps, one.vendor, CITE)


def _two(one: _Two) -> Scenario:
    used, both = s.Plant(one.plant, one.mode), (one.first, one.second)
    steps = (
        used, s.Plant(NEW, only=both), FINDS, used, s.Plant(NEW, only=both[::-1]), s.Expect(s.Same(_COMPUTED)),
    )  # fmt: skip
    second = one.second.replace("_", "-")
    return _case(one.first, f"either-side-of-{second}-from-{one.plant}-{one.mode}", steps, one.vendor, (KVM_API,))


_ALONE = covering(
    list(map(_Alone._make, product(_WRITTEN, PLANTS, APIC_MODES, VENDORS))), tuple(combinations(range(4), 2))
)
_TWO = covering(
    [
        _Two(*pair, *rest)
        for pair in combinations(_WRITTEN, 2)
        if independent(*pair)
        for rest in product(PLANTS, APIC_MODES, VENDORS)
    ],
    tuple(combinations(range(5), 2)),
)

SCENARIOS = (*map(_alone, _ALONE), *map(_two, _TWO))
