# SPDX-License-Identifier: GPL-2.0-only
"""A vCPU's position, in a line."""

from __future__ import annotations

from kvmtest.kvm import Vm
from kvmtest.kvm.where import where


def test_registers_and_activity_state_are_reported(vm_irqchip: Vm) -> None:
    bsp, ap = vm_irqchip.create_vcpu(0), vm_irqchip.create_vcpu(1)
    at_reset = "cs:rip f000:fff0 cs.base 0xffff0000 rflags 0x2 cr0 0x60000010"
    assert where(bsp) == f"{at_reset} KVM_MP_STATE_RUNNABLE"
    assert where(ap) == f"{at_reset} KVM_MP_STATE_UNINITIALIZED"


def test_a_vcpu_that_cannot_be_read_is_no_second_error(vm: Vm) -> None:
    vcpu = vm.create_vcpu(0)
    vcpu.close()
    assert where(vcpu) == "unreadable"
