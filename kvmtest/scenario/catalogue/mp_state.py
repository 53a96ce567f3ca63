# SPDX-License-Identifier: GPL-2.0-only
"""States that KVM_SET_MP_STATE accepts or refuses, and their effect (KVM API, KVM_GET_MP_STATE and KVM_SET_MP_STATE)."""

from __future__ import annotations

import errno

from kvmtest.scenario import step as s
from kvmtest.scenario.catalogue.common import pending, wait_for_sipi
from kvmtest.scenario.setup import Setup
from kvmtest.scenario.step import Scenario
from kvmtest.scenario.triggers import message
from kvmtest.spec.cite import KVM_API, KVM_HYPERCALLS
from kvmtest.uapi.kvm import (
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
    KVM_SET_MP_STATE,
)

__all__ = ("SCENARIOS",)

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
#: The items that a SIPI sets.
_STARTED = ("mp_state", "cs.selector", "cs.base", "rip")
_SIPI = s.Send("sipi", "mp-state", vector=_VECTOR)

_ANY_ACCEPTED = "the API names the states of each architecture and no error; KVM accepts any number before v6.0"
_BLOCKED = "the API is silent; KVM refuses it until v6.16, and from v6.17 on fails the KVM_RUN after it"
_NEVER_SHOWN = "the API says so; KVM's KVM_GET_VCPU_EVENTS always returns 0"
_NO_ORDER = "the API says nothing of the order of KVM_SET_VCPU_EVENTS and KVM_SET_MP_STATE"
_SEV_ES = "KVM's own state of an SEV-ES guest's AP, which the API's table does not list"
_KICKED = "a kick is KVM's own, and its documentation does not say what INIT and SIPI make of it"


def _planted(name: str, state: int) -> tuple[s.Step, ...]:
    return (s.Plant(name), s.Set((("mp_state", state),)), s.Observe())


def _write(state: int, result: int = 0) -> tuple[s.Step, ...]:
    """KVM_SET_MP_STATE, and what KVM returns."""
    call = s.Call(KVM_SET_MP_STATE, state.to_bytes(4, "little"), keep=True, kind="kvm_mp_state")
    return (call, s.Expect(s.Answer(result)))


def _none(name: str, steps: tuple[s.Step, ...], undefined: str = "", irqchip: str = "full", *needs: str) -> Scenario:
    return Scenario("none", "mp-state", name, steps, (KVM_API,), needs=needs, setup=Setup(irqchip), undefined=undefined)


def _sipi(name: str, steps: tuple[s.Step, ...], undefined: str = "") -> Scenario:
    return Scenario("sipi", "mp-state", name, steps, (KVM_API,), undefined=undefined)


SCENARIOS = (
    _none(
        "reads-back",
        (
            s.Plant("a"), s.Observe(),
            *(
                step
                for state in _KEPT
                for step in (*_write(state), s.Expect(s.Is("mp_state", state)), s.Expect(s.Same(("mp_state",))))
            ),
        ),
    ),
    _none(
        "without-lapic",
        (
            s.Observe(), *_write(KVM_MP_STATE_RUNNABLE),
            *(step for state in (*_KEPT[1:], KVM_MP_STATE_SIPI_RECEIVED) for step in _write(state, -errno.EINVAL)),
            s.Expect(s.Same()),
        ),
        irqchip="none",
    ),
    _none(
        "of-no-x86",
        (s.Plant("a"), s.Observe(), *(step for state in _OTHERS for step in _write(state, -errno.EINVAL)), s.Expect(s.Same())),
        _ANY_ACCEPTED,
    ),
    _none(
        "init-received-over-smi",
        (
            *_planted("a", KVM_MP_STATE_RUNNABLE), s.Set((("events.smi_pending", 1),)),
            *_write(KVM_MP_STATE_INIT_RECEIVED, -errno.EINVAL),
        ),
        _BLOCKED, "full", "smm",
    ),
    _none(
        "ap-reset-hold", (*_write(KVM_MP_STATE_AP_RESET_HOLD), s.Expect(s.Is("mp_state", KVM_MP_STATE_AP_RESET_HOLD))), _SEV_ES,
    ),
    Scenario(
        "init", "latched", "before-init-received",
        (s.Plant("a"), s.Observe(), s.Send("init", "latched"), *_write(KVM_MP_STATE_INIT_RECEIVED), pending(), s.Observe()),
        (KVM_API,), undefined=_NO_ORDER,
    ),
    _sipi("running", (*_planted("sipi", KVM_MP_STATE_RUNNABLE), _SIPI, s.Observe())),
    _sipi("halted", (*_planted("sipi", KVM_MP_STATE_HALTED), _SIPI, s.Observe())),
    _sipi(
        "vector-after-state",
        (
            *_planted("sipi", KVM_MP_STATE_RUNNABLE), s.Send("sipi", "mp-state", vector=_VECTOR - 1),
            s.Set((("events.sipi_vector", _VECTOR),), check=False), s.Expect(s.Same(_STARTED)),
            s.Expect(s.Is("mp_state", KVM_MP_STATE_RUNNABLE)), s.Expect(s.Is("cs.selector", _VECTOR << 8)),
            s.Expect(s.Is("cs.base", _VECTOR << 12)), s.Expect(s.Is("rip", 0)),
        ),
        _NO_ORDER,
    ),
    _sipi(
        "vector-shown",
        (*_planted("sipi", KVM_MP_STATE_INIT_RECEIVED), _SIPI, s.Expect(s.Is("events.sipi_vector", _VECTOR))), _NEVER_SHOWN,
    ),
    Scenario(
        "init", "msi", "over-sipi-received",
        (
            *_planted("a", KVM_MP_STATE_HALTED), s.Send("sipi", "mp-state", vector=_VECTOR, judged=False), s.Send("init"),
            s.Observe(),
        ),
        (KVM_API,),
    ),
    Scenario(
        "sipi", "msi", "earlier-kick",
        (
            s.Plant("a"), s.Set((("mp_state", KVM_MP_STATE_RUNNABLE),)), *message(1, _KICK),
            s.Set((("mp_state", KVM_MP_STATE_HALTED),), check=False),
            s.Require(
                s.Is("mp_state", KVM_MP_STATE_RUNNABLE),
                "not testable here: a vCPU that KVM_HC_KICK_CPU has reached does not read as awake here", skip=True,
            ),
            *wait_for_sipi(), s.Send("sipi", vector=_VECTOR), s.Settle(),
            s.Set((("mp_state", KVM_MP_STATE_HALTED),), check=False), s.Expect(s.Is("mp_state", KVM_MP_STATE_HALTED)),
        ),
        (KVM_HYPERCALLS, KVM_API), undefined=_KICKED,
    ),
)  # fmt: skip
