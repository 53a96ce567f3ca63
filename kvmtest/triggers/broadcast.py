# SPDX-License-Identifier: GPL-2.0-only
"""INIT to all vCPUs but the one that sends it: ICR destination shorthand all-excluding-self.

SDM vol. 3, Interrupt Command Register (ICR), Valid Combinations for the Local APIC Interrupt Command Register; APM vol. 2,
Interrupt Command Register.
"""

from __future__ import annotations

from kvmtest.kvm import Vcpu
from kvmtest.triggers import latched, msi, sender

__all__ = ("ICR", "init", "prepare")

_ALL_EXCLUDING_SELF = 3 << 18
#: Bits 31:0 of the ICR.
ICR = _ALL_EXCLUDING_SELF | msi.INIT | msi.ASSERT


def prepare(vcpu: Vcpu, *, x2apic: bool) -> None:
    """Make ``vcpu`` ready to send: its registers, segments and activity state are lost. Raises KvmError."""
    sender.prepare(vcpu, ICR, 0, x2apic=x2apic)


def init(vcpu: Vcpu) -> None:
    """Let ``vcpu``, which prepare() has made ready, send. Raises TriggerError where one did not get the INIT, KvmError."""
    sender.run(vcpu)
    for other in vcpu.vm.vcpus:
        if other is not vcpu:
            latched.wait_for(other, "the guest's broadcast")
