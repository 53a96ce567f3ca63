# SPDX-License-Identifier: GPL-2.0-only
"""What KVM_SET_MP_STATE takes and refuses, and where it leads (KVM API, KVM_GET_MP_STATE and KVM_SET_MP_STATE)."""

from __future__ import annotations

import errno
from collections.abc import Iterable

from kvmtest.checks.check import Check, Subject
from kvmtest.kvm import KvmError, Vcpu
from kvmtest.spec.cite import KVM_API
from kvmtest.state.layout import MP_STATES
from kvmtest.triggers import mp_state, msi
from kvmtest.uapi.kvm import (
    KVM_MP_STATE_CHECK_STOP,
    KVM_MP_STATE_HALTED,
    KVM_MP_STATE_INIT_RECEIVED,
    KVM_MP_STATE_LOAD,
    KVM_MP_STATE_OPERATING,
    KVM_MP_STATE_RUNNABLE,
    KVM_MP_STATE_SIPI_RECEIVED,
    KVM_MP_STATE_STOPPED,
    KVM_MP_STATE_SUSPENDED,
    KVM_MP_STATE_UNINITIALIZED,
    KVM_VCPUEVENT_VALID_SMM,
)

__all__ = ("CHECKS",)

_VECTOR = 0x9F
_KEPT = (KVM_MP_STATE_RUNNABLE, KVM_MP_STATE_UNINITIALIZED, KVM_MP_STATE_INIT_RECEIVED, KVM_MP_STATE_HALTED)
_OTHERS = (
    KVM_MP_STATE_STOPPED,
    KVM_MP_STATE_CHECK_STOP,
    KVM_MP_STATE_OPERATING,
    KVM_MP_STATE_LOAD,
    KVM_MP_STATE_SUSPENDED,
    100,
)


def _answer(vcpu: Vcpu, state: int) -> str:
    try:
        vcpu.set_mp_state(state)
    except KvmError as error:
        return errno.errorcode.get(error.errno or 0, "an unknown errno")
    return "taken"


def _answers(vcpu: Vcpu, states: Iterable[int]) -> str:
    return ", ".join(f"{MP_STATES.get(state, state)}: {_answer(vcpu, state)}" for state in states)


def _started(vcpu: Vcpu) -> str:
    state = MP_STATES.get(vcpu.get_mp_state(), "unknown")
    return f"{state} {vcpu.get_sregs().cs.selector:04x}:{vcpu.get_regs().rip:04x}"


def _read_back(subject: Subject) -> str:
    vcpu = subject.vcpu
    seen = []
    for state in _KEPT:
        vcpu.set_mp_state(state)
        seen.append(MP_STATES.get(vcpu.get_mp_state(), "unknown"))
    return " ".join(seen)


def _without_irqchip(subject: Subject) -> str:
    with subject.vcpu.vm.kvm.create_vm() as vm:
        return _answers(vm.create_vcpu(0), (*_KEPT, KVM_MP_STATE_SIPI_RECEIVED))


def _not_x86(subject: Subject) -> str:
    return _answers(subject.vcpu, _OTHERS)


def _smi_pending(subject: Subject) -> str:
    vcpu = subject.vcpu
    vcpu.set_mp_state(KVM_MP_STATE_RUNNABLE)
    events = vcpu.get_vcpu_events()
    events.flags |= KVM_VCPUEVENT_VALID_SMM
    events.smi.pending = 1
    try:
        vcpu.set_vcpu_events(events)
    except KvmError as error:
        return f"no SMI can be pending here: {error}"
    answer = _answer(vcpu, KVM_MP_STATE_INIT_RECEIVED)
    events.smi.pending = 0
    vcpu.set_mp_state(KVM_MP_STATE_RUNNABLE)
    vcpu.set_vcpu_events(events)
    return answer


def _sipi_from(state: int, vcpu: Vcpu) -> str:
    vcpu.set_mp_state(state)
    mp_state.sipi(vcpu, _VECTOR)
    return _started(vcpu)


def _sipi_running(subject: Subject) -> str:
    return _sipi_from(KVM_MP_STATE_RUNNABLE, subject.vcpu)


def _sipi_halted(subject: Subject) -> str:
    return _sipi_from(KVM_MP_STATE_HALTED, subject.vcpu)


def _init_over_sipi(subject: Subject) -> str:
    vcpu = subject.vcpu
    mp_state.sipi(vcpu, _VECTOR)
    msi.init(vcpu)
    return _started(vcpu)


def _vector_shown(subject: Subject) -> str:
    vcpu = subject.vcpu
    vcpu.set_mp_state(KVM_MP_STATE_INIT_RECEIVED)
    mp_state.sipi(vcpu, _VECTOR)
    vector = vcpu.get_vcpu_events().sipi_vector
    vcpu.get_mp_state()
    return f"{vector:#x}"


_NO_APIC = ", ".join(
    f"{MP_STATES[state]}: {'taken' if state == KVM_MP_STATE_RUNNABLE else 'EINVAL'}"
    for state in (*_KEPT, KVM_MP_STATE_SIPI_RECEIVED)
)
_REFUSED = ", ".join(f"{MP_STATES.get(state, state)}: EINVAL" for state in _OTHERS)
_ANY_TAKEN = "the API names the states of each architecture and no error; KVM takes any number before v6.0"
_BLOCKED = "the API is silent; KVM refuses it until v6.16, and from v6.17 on fails the KVM_RUN after it"
_NEVER_SHOWN = "the API says so; KVM's KVM_GET_VCPU_EVENTS always returns 0"
_STARTED = f"RUNNABLE {_VECTOR << 8:04x}:0000"

CHECKS = (
    Check("none", "mp-state", "reads-back", (), " ".join(MP_STATES[state] for state in _KEPT), _read_back, (KVM_API,)),
    Check("none", "mp-state", "without-irqchip", (), _NO_APIC, _without_irqchip, (KVM_API,)),
    Check("none", "mp-state", "of-no-x86", (), _REFUSED, _not_x86, (KVM_API,), _ANY_TAKEN),
    Check("none", "mp-state", "init-received-over-smi", (), "EINVAL", _smi_pending, (KVM_API,), _BLOCKED),
    Check("sipi", "mp-state", "taken-when-running", (), _STARTED, _sipi_running, (KVM_API,)),
    Check("sipi", "mp-state", "taken-when-halted", (), _STARTED, _sipi_halted, (KVM_API,)),
    Check("sipi", "mp-state", "discarded-by-init", ("E-7",), "INIT_RECEIVED f000:fff0", _init_over_sipi, (KVM_API,)),
    Check("sipi", "mp-state", "vector-shown", (), f"{_VECTOR:#x}", _vector_shown, (KVM_API,), _NEVER_SHOWN),
)
