# SPDX-License-Identifier: GPL-2.0-only
"""An INIT that has to wait: whether it is pending, and that nothing of it shows before it is taken."""

from __future__ import annotations

from kvmtest.checks.delivery import seen
from kvmtest.kvm import KvmError, Vcpu
from kvmtest.model.value import MP_STATES
from kvmtest.uapi.kvm import KVM_MP_STATE_INIT_RECEIVED, KVM_MP_STATE_RUNNABLE, KVM_VCPUEVENT_VALID_SMM

__all__ = ("HELD", "TAKEN", "held", "is_pending", "mp_state", "runs", "set_smi", "state")

#: What `held` says of an INIT that is kept, and `seen` of an AP that has taken it.
HELD = "pending, RUNNABLE, all as it was"
TAKEN = "INIT_RECEIVED f000:fff0"

#: Seconds that a vCPU may take to be refused, or else to run nothing.
_WHILE_S = 0.005
_State = tuple[bytes, ...]


def is_pending(vcpu: Vcpu) -> bool:
    """Whether an INIT is pending. Raises KvmError."""
    return bool(vcpu.get_vcpu_events().smi.latched_init)


def state(vcpu: Vcpu) -> _State:
    """What INIT would change first: general, special and debug registers, the local APIC. Raises KvmError."""
    return bytes(vcpu.get_regs()), bytes(vcpu.get_sregs()), bytes(vcpu.get_debugregs()), bytes(vcpu.get_lapic())


def held(vcpu: Vcpu, before: _State) -> str:
    """What became of an INIT sent when the vCPU's state was ``before``; KVM_GET_MP_STATE lets KVM take it. Raises KvmError."""
    activity = MP_STATES.get(vcpu.get_mp_state(), "unknown")
    pending = "pending" if is_pending(vcpu) else "not pending"
    if state(vcpu) == before:
        return f"{pending}, {activity}, all as it was"
    return f"{pending}, {seen(vcpu)}"


def mp_state(vcpu: Vcpu, asked: int = KVM_MP_STATE_INIT_RECEIVED) -> str:
    """What KVM says to KVM_SET_MP_STATE(``asked``), and, where it takes it, to KVM_RUN. The vCPU is runnable afterwards."""
    try:
        vcpu.set_mp_state(asked)
    except KvmError as error:
        return error.name
    said = runs(vcpu)
    vcpu.set_mp_state(KVM_MP_STATE_RUNNABLE)
    return f"taken, {said}"


def runs(vcpu: Vcpu) -> str:
    """What KVM says to KVM_RUN."""
    try:
        return f"KVM_RUN: {vcpu.run(_WHILE_S).name}"
    except KvmError as error:
        return f"KVM_RUN: {error.name}"
    except TimeoutError:
        return "KVM_RUN: waits"


def set_smi(vcpu: Vcpu, **smi: int) -> None:
    """KVM_SET_VCPU_EVENTS with these of its ``smi`` fields changed. Raises KvmError."""
    events = vcpu.get_vcpu_events()
    events.flags |= KVM_VCPUEVENT_VALID_SMM
    for name, value in smi.items():
        setattr(events.smi, name, value)
    vcpu.set_vcpu_events(events)
