# SPDX-License-Identifier: GPL-2.0-only
"""A need is met, or the reason why not is reported."""

from __future__ import annotations

import pytest

from kvmtest.engine.plan import plan
from kvmtest.scenario.needs import NEEDS, Need, of_capability, unmet
from kvmtest.scenario.setup import Setup
from kvmtest.uapi.kvm import KVM_CAP_X2APIC_API, KVM_CAP_X86_SMM, KVM_CAP_X86_TRIPLE_FAULT_EVENT


class _Facts:
    vendor = "intel"

    def __init__(self, bit: int) -> None:
        self.bit = bit

    def extension(self, cap: int) -> int:
        return self.bit << 2

    def leaf(self, function: int, register: str) -> int:
        return self.bit << 3

    def msr(self, index: int) -> int:
        return self.bit << 39


@pytest.mark.parametrize(
    ("need", "bit"),
    [
        (Need("", cap=1), 1),
        (Need("", cap=1, flags=1 << 2), 1),
        (Need("", cpuid=(1, "ecx", 3)), 1),
        (Need("", cpuid=(1, "ecx", 3), clear=True), 0),
        (Need("", msr=(0x48B, 39)), 1),
        (Need("", msr=(0x48B, 39), clear=True), 0),
    ],
)
def test_a_need_is_met_by_the_bit_and_not_without_it(need: Need, bit: int) -> None:
    assert need.met(_Facts(bit))
    assert not need.met(_Facts(1 - bit))
    assert not need._replace(vendor="amd").met(_Facts(bit))


def test_each_capability_that_a_setup_enables_is_a_need_of_the_setup() -> None:
    asked = {(cap, case.setup) for case in plan() for cap, _ in case.setup.caps}
    assert len({cap for cap, _ in asked}) > 4
    assert all(any(need.cap == cap for name in setup.needs for need in NEEDS[name]) for cap, setup in asked)


def test_a_vm_without_the_capability_is_a_skip_that_names_it() -> None:
    caps = ((KVM_CAP_X86_TRIPLE_FAULT_EVENT, 0), (KVM_CAP_X2APIC_API, 1), (KVM_CAP_X2APIC_API, 2))
    setup = Setup(caps=caps)
    assert setup.needs == ("no-triple-fault-event", "x2apic-32-bit-ids", "x2apic-no-broadcast")
    assert unmet(setup.needs, _Facts(0)) == "KVM_CAP_X86_TRIPLE_FAULT_EVENT is not there" and not unmet(setup.needs, _Facts(1))
    assert of_capability(KVM_CAP_X86_SMM, 0) == "smm" and not of_capability(1 << 20, 0)
