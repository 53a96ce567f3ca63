# SPDX-License-Identifier: GPL-2.0-only
"""Values that do not fit their field are refused by name, before KVM sees a truncated one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from kvmtest.kvm import CpuidEntry, Kvm, Vm, irqchip_route, msi_route
from kvmtest.kvm.check import structure, unsigned
from kvmtest.kvm.cpuid import pack_cpuid
from kvmtest.testing import GuestError, load_guest, saved_state
from kvmtest.uapi.structs import kvm_mp_state, kvm_regs, kvm_sregs


def test_integers() -> None:
    unsigned(8, byte=0, other=255)
    for value in (-1, 256, 1.0, "1", None):
        with pytest.raises(ValueError, match="^byte "):
            unsigned(8, byte=value)


def test_structures() -> None:
    structure(kvm_regs, regs=kvm_regs())
    with pytest.raises(ValueError, match="regs is a kvm_sregs, not a struct kvm_regs"):
        structure(kvm_regs, regs=kvm_sregs())


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (lambda vm: vm.add_memory(0, 1 << 64, 4096), "gpa"),
        (lambda vm: vm.add_memory(1 << 32, 0, 4096), "slot"),
        (lambda vm: vm.add_memory(-1, 0, 4096), "slot"),
        (lambda vm: load_guest(vm, b"\xf4", gpa=1 << 64), "gpa"),
        (lambda vm: load_guest(vm, b"\xf4", gpa=-4096), "entry|gpa"),
        (lambda vm: vm.create_vcpu(1 << 32), "id"),
        (lambda vm: vm.enable_cap(1, 1 << 64), r"args\[0\]"),
        (lambda vm: vm.enable_cap(1, 1, 2, 3, 4, 5), "args"),
        (lambda vm: vm.signal_msi(1 << 32, 0), "addr_lo"),
        (lambda vm: vm.irq_line(1 << 32, 1), "gsi"),
        (lambda vm: vm.irqfd(-1), "gsi"),
        (lambda vm: vm.set_gsi_routing([1]), "entries"),
        (lambda vm: vm.set_tss_addr(1 << 64), "addr"),
        (lambda vm: msi_route(1 << 32, 0, 0), "gsi"),
        (lambda vm: irqchip_route(0, 0, 1 << 32), "pin"),
        (lambda vm: vm.set_clock(kvm_regs()), "clock"),
    ],
)
def test_a_vm(call: Callable[[Any], object], field: str, vm: Vm) -> None:
    with pytest.raises(ValueError, match=f"^(?:{field})"):
        call(vm)
    assert vm.memory == [] and vm._eventfds == []


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (lambda vcpu: vcpu.set_msrs({1 << 70: 1}), "index"),
        (lambda vcpu: vcpu.set_msrs({0x277: 1 << 64}), "MSR 0x277"),
        (lambda vcpu: vcpu.get_msrs([1 << 32]), "index"),
        (lambda vcpu: vcpu.set_sregs(kvm_mp_state()), "value is a kvm_mp_state, not a struct kvm_sregs"),
        (lambda vcpu: vcpu.set_regs(b"x"), "value is a bytes"),
        (lambda vcpu: vcpu.set_mp_state(1 << 32), "state"),
        (lambda vcpu: vcpu.get_one_reg(1 << 64), "id"),
        (lambda vcpu: vcpu.set_one_reg(0x2030 << 48, 1 << 64), "value"),
        (lambda vcpu: vcpu.translate(1 << 64), "linear_address"),
        (lambda vcpu: vcpu.set_cpuid2([CpuidEntry(1 << 32, 0, 0, 0, 0, 0, 0)]), "cpuid function"),
        (lambda vcpu: vcpu.x86_setup_mce(1 << 64), "mcg_cap"),
    ],
)
def test_a_vcpu(call: Callable[[Any], object], field: str, kvm: Kvm, vm: Vm) -> None:
    with pytest.raises(ValueError, match=f"^{field}"):
        call(vm.create_vcpu(0))


def test_saved_state() -> None:
    for wrong in ({"a": 1}, {1: 1 << 64}, {1 << 32: 1}):
        with pytest.raises(ValueError, match="^msrs"):
            saved_state(msrs=wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="^cpuid: a int"):
        saved_state(cpuid=[1])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="^regs: a int"):
        saved_state(regs=1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="cpuid eax"):
        pack_cpuid([CpuidEntry(0, 0, 0, -1, 0, 0, 0)])


def test_a_guest_that_cannot_be_put_anywhere_is_no_guest(vm: Vm) -> None:
    with pytest.raises(GuestError, match="entry"):
        load_guest(vm, b"\xf4", gpa=0, entry=1 << 64)
