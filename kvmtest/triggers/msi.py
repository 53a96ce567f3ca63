# SPDX-License-Identifier: GPL-2.0-only
"""INIT and SIPI as message signalled interrupts: KVM_SIGNAL_MSI (KVM API; SDM vol. 3, Message Data Register Format)."""

from __future__ import annotations

from kvmtest.engine.error import TriggerError
from kvmtest.kvm import Vcpu

__all__ = ("ASSERT", "INIT", "LEVEL_TRIGGERED", "address", "init", "send", "sipi")

#: Message data: delivery modes INIT and Start Up, edge-triggered.
INIT, _STARTUP = 0x500, 0x600
#: Level and trigger mode. A level-triggered INIT without ASSERT is a de-assertion.
ASSERT, LEVEL_TRIGGERED = 1 << 14, 1 << 15


def address(vcpu: Vcpu) -> int:
    """Message address for ``vcpu`` alone: physical destination mode, no redirection hint, bits 7:0 of its id."""
    return 0xFEE00000 | (vcpu.id & 0xFF) << 12


def send(vcpu: Vcpu, data: int) -> None:
    """Send message ``data`` to ``vcpu`` in physical destination mode. Raises TriggerError when nobody took it, KvmError."""
    # Bits 31:8 count with KVM_X2APIC_API_USE_32BIT_IDS (KVM API, KVM_SET_GSI_ROUTING), which ids above 255 need.
    if vcpu.vm.signal_msi(address(vcpu), data, vcpu.id & ~0xFF) <= 0:
        raise TriggerError(f"KVM_SIGNAL_MSI with data {data:#x} reached no vCPU with APIC id {vcpu.id}")


def init(vcpu: Vcpu) -> None:
    """Send INIT to ``vcpu`` in physical destination mode. Raises TriggerError when nobody took it, KvmError."""
    send(vcpu, INIT)


def sipi(vcpu: Vcpu, vector: int) -> None:
    """Send a SIPI with ``vector`` (0-FFH) to ``vcpu``. Raises TriggerError when nobody took it, KvmError."""
    send(vcpu, _STARTUP | vector)
