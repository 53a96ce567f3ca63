# SPDX-License-Identifier: GPL-2.0-only
"""INIT to all vCPUs but the one that sends it: the ICR's destination shorthand all-excluding-self.

SDM vol. 3 and APM vol. 2, Interrupt Command Register: with INIT this is the one shorthand that is valid.
"""

from __future__ import annotations

from kvmtest.kvm import Vcpu
from kvmtest.triggers import latched, msi, sender

__all__ = ("ICR", "init", "prepare", "send")

_ALL_EXCLUDING_SELF = 3 << 18
#: Bits 31:0 of the ICR.
ICR = _ALL_EXCLUDING_SELF | msi.INIT | msi.ASSERT
_X2APIC = 1 << 10


def init(vcpu: Vcpu) -> None:
    """Send INIT to ``vcpu`` and all others from one of them, in ``vcpu``'s APIC mode. Raises TriggerError, KvmError."""
    by = next(other for other in vcpu.vm.vcpus if other is not vcpu)
    prepare(by, x2apic=bool(vcpu.get_sregs().apic_base & _X2APIC))
    send(by)


def prepare(vcpu: Vcpu, *, x2apic: bool) -> None:
    """Make ``vcpu`` ready to send: its registers, segments and activity state are lost. Raises KvmError."""
    sender.prepare(vcpu, ICR, 0, x2apic=x2apic)


def send(vcpu: Vcpu) -> None:
    """Let ``vcpu``, which prepare() has made ready, send. Raises TriggerError where another did not get it, KvmError."""
    sender.run(vcpu)
    for other in vcpu.vm.vcpus:
        if other is not vcpu:
            latched.wait_for(other, "the guest's broadcast")
