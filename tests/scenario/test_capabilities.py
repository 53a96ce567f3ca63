# SPDX-License-Identifier: GPL-2.0-only
"""Capabilities as parameters of a VM: each is enabled by its program, needed by its cases, and tried with INIT."""

from __future__ import annotations

import pytest

from kvmtest.scenario.capabilities import CAPABILITIES
from kvmtest.scenario.catalogue import SCENARIOS
from kvmtest.scenario.needs import NEEDS
from kvmtest.scenario.program import DENIED, Buffer, Create, Ioctl
from kvmtest.scenario.setup import Setup
from kvmtest.scenario.vm import lower
from kvmtest.uapi.kvm import KVM_ENABLE_CAP, KVM_X86_SET_MSR_FILTER, kvm_enable_cap


class _Host:
    supported: list[object] = []
    mce_cap = 0

    def check_extension(self, cap: int) -> int:
        return 1


def _enabled(setup: Setup) -> list[tuple[int, int]]:
    program = lower(setup, _Host())  # type: ignore[arg-type]
    asked = (op for _, op in program.ops if isinstance(op, Ioctl) and op.request == KVM_ENABLE_CAP)
    made = (kvm_enable_cap.from_buffer_copy(program.buffers[str(op.arg)].contents) for op in asked)
    return [(one.cap, one.args[0]) for one in made]


@pytest.mark.parametrize("name", CAPABILITIES)
def test_a_vm_asks_for_it_once_and_needs_it(name: str) -> None:
    cap, argument, flags = CAPABILITIES[name]
    setup = Setup("none", caps=((cap, argument),))
    assert [pair for pair in _enabled(setup) if pair[0] == cap] == [(cap, argument)]
    assert setup.needs == (name,)
    (need,) = NEEDS[name]
    assert (need.cap, need.flags) == (cap, argument if flags else 0)


def test_msrs_are_denied_before_there_is_a_vcpu() -> None:
    setup = Setup("none", denied=(0xC0000082, 1))
    program = lower(setup, _Host())  # type: ignore[arg-type]
    filtered = next(i for i, (_, op) in enumerate(program.ops) if isinstance(op, Ioctl) and op.request == KVM_X86_SET_MSR_FILTER)
    assert filtered < next(i for i, (_, op) in enumerate(program.ops) if isinstance(op, Create))
    assert program.buffers["denied"] == Buffer(DENIED, bytes.fromhex("820000c0 01000000"))
    assert "msr-filter" in setup.needs


def test_each_is_tried_with_an_init() -> None:
    tried = {name for one in SCENARIOS.values() if one.event == "init" for name in one.setup.needs}
    assert tried >= CAPABILITIES.keys()
