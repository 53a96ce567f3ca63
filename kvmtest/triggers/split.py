# SPDX-License-Identifier: GPL-2.0-only
"""INIT through a split irqchip: the IOAPIC is the VMM's, which routes its pin to the message that the pin stands for."""

from __future__ import annotations

from kvmtest.kvm import Vcpu, msi_route
from kvmtest.triggers import latched, msi

__all__ = ("init",)

#: A pin of the VMM's IOAPIC.
_PIN = 10


def init(vcpu: Vcpu) -> None:
    """Send INIT to ``vcpu``; replaces the VM's GSI routing table. Raises TriggerError, KvmError."""
    vcpu.vm.set_gsi_routing([msi_route(_PIN, msi.address(vcpu), msi.INIT)])
    vcpu.vm.irq_line(_PIN, 1)
    latched.wait_for(vcpu, "KVM_IRQ_LINE on a split irqchip")
