# SPDX-License-Identifier: GPL-2.0-only
"""Logical destinations: what an ICR or a message names a local APIC by, instead of its id.

SDM vol. 3, Logical Destination Mode, and Deriving Logical x2APIC ID from the Local x2APIC ID; APM vol. 2, Logical Destination
Mode.
"""

from __future__ import annotations

from kvmtest.kvm import Vcpu
from kvmtest.triggers.error import TriggerError
from kvmtest.uapi.kvm import kvm_lapic_state
from kvmtest.x86 import lapic

__all__ = ("MODE", "destination")

#: ICR bit 11, destination mode.
MODE = 1 << 11
_X2APIC = 1 << 10
#: DFR bits 31:28 of the two models.
_FLAT, _CLUSTER = 0xF, 0x0


def destination(vcpu: Vcpu) -> int:
    """The 8-bit (xAPIC) or 32-bit (x2APIC) logical destination that names ``vcpu`` by the lowest bit of its logical id.

    Raises TriggerError where it has none, as after RESET and INIT in xAPIC mode, KvmError.
    """
    state = vcpu.get_lapic()
    if vcpu.get_sregs().apic_base & _X2APIC:
        ldr = lapic.get(state.regs, "ldr")
        return ldr & 0xFFFF0000 | _lowest(vcpu, ldr & 0xFFFF)
    return _xapic(vcpu, state)


def _xapic(vcpu: Vcpu, state: kvm_lapic_state) -> int:
    id, model = lapic.get(state.regs, "ldr") >> 24, lapic.get(state.regs, "dfr") >> 28
    if model == _FLAT:
        return _lowest(vcpu, id)
    if model == _CLUSTER:
        return id & 0xF0 | _lowest(vcpu, id & 0xF)
    raise TriggerError(f"vcpu {vcpu.id}: DFR has neither the flat nor the cluster model")


def _lowest(vcpu: Vcpu, bits: int) -> int:
    if not bits:
        raise TriggerError(f"vcpu {vcpu.id} has no logical APIC id")
    return bits & -bits
