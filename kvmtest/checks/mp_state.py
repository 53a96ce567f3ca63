# SPDX-License-Identifier: GPL-2.0-only
"""What KVM_SET_MP_STATE takes and refuses, and where it leads (KVM API, KVM_GET_MP_STATE and KVM_SET_MP_STATE)."""

from __future__ import annotations

from collections.abc import Iterable

from kvmtest.checks.check import Check, Observation, Subject, Untestable
from kvmtest.checks.stage import SIPI_VECTOR, Stage
from kvmtest.guests import behaviour
from kvmtest.kvm import KvmError, Vcpu
from kvmtest.kvm.where import where
from kvmtest.model.value import MP_STATES
from kvmtest.spec.cite import KVM_API, KVM_HYPERCALLS
from kvmtest.triggers import latched, mp_state, msi
from kvmtest.uapi.kvm import (
    KVM_EXIT_IO,
    KVM_MP_STATE_AP_RESET_HOLD,
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
    KVM_VCPUEVENT_VALID_SIPI_VECTOR,
    KVM_VCPUEVENT_VALID_SMM,
)

__all__ = ("CHECKS",)

_VECTOR = 0x9F
#: Message data: the delivery mode that KVM_HC_KICK_CPU sends, once "remote read".
_KICK = 0x300
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
        return error.name
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


def _init_over_init_received(subject: Subject) -> str:
    vcpu = subject.vcpu
    latched.init(vcpu)
    answer = _answer(vcpu, KVM_MP_STATE_INIT_RECEIVED)
    pending = vcpu.get_vcpu_events().smi.latched_init
    return f"{answer}, INIT {'pending' if pending else 'lost'}, then {_started(vcpu)}"


def _reset_hold(subject: Subject) -> str:
    answer = _answer(subject.vcpu, KVM_MP_STATE_AP_RESET_HOLD)
    state = subject.vcpu.get_mp_state()
    return f"{answer}, {'reads back' if state == KVM_MP_STATE_AP_RESET_HOLD else MP_STATES.get(state, state)}"


def _kick_forgotten(subject: Subject) -> str:
    vcpu = subject.vcpu
    vcpu.set_mp_state(KVM_MP_STATE_RUNNABLE)
    msi.send(vcpu, _KICK)
    vcpu.set_mp_state(KVM_MP_STATE_HALTED)
    if vcpu.get_mp_state() != KVM_MP_STATE_RUNNABLE:
        raise Untestable("nothing to tell: a vCPU that KVM_HC_KICK_CPU has reached does not read as awake here")
    msi.init(vcpu)
    vcpu.get_mp_state()
    msi.sipi(vcpu, _VECTOR)
    vcpu.get_mp_state()
    vcpu.set_mp_state(KVM_MP_STATE_HALTED)
    return MP_STATES.get(vcpu.get_mp_state(), "unknown")


def _runs(subject: Subject) -> Observation:
    vcpu, stage = subject.vcpu, Stage(subject, behaviour.TOPIC_HALT)
    mp_state.sipi(vcpu, SIPI_VECTOR)
    exit_ = stage.run_for(subject.timeout_s)
    if exit_ is None:
        return Observation("runs nothing", where(vcpu))
    if exit_.reason != KVM_EXIT_IO or exit_.port != behaviour.PORT_SIPI:
        return Observation("runs something else", f"{exit_} ({where(vcpu)})")
    return Observation(f"runs the code at {int.from_bytes(exit_.data[:4], 'little'):04x}:0000")


def _vector_behind_state(subject: Subject) -> str:
    vcpu = subject.vcpu
    mp_state.sipi(vcpu, _VECTOR - 1)
    events = vcpu.get_vcpu_events()
    events.flags |= KVM_VCPUEVENT_VALID_SIPI_VECTOR
    events.sipi_vector = _VECTOR
    vcpu.set_vcpu_events(events)
    return _started(vcpu)


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
_NO_ORDER = "the API says nothing of the order of KVM_SET_VCPU_EVENTS and KVM_SET_MP_STATE"
_SEV_ES = "KVM's own state of an SEV-ES guest's AP, which the API's table does not list"
_KICKED = "a kick is KVM's own, and its documentation does not say what INIT and SIPI make of it"
_STARTED = f"RUNNABLE {_VECTOR << 8:04x}:0000"

CHECKS = (
    Check("none", "mp-state", "reads-back", (), " ".join(MP_STATES[state] for state in _KEPT), _read_back, (KVM_API,)),
    Check("none", "mp-state", "without-irqchip", (), _NO_APIC, _without_irqchip, (KVM_API,)),
    Check("none", "mp-state", "of-no-x86", (), _REFUSED, _not_x86, (KVM_API,), _ANY_TAKEN),
    Check("none", "mp-state", "init-received-over-smi", (), "EINVAL", _smi_pending, (KVM_API,), _BLOCKED),
    Check(
        "init", "latched", "over-init-received", (), "taken, INIT pending, then INIT_RECEIVED f000:fff0",
        _init_over_init_received, (KVM_API,), _NO_ORDER,
    ),
    Check("none", "mp-state", "ap-reset-hold", (), "", _reset_hold, (KVM_API,), _SEV_ES),
    Check("sipi", "mp-state", "vector-behind-state", (), _STARTED, _vector_behind_state, (KVM_API,), _NO_ORDER),
    Check(
        "sipi", "mp-state", "run", (), f"runs the code at {SIPI_VECTOR << 8:04x}:0000", _runs, (KVM_API,),
        view="guest", alone=True,
    ),
    Check("sipi", "msi", "earlier-kick", (), "HALTED", _kick_forgotten, (KVM_HYPERCALLS, KVM_API), _KICKED),
    Check("sipi", "mp-state", "taken-when-running", (), _STARTED, _sipi_running, (KVM_API,)),
    Check("sipi", "mp-state", "taken-when-halted", (), _STARTED, _sipi_halted, (KVM_API,)),
    Check("sipi", "mp-state", "discarded-by-init", ("E-7",), "INIT_RECEIVED f000:fff0", _init_over_sipi, (KVM_API,)),
    Check("sipi", "mp-state", "vector-shown", (), f"{_VECTOR:#x}", _vector_shown, (KVM_API,), _NEVER_SHOWN),
)  # fmt: skip
