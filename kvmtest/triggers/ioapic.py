# SPDX-License-Identifier: GPL-2.0-only
"""INIT by a redirection entry of KVM's IOAPIC (Intel 82093AA datasheet, I/O Redirection Table; KVM_SET_IRQCHIP)."""

from __future__ import annotations

from kvmtest.kvm import Vcpu, irqchip_route
from kvmtest.triggers import latched, msi
from kvmtest.uapi.kvm import KVM_IRQCHIP_IOAPIC

__all__ = ("init",)

_PIN = 10
_MASKED = 1 << 16


def init(vcpu: Vcpu) -> None:
    """Send INIT to ``vcpu``, edge-triggered; replaces the VM's GSI routing table. Raises TriggerError, KvmError."""
    vm = vcpu.vm
    vm.set_gsi_routing([irqchip_route(_PIN, KVM_IRQCHIP_IOAPIC, _PIN)])
    _redirect(vcpu, vcpu.id << 56 | msi.INIT)
    vm.irq_line(_PIN, 1)
    vm.irq_line(_PIN, 0)
    latched.wait_for(vcpu, "the IOAPIC")
    _redirect(vcpu, _MASKED)


def _redirect(vcpu: Vcpu, entry: int) -> None:
    state = vcpu.vm.get_irqchip(KVM_IRQCHIP_IOAPIC)
    state.chip.ioapic.redirtbl[_PIN].bits = entry
    vcpu.vm.set_irqchip(state)
