# SPDX-License-Identifier: GPL-2.0-only
"""INIT as an IPI: the code of another vCPU writes its ICR at MSR 830H (SDM vol. 3, Interrupt Command Register)."""

from __future__ import annotations

from kvmtest.kvm import Vcpu
from kvmtest.triggers import latched, msi, sender

__all__ = ("init",)


def init(vcpu: Vcpu) -> None:
    """Send INIT to ``vcpu`` from the VM's other vCPU, whose state is lost. Raises TriggerError, KvmError."""
    sender.send(vcpu, msi.INIT | msi.ASSERT, x2apic=True)
    latched.wait_for(vcpu, "the guest's ICR")
