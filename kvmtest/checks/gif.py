# SPDX-License-Identifier: GPL-2.0-only
"""INIT and SIPI with SVM's GIF clear, by KVM_SET_NESTED_STATE (host view), or by CLGI until STGI or VMRUN (guest view)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from kvmtest.checks.check import Check, Observation, Stopped, Subject
from kvmtest.checks.delivery import run_at, seen
from kvmtest.checks.pending import HELD, TAKEN, held, is_pending, mp_state, runs, state
from kvmtest.checks.svm import LEFT, TURNS, SvmStage, after_init, need_svm, nested_flags, set_gif, set_svme
from kvmtest.guests import svm
from kvmtest.kvm import KvmError, Vcpu
from kvmtest.spec.cite import A_GIF, A_SVM_INIT, A_SVME, KVM_API
from kvmtest.triggers import msi
from kvmtest.uapi.kvm import KVM_MP_STATE_RUNNABLE, KVM_STATE_NESTED_GIF_SET

__all__ = ("CHECKS",)

_SIPI = 0x10
#: Bit of the VMCB's intercepts.
_INIT = 3


@contextmanager
def _gif_clear(subject: Subject) -> Iterator[Vcpu]:
    """The AP past its SIPI, with EFER.SVME set and GIF clear; GIF is set and nothing pending afterwards."""
    with _svme(subject) as vcpu:
        set_gif(vcpu, False)
        if nested_flags(vcpu) & KVM_STATE_NESTED_GIF_SET:
            raise Stopped("KVM_SET_NESTED_STATE took a clear GIF, and KVM_GET_NESTED_STATE shows it set")
        yield vcpu


@contextmanager
def _svme(subject: Subject) -> Iterator[Vcpu]:
    vcpu = subject.vcpu
    need_svm(vcpu)
    run_at(vcpu)
    set_svme(vcpu, True)
    try:
        yield vcpu
    finally:
        set_gif(vcpu, True)
        set_svme(vcpu, False)
        vcpu.get_mp_state()
        vcpu.set_mp_state(KVM_MP_STATE_RUNNABLE)


def _latched(subject: Subject) -> str:
    with _gif_clear(subject) as vcpu:
        before = state(vcpu)
        msi.init(vcpu)
        return held(vcpu, before)


def _taken_after(subject: Subject) -> str:
    with _gif_clear(subject) as vcpu:
        msi.init(vcpu)
        vcpu.get_mp_state()
        set_gif(vcpu, True)
        return after_init(vcpu)


def _sipi(subject: Subject) -> str:
    with _gif_clear(subject) as vcpu:
        msi.init(vcpu)
        vcpu.get_mp_state()
        msi.sipi(vcpu, _SIPI)
        vcpu.get_mp_state()
        set_gif(vcpu, True)
        return seen(vcpu)


def _without_svme(subject: Subject) -> str:
    """Clearing EFER.SVME leaves GIF as it is (APM), which KVM_SET_NESTED_STATE says by flags of 0."""
    with _gif_clear(subject) as vcpu:
        set_svme(vcpu, False)
        kept = "set" if nested_flags(vcpu) & KVM_STATE_NESTED_GIF_SET else "clear"
        try:
            set_gif(vcpu, False)
        except KvmError as error:
            return f"GIF {kept}; KVM_SET_NESTED_STATE: {error.name}"
        msi.init(vcpu)
        return f"GIF {kept}; KVM_SET_NESTED_STATE: taken, {seen(vcpu)}"


def _init_received(subject: Subject) -> str:
    with _gif_clear(subject) as vcpu:
        return mp_state(vcpu)


def _gif_clear_while_init_received(subject: Subject) -> str:
    with _svme(subject) as vcpu:
        msi.init(vcpu)
        vcpu.get_mp_state()
        set_svme(vcpu, True)
        try:
            set_gif(vcpu, False)
        except KvmError as error:
            return error.name
        return f"taken, {runs(vcpu)}"


def _held_by_gif(subject: Subject) -> SvmStage:
    """The guest in the loop that it makes with GIF clear, and an INIT."""
    stage = SvmStage(subject, svm.TOPIC_GIF)
    stage.start_l1()
    msi.init(subject.vcpu)
    return stage


def _guest_latched(subject: Subject) -> str:
    stage = _held_by_gif(subject)
    said = stage.then()
    return f"{said}, INIT {'pending' if is_pending(subject.vcpu) else 'not pending'}"


def _at_stgi(subject: Subject) -> Observation:
    """Behind STGI there is a loop that makes no exit: INIT has to come before its first turn."""
    stage = _held_by_gif(subject)
    stage.expect(svm.PORT_VALUE)
    said = stage.then()
    more = stage.count() - TURNS
    if said == "INIT":
        return Observation("INIT before the next instruction" if not more else f"INIT {more} turns behind STGI")
    late = stage.then()
    return Observation(f"no INIT within {TURNS} turns behind STGI", f"the guest's next KVM_RUN, behind an OUT: {late}")


def _at_vmrun(subject: Subject, *intercepts: int) -> str:
    """VMRUN sets GIF: the nested guest must not get to its first instruction."""
    stage = SvmStage(subject, svm.TOPIC_RUN, *intercepts)
    stage.start_l1()
    msi.init(subject.vcpu)
    return stage.then()


def _at_vmrun_intercepted(subject: Subject) -> str:
    return _at_vmrun(subject, _INIT)


def _at_vmrun_taken(subject: Subject) -> str:
    return _at_vmrun(subject)


_GIF = (A_GIF, A_SVM_INIT)
_SILENT = "the API is silent; KVM refuses it until v6.16, and from v6.17 on fails the KVM_RUN after it"
_GIF_ALONE = "in the APM GIF does not depend on EFER.SVME; KVM before v7.0 sets it when SVME is cleared, and keeps it so"
_NEITHER = "the API is silent, and a CPU cannot come there: with GIF clear INIT is not taken"

CHECKS = (
    Check("init", "gif-clear", "latched", ("E-18",), HELD, _latched, _GIF),
    Check("init", "gif-clear", "taken-after", ("E-18",), f"{TAKEN}, {LEFT}", _taken_after, _GIF),
    Check("sipi", "gif-clear", "dropped", ("E-18",), TAKEN, _sipi, _GIF),
    Check("init", "gif-clear", "without-svme", ("E-18",), "", _without_svme, (A_SVME, KVM_API), _GIF_ALONE),
    Check("none", "mp-state", "init-received-with-gif-clear", ("E-18",), "", _init_received, (KVM_API,), _SILENT),
    Check(
        "none", "nested-state", "gif-clear-while-init-received", ("E-18",), "", _gif_clear_while_init_received, (KVM_API,),
        _NEITHER,
    ),
    Check(
        "init", "gif-clear", "latched", ("E-18",), f"{TURNS} turns, INIT pending", _guest_latched, _GIF,
        target="bsp", view="guest", alone=True,
    ),
    Check(
        "init", "gif-clear", "taken-at-stgi", ("E-18",), "INIT before the next instruction", _at_stgi, _GIF,
        target="bsp", view="guest", alone=True,
    ),
    Check(
        "init", "gif-clear", "intercepted-at-vmrun", ("E-18", "E-19"), "#VMEXIT(63h)", _at_vmrun_intercepted, _GIF,
        target="bsp", view="guest", alone=True,
    ),
    Check(
        "init", "gif-clear", "taken-at-vmrun", ("E-18", "E-21"), "INIT", _at_vmrun_taken, _GIF,
        target="bsp", view="guest", alone=True,
    ),
)  # fmt: skip
