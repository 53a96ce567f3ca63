# SPDX-License-Identifier: GPL-2.0-only
"""INIT as an IPI: the code of another vCPU writes its ICR at FEE00300H and FEE00310H (SDM vol. 3, Interrupt Command Register)."""

from __future__ import annotations

from kvmtest.kvm import Vcpu
from kvmtest.triggers import latched, logical, msi, sender

__all__ = ("init", "init_logical")


def init(vcpu: Vcpu) -> None:
    """Send INIT to ``vcpu`` from the VM's other vCPU, whose state is lost. Raises TriggerError, KvmError."""
    sender.send(vcpu, msi.INIT | msi.ASSERT, x2apic=False)
    latched.wait_for(vcpu, "the guest's ICR")


def init_logical(vcpu: Vcpu) -> None:
    """The same to the logical APIC id that LDR and DFR give ``vcpu``, in the flat or the cluster model."""
    sender.send(vcpu, msi.INIT | msi.ASSERT | logical.MODE, x2apic=False, destination=logical.destination(vcpu))
    latched.wait_for(vcpu, "the guest's ICR, logical destination")
