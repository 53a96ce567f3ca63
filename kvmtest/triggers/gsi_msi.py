# SPDX-License-Identifier: GPL-2.0-only
"""INIT by a GSI that KVM_SET_GSI_ROUTING routes to an MSI and KVM_IRQ_LINE raises."""

from __future__ import annotations

from kvmtest.kvm import Vcpu, msi_route
from kvmtest.triggers import latched, msi

__all__ = ("init",)

#: Above the IOAPIC's 24 pins.
_GSI = 32


def init(vcpu: Vcpu, gsi: int = _GSI) -> None:
    """Send INIT to ``vcpu`` by ``gsi``; replaces the VM's GSI routing table. Raises TriggerError, KvmError."""
    vcpu.vm.set_gsi_routing([msi_route(gsi, msi.address(vcpu), msi.INIT)])
    vcpu.vm.irq_line(gsi, 1)
    latched.wait_for(vcpu, f"KVM_IRQ_LINE of GSI {gsi}")
