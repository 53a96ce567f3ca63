# SPDX-License-Identifier: GPL-2.0-only
"""The activity state written by ioctl: KVM_SET_MP_STATE (KVM API, KVM_GET_MP_STATE).

KVM_MP_STATE_SIPI_RECEIVED is a SIPI whose vector KVM_SET_VCPU_EVENTS gives. KVM_MP_STATE_INIT_RECEIVED is no INIT: the word
alone changes, and a VMM that restores a vCPU in wait-for-SIPI relies on that.
"""

from __future__ import annotations

from kvmtest.engine.error import TriggerError
from kvmtest.kvm import Vcpu
from kvmtest.uapi.kvm import (
    KVM_MP_STATE_INIT_RECEIVED,
    KVM_MP_STATE_SIPI_RECEIVED,
    KVM_VCPUEVENT_VALID_SIPI_VECTOR,
)

__all__ = ("init_received", "sipi")


def init_received(vcpu: Vcpu) -> None:
    """Put ``vcpu`` in wait-for-SIPI without an INIT. Raises TriggerError where it is not there then, KvmError."""
    vcpu.set_mp_state(KVM_MP_STATE_INIT_RECEIVED)
    if (state := vcpu.get_mp_state()) != KVM_MP_STATE_INIT_RECEIVED:
        raise TriggerError(f"KVM_SET_MP_STATE(INIT_RECEIVED) left vcpu {vcpu.id} in state {state}")


def sipi(vcpu: Vcpu, vector: int) -> None:
    """Start ``vcpu`` at ``vector`` (0-FFH) as a SIPI does. Raises KvmError."""
    events = vcpu.get_vcpu_events()
    events.flags |= KVM_VCPUEVENT_VALID_SIPI_VECTOR
    events.sipi_vector = vector
    vcpu.set_vcpu_events(events)
    vcpu.set_mp_state(KVM_MP_STATE_SIPI_RECEIVED)
