# SPDX-License-Identifier: GPL-2.0-only
"""IA32_APIC_BASE.BSP of a vCPU whose local APIC is the VMM's: KVM must leave it as RESET, and as the VMM, set it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from kvmtest.checks.check import Check, Stopped, Subject
from kvmtest.checks.own import as_guest, own_vm
from kvmtest.checks.stage import Stage
from kvmtest.guests import behaviour
from kvmtest.kvm import Vcpu
from kvmtest.spec.cite import A_APIC_ENABLE, A_MP, KVM_API, S_APIC_ENABLE, S_MP

__all__ = ("CHECKS",)

_MSR_APIC_BASE = 0x1B
#: Enabled, at FEE00000, and not the BSP.
_AP = 0xFEE00800


@contextmanager
def _ap(subject: Subject) -> Iterator[Vcpu]:
    """vCPU 1 of a VM without in-kernel local APICs."""
    with own_vm(subject, "none") as vm:
        vm.create_vcpu(0)
        yield as_guest(subject, vm.create_vcpu(1))


def _by_sregs(subject: Subject) -> str:
    with _ap(subject) as vcpu:
        sregs = vcpu.get_sregs()
        sregs.apic_base = _AP
        vcpu.set_sregs(sregs)
        return f"{vcpu.get_sregs().apic_base:#x}"


def _by_msr(subject: Subject) -> str:
    with _ap(subject) as vcpu:
        vcpu.set_msrs({_MSR_APIC_BASE: _AP})
        return f"{vcpu.get_msrs([_MSR_APIC_BASE]).get(_MSR_APIC_BASE, 0):#x}"


def _by_guest(subject: Subject) -> str:
    with _ap(subject) as vcpu:
        stage = Stage(subject._replace(vcpu=vcpu), behaviour.TOPIC_X2APIC)
        stage.expect(behaviour.PORT_RESET)
        stage.expect(behaviour.PORT_READY)
        port, value = stage.word()
        if port != behaviour.PORT_VALUE:
            raise Stopped("the guest's RDMSR of IA32_APIC_BASE raises an exception")
        return f"{value:#x}"


_CITE = (S_APIC_ENABLE, S_MP, A_APIC_ENABLE, A_MP)

CHECKS = (
    Check("reset", "create", "bsp-without-irqchip", (), f"{_AP:#x}", _by_guest, _CITE, view="guest", alone=True),
    Check("none", "set-sregs", "bsp-without-irqchip", (), f"{_AP:#x}", _by_sregs, (KVM_API, *_CITE), alone=True),
    Check("none", "set-msrs", "bsp-without-irqchip", (), f"{_AP:#x}", _by_msr, (KVM_API, *_CITE), alone=True),
)
