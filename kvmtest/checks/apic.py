# SPDX-License-Identifier: GPL-2.0-only
"""What INIT leaves of the local APIC's mode, and which of its messages mean INIT or a start address at all."""

from __future__ import annotations

import errno

from kvmtest.checks.check import Check, Observation, Stopped, Subject
from kvmtest.checks.delivery import run_at, seen
from kvmtest.checks.stage import Stage
from kvmtest.guests import behaviour
from kvmtest.kvm import KvmError
from kvmtest.kvm.where import where
from kvmtest.model.value import MP_STATES
from kvmtest.spec.cite import A_APIC_ENABLE, A_ICR, A_INIT_IPI, A_X2APIC, S_APIC_STATUS, S_ICR, S_MP, S_X2APIC
from kvmtest.triggers import latched, msi
from kvmtest.triggers.error import TriggerError

__all__ = ("CHECKS",)

_EN, _EXTD = 1 << 11, 1 << 10
#: Destination shorthands of the ICR.
_SELF, _ALL_INCLUDING_SELF = 1 << 18, 2 << 18
_RESERVED_VECTORS = range(0xA0, 0xC0)
_WHILE_S = 0.005


def _set_mode(subject: Subject, mode: int) -> None:
    """``mode`` is EN and EXTD of IA32_APIC_BASE. Raises Stopped where KVM keeps another one."""
    vcpu = subject.vcpu
    sregs = vcpu.get_sregs()
    sregs.apic_base = sregs.apic_base & ~(_EN | _EXTD) | mode
    vcpu.set_sregs(sregs)
    if (kept := vcpu.get_sregs().apic_base & (_EN | _EXTD)) != mode:
        raise Stopped(f"KVM kept {kept:#x} when {mode:#x} was planted in IA32_APIC_BASE.EN and EXTD")


def _stays_disabled(subject: Subject) -> str:
    run_at(subject.vcpu)
    _set_mode(subject, 0)
    latched.init(subject.vcpu)
    after = seen(subject.vcpu)
    enabled = subject.vcpu.get_sregs().apic_base & (_EN | _EXTD)
    return f"{'enabled' if enabled else 'disabled'}, {after}"


def _hears_nothing(subject: Subject) -> str:
    run_at(subject.vcpu)
    _set_mode(subject, 0)
    try:
        msi.init(subject.vcpu)
    except TriggerError:
        pass
    except KvmError as error:
        # KVM_SIGNAL_MSI returns -1 as it is where there is no destination: EPERM.
        if error.errno != errno.EPERM:
            raise
    else:
        return f"received, {seen(subject.vcpu)}"
    return f"not received, {seen(subject.vcpu)}"


def _x2apic(subject: Subject) -> str:
    # This topic's guest goes to x2APIC mode by itself.
    vcpu, stage = subject.vcpu, Stage(subject, behaviour.TOPIC_ICR)
    stage.boot()
    if not vcpu.get_sregs().apic_base & _EXTD:
        raise Stopped(f"the guest is not in x2APIC mode ({where(vcpu)})")
    stage.set(TOPIC=behaviour.TOPIC_X2APIC)
    msi.init(vcpu)
    vcpu.get_mp_state()
    stage.start()
    stage.expect(behaviour.PORT_READY)
    if not stage.expect(behaviour.PORT_VALUE) & _EXTD:
        return "another mode"
    values = []
    for name in ("id", "svr"):
        port, value = stage.word()
        if port == behaviour.PORT_FAULT:
            return f"x2APIC mode, but its MSR for {name} raises an exception"
        values.append(f"{name} {value:#x}")
    return f"x2APIC mode, {', '.join(values)}"


def _shorthand(subject: Subject, shorthand: int) -> str:
    vcpu, stage = subject.vcpu, Stage(subject, behaviour.TOPIC_ICR)
    other = next(v for v in vcpu.vm.vcpus if v.id != vcpu.id)
    stage.boot()
    msi.init(other)
    other.get_mp_state()
    msi.sipi(other, 0)
    other.get_mp_state()
    stage.set(ARG_ICR=msi.INIT | msi.ASSERT | shorthand, TOPIC=behaviour.TOPIC_HALT)
    port, _ = stage.word()
    if port == behaviour.PORT_VALUE:
        # Written, and not received so far.
        sender = "restarts" if stage.run_for(_WHILE_S) else "goes on"
    else:
        sender = "restarts" if port == behaviour.PORT_RESET else "has an exception"
    return f"the sender {sender}, the other one is {MP_STATES.get(other.get_mp_state(), 'unknown')}"


def _init_self(subject: Subject) -> str:
    return _shorthand(subject, _SELF)


def _init_all(subject: Subject) -> str:
    return _shorthand(subject, _ALL_INCLUDING_SELF)


def _reserved_vectors(subject: Subject) -> Observation:
    vcpu, stage = subject.vcpu, Stage(subject, behaviour.TOPIC_HALT, _RESERVED_VECTORS.stop << 12)
    started = 0
    for vector in _RESERVED_VECTORS:
        stage.ram.write(vector << 12, behaviour.page())
        msi.init(vcpu)
        vcpu.get_mp_state()
        msi.sipi(vcpu, vector)
        started += stage.expect(behaviour.PORT_SIPI) == vector << 8
    return Observation(f"{started} of {len(_RESERVED_VECTORS)} start at VV00:0000")


_NOBODY = "RUNNABLE 0000:1234"
_INVALID = "the manuals list no such use of the shorthand with INIT, and do not say what comes of it"
_RESERVED = "the manuals keep vectors A0H-BFH for themselves, and do not say what comes of them"

CHECKS = (
    Check(
        "init", "latched", "disabled-apic", ("E-28",), "disabled, INIT_RECEIVED f000:fff0", _stays_disabled, (S_X2APIC, A_X2APIC),
    ),
    Check(
        "init", "msi", "globally-disabled-apic", ("E-11",), f"not received, {_NOBODY}", _hears_nothing,
        (S_APIC_STATUS, A_APIC_ENABLE),
    ),
    Check(
        "init", "msi", "x2apic-msrs", ("E-27",), "x2APIC mode, id 0x1, svr 0x1aa", _x2apic, (S_X2APIC, A_X2APIC),
        view="guest", alone=True,
    ),
    Check(
        "init", "icr-x2apic", "shorthand-self", ("E-9",), "", _init_self, (S_ICR, A_ICR), _INVALID,
        target="bsp", view="guest", alone=True,
    ),
    Check(
        "init", "icr-x2apic", "shorthand-all-including-self", ("E-9",), "", _init_all, (S_ICR, A_ICR), _INVALID,
        target="bsp", view="guest", alone=True,
    ),
    Check(
        "sipi", "msi", "vectors-a0-bf", ("E-13",), "32 of 32 start at VV00:0000", _reserved_vectors, (S_MP, A_INIT_IPI),
        _RESERVED, view="guest", alone=True,
    ),
)  # fmt: skip
