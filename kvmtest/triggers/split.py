# SPDX-License-Identifier: GPL-2.0-only
"""INIT through a split irqchip: the IOAPIC is the VMM's, which routes its pin to the message that the pin stands for."""

from __future__ import annotations

from kvmtest.kvm import Vcpu
from kvmtest.triggers import gsi_msi

__all__ = ("init",)

#: A pin of the VMM's IOAPIC.
_PIN = 10


def init(vcpu: Vcpu) -> None:
    """Send INIT to ``vcpu``, whose VM has a split irqchip; replaces the GSI routing table. Raises TriggerError, KvmError."""
    gsi_msi.init(vcpu, _PIN)
