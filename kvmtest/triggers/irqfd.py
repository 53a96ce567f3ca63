# SPDX-License-Identifier: GPL-2.0-only
"""INIT by an eventfd: KVM_IRQFD on a GSI that is routed to an MSI, as VFIO and vhost devices interrupt a guest."""

from __future__ import annotations

import os

from kvmtest.kvm import Vcpu, msi_route
from kvmtest.triggers import latched, msi

__all__ = ("init",)

#: Above the IOAPIC's 24 pins.
_GSI = 33


def init(vcpu: Vcpu) -> None:
    """Send INIT to ``vcpu``; replaces the VM's GSI routing table. Raises TriggerError, KvmError."""
    vm = vcpu.vm
    vm.set_gsi_routing([msi_route(_GSI, msi.address(vcpu), msi.INIT)])
    fd = vm.irqfd(_GSI)
    try:
        os.eventfd_write(fd, 1)
        latched.wait_for(vcpu, "KVM_IRQFD")
    finally:
        vm.irqfd_deassign(_GSI, fd)
