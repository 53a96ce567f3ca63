# SPDX-License-Identifier: GPL-2.0-only
"""INIT, SIPI and SHUTDOWN in system management mode: entered by ioctl (host view), or by an SMI with a handler (guest view)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from kvmtest.checks.check import Check, Observation, Stopped, Subject, Untestable
from kvmtest.checks.delivery import run_at, seen
from kvmtest.checks.pending import HELD, TAKEN, held, is_pending, mp_state, runs, set_smi, state
from kvmtest.checks.stage import SIPI_VECTOR, Stage
from kvmtest.guests import smm
from kvmtest.kvm import GuestMemory, KvmError, Vcpu
from kvmtest.kvm.where import where
from kvmtest.spec.cite import (
    A_SHUTDOWN,
    A_SMM_INHIBIT,
    KVM_API,
    LINUX_SHUTDOWN_SMM,
    S_SMM_INHIBIT,
    S_SMM_SHUTDOWN,
    S_VMX_ACTIVITY,
)
from kvmtest.triggers import msi
from kvmtest.uapi.kvm import KVM_CAP_X86_SMM, KVM_EXIT_SHUTDOWN, KVM_MP_STATE_INIT_RECEIVED, KVM_MP_STATE_RUNNABLE

__all__ = ("CHECKS", "GOES_ON", "Smram", "add_smram", "goes_on", "need_smm")

#: What `goes_on` says of a handler whose INIT is kept.
GOES_ON = "the handler goes on, INIT pending"

#: In SMM a vCPU of KVM sees another address space, number 1 (KVM API, KVM_SET_USER_MEMORY_REGION).
_SMRAM_SLOT = 1 << 16 | 8
#: Turns of the handler's loop, and seconds for a vCPU that must stay where it is.
_TURNS, _WHILE_S = 1000, 0.005
_SIPI = 0x10


def need_smm(vcpu: Vcpu) -> None:
    """Raises Untestable where this KVM has no SMM, KvmError."""
    if not vcpu.vm.check_extension(KVM_CAP_X86_SMM):
        raise Untestable("KVM_CAP_X86_SMM is not there: this KVM has no SMM")


@contextmanager
def _in_smm(subject: Subject) -> Iterator[Vcpu]:
    """The AP, past its SIPI, in SMM by KVM_SET_VCPU_EVENTS; out of it and running afterwards."""
    vcpu = subject.vcpu
    need_smm(vcpu)
    run_at(vcpu)
    set_smi(vcpu, smm=1)
    if not vcpu.get_vcpu_events().smi.smm:
        raise Stopped("KVM_SET_VCPU_EVENTS took smi.smm, and KVM_GET_VCPU_EVENTS shows none")
    try:
        yield vcpu
    finally:
        set_smi(vcpu, smm=0, pending=0, latched_init=0)
        vcpu.set_mp_state(KVM_MP_STATE_RUNNABLE)


def _latched(subject: Subject) -> str:
    with _in_smm(subject) as vcpu:
        before = state(vcpu)
        msi.init(vcpu)
        return held(vcpu, before)


def _after_smm(subject: Subject) -> str:
    with _in_smm(subject) as vcpu:
        msi.init(vcpu)
        vcpu.get_mp_state()
        set_smi(vcpu, smm=0)
        return seen(vcpu)


def _sipi(subject: Subject) -> str:
    with _in_smm(subject) as vcpu:
        msi.init(vcpu)
        vcpu.get_mp_state()
        msi.sipi(vcpu, _SIPI)
        vcpu.get_mp_state()
        set_smi(vcpu, smm=0)
        return seen(vcpu)


def _init_received(subject: Subject) -> str:
    with _in_smm(subject) as vcpu:
        return mp_state(vcpu)


def _while_init_received(subject: Subject, **smi: int) -> str:
    """What KVM says to ``smi`` of a vCPU that waits for its SIPI, and, where it takes it, to KVM_RUN."""
    vcpu = subject.vcpu
    need_smm(vcpu)
    run_at(vcpu)
    vcpu.set_mp_state(KVM_MP_STATE_INIT_RECEIVED)
    try:
        set_smi(vcpu, **smi)
        return f"taken, {runs(vcpu)}"
    except KvmError as error:
        return error.name
    finally:
        vcpu.set_mp_state(KVM_MP_STATE_RUNNABLE)
        set_smi(vcpu, smm=0, pending=0)


def _smm_while_init_received(subject: Subject) -> str:
    return _while_init_received(subject, smm=1)


def _smi_while_init_received(subject: Subject) -> str:
    return _while_init_received(subject, pending=1)


def add_smram(vcpu: Vcpu, then: int | None = None) -> GuestMemory:
    """The handler in SMRAM, which does ``then`` at its end, by default RSM. Raises Untestable, KvmError."""
    need_smm(vcpu)
    smram = vcpu.vm.add_memory(_SMRAM_SLOT, smm.SMBASE, smm.SMRAM_SIZE)
    smram.write(smm.ENTRY, smm.handler())
    smram.write_int(smm.SMM_TOPIC, smm.SMM_RSM if then is None else then, 4)
    smram.write_int(smm.SMM_TURNS, _TURNS, 4)
    return smram


class Smram(Stage):
    """The SMM guest, and its handler in SMRAM."""

    words = smm

    def __init__(self, subject: Subject, then: int | None = None, topic: int | None = None) -> None:
        need_smm(subject.vcpu)
        super().__init__(subject, smm.TOPIC_WAIT if topic is None else topic)
        self.smram = add_smram(self.vcpu, then)

    def _fill(self) -> None:
        self.ram.write(smm.CODE, smm.page())

    def enter(self) -> None:
        """From RESET to the handler's first word. Raises Stopped."""
        self.boot()
        if self.ram.read_int(smm.TOPIC, 4) == smm.TOPIC_WAIT:
            self.vcpu.smi()
        self.expect(smm.PORT_SMI)
        if not self.vcpu.get_vcpu_events().smi.smm:
            raise Stopped("the SMI handler runs, and KVM_GET_VCPU_EVENTS shows no SMM")


def goes_on(stage: Stage, smram: GuestMemory) -> str:
    """What the guest does behind the handler's first word: GOES_ON where it stays in the handler. Raises Stopped."""
    port, _ = stage.next()
    if port == smm.PORT_VALUE:
        turns = smram.read_int(smm.SMM_COUNT, 4)
        pending = "pending" if is_pending(stage.vcpu) else "not pending"
        return f"the handler goes on, INIT {pending}" if turns == _TURNS else f"the handler goes on after {turns} turns"
    return "INIT in the handler" if port == smm.PORT_RESET else f"a word to port {port:#x}"


def _handler_goes_on(subject: Subject) -> str:
    stage = Smram(subject)
    stage.enter()
    msi.init(subject.vcpu)
    return goes_on(stage, stage.smram)


def _out_of_rsm(stage: Smram) -> str:
    if (first := goes_on(stage, stage.smram)) != GOES_ON:
        return first
    port, _ = stage.next()
    if port == smm.PORT_LEFT:
        return "the interrupted code goes on"
    smi = stage.vcpu.get_vcpu_events().smi
    left = "out of SMM" if not smi.smm else "still in SMM"
    return f"INIT behind RSM, {left}" if port == smm.PORT_RESET and not smi.latched_init else f"a word to port {port:#x}"


def _after_rsm(subject: Subject) -> str:
    stage = Smram(subject)
    stage.enter()
    msi.init(subject.vcpu)
    return _out_of_rsm(stage)


def _after_rsm_by_ipi(subject: Subject) -> str:
    """Into SMM by an SMI that the vCPU sends to itself."""
    stage = Smram(subject, topic=smm.TOPIC_SEND)
    stage.enter()
    msi.init(subject.vcpu)
    return _out_of_rsm(stage)


def _sipi_in_handler(subject: Subject) -> str:
    vcpu, stage = subject.vcpu, Smram(subject)
    stage.enter()
    msi.init(vcpu)
    msi.sipi(vcpu, SIPI_VECTOR)
    if (first := goes_on(stage, stage.smram)) != GOES_ON:
        return first
    if (came := stage.run_for(_WHILE_S)) is not None:
        return f"runs: {came}"
    after = seen(vcpu)
    stage.start()
    return after


def _shut_down(subject: Subject) -> Smram:
    """A triple fault in the handler; the vCPU is where KVM leaves it."""
    stage = Smram(subject, smm.SMM_SHUTDOWN)
    stage.enter()
    stage.expect(smm.PORT_VALUE)
    if (down := stage.run()).reason != KVM_EXIT_SHUTDOWN:
        raise Stopped(f"a triple fault in SMM did not shut the vCPU down: {down} ({where(subject.vcpu)})")
    return stage


def _leaves_smm(subject: Subject) -> Observation:
    vcpu = subject.vcpu
    _shut_down(subject)
    in_smm = "in SMM" if vcpu.get_vcpu_events().smi.smm else "not in SMM"
    return Observation(f"{in_smm}, {seen(vcpu)}", undefined="" if subject.backend == "svm" else _NO_INIT)


def _out_of_shutdown(subject: Subject) -> str:
    vcpu, stage = subject.vcpu, _shut_down(subject)
    msi.init(vcpu)
    exit_ = stage.run_for(_WHILE_S)
    if exit_ is None:
        return f"executes nothing, {'pending' if is_pending(vcpu) else 'not pending'}"
    return "restarted" if exit_.port == smm.PORT_RESET else f"{exit_.name}, {'pending' if is_pending(vcpu) else 'not pending'}"


_SILENT = "the API is silent; KVM refuses it until v6.16, and from v6.17 on fails the KVM_RUN after it"
_NO_INIT = "a shutdown is no INIT by the manuals; only KVM on SVM, where the VMCB is undefined then, makes one of it"
_ONLY_RESET = "by both manuals only RESET ends a shutdown in SMM; KVM has no such state, and its vendor modules differ"

_LATCH = (S_SMM_INHIBIT, A_SMM_INHIBIT)

CHECKS = (
    Check("init", "smm", "latched", ("E-15",), HELD, _latched, _LATCH),
    Check("init", "smm", "taken-after", ("E-15",), TAKEN, _after_smm, _LATCH),
    Check("sipi", "smm", "dropped", ("E-15",), TAKEN, _sipi, (*_LATCH, S_VMX_ACTIVITY)),
    Check("none", "mp-state", "init-received-in-smm", ("E-15",), "", _init_received, (KVM_API,), _SILENT),
    Check("none", "vcpu-events", "smm-while-init-received", ("E-15",), "", _smm_while_init_received, (KVM_API,), _SILENT),
    Check("none", "vcpu-events", "smi-while-init-received", ("E-15",), "", _smi_while_init_received, (KVM_API,), _SILENT),
    Check(
        "init", "smm", "latched", ("E-15",), GOES_ON, _handler_goes_on, _LATCH,
        target="bsp", view="guest", alone=True,
    ),
    Check(
        "init", "smm", "after-rsm", ("E-15",), "INIT behind RSM, out of SMM", _after_rsm, _LATCH,
        target="bsp", view="guest", alone=True,
    ),
    Check(
        "init", "smm", "after-rsm-by-ipi", ("E-15",), "INIT behind RSM, out of SMM", _after_rsm_by_ipi, _LATCH,
        target="bsp", view="guest", alone=True,
    ),
    Check(
        "sipi", "smm", "dropped", ("E-15",), TAKEN, _sipi_in_handler, (*_LATCH, S_VMX_ACTIVITY),
        view="guest", alone=True,
    ),
    Check(
        "shutdown", "smm", "leaves-smm", ("E-22",), "not in SMM, RUNNABLE f000:fff0", _leaves_smm,
        (LINUX_SHUTDOWN_SMM, A_SHUTDOWN), target="bsp", view="guest", alone=True,
    ),
    Check(
        "init", "smm", "out-of-shutdown", ("E-22",), "", _out_of_shutdown, (S_SMM_SHUTDOWN, A_SHUTDOWN), _ONLY_RESET,
        target="bsp", view="guest", alone=True,
    ),
)  # fmt: skip
