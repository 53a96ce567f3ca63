# SPDX-License-Identifier: GPL-2.0-only
"""A timer of the local APIC: armed before INIT it stays silent after it, restored by ioctl it fires."""

from __future__ import annotations

from kvmtest.checks.check import Check, Stopped, Subject, Untestable
from kvmtest.checks.stage import Stage
from kvmtest.guests import behaviour
from kvmtest.kvm import Vcpu
from kvmtest.spec.cite import A_APIC, KVM_API, S_APIC_INIT, S_LVT, S_TSC_DEADLINE
from kvmtest.uapi.kvm import KVM_CAP_TSC_DEADLINE_TIMER

__all__ = ("CHECKS",)

_VECTOR = 0x60
_MASKED, _PERIODIC, _DEADLINE = 1 << 16, 1 << 17, 2 << 17
#: Of the 1 GHz bus that KVM has: half a millisecond. And cycles of the TSC: some tenths of a millisecond, and those until a
#: deadline that the restarted guest still sees pass by.
_PERIOD, _SOON, _LATER = 500_000, 1 << 20, 1 << 24
#: At most so many turns until the first interrupt, and at least so many after INIT.
_MANY, _FEW = 1_000_000, 2000
_MSR_TSC_DEADLINE = 0x6E0
_LVT_TIMER, _TIMER_INITIAL, _TIMER_CURRENT, _TIMER_DIVIDE = 0x320, 0x380, 0x390, 0x3E0
_CPUID_TSC_DEADLINE = 1 << 24


def _arm(stage: Stage, **arguments: int) -> int:
    """Boot with a timer that fires, which is the proof that it can; how many turns of the guest's loop that took."""
    stage.set(ARG_LIMIT=_MANY, **arguments)
    stage.boot()
    came = stage.expect(behaviour.PORT_VALUE)
    turns = _MANY - stage.expect(behaviour.PORT_LEFT)
    if not came:
        raise Stopped(f"the timer does not fire within {turns} turns even without INIT")
    return turns


def _silence(stage: Stage, turns: int) -> str:
    """INIT at READY; then ``turns`` turns with an unmasked LVT entry and a timer that nobody armed."""
    stage.set(ARG_LIMIT=turns, ARG_LVT=_VECTOR, ARG_COUNT=0, ARG_DELTA=0)
    stage.restart()
    stage.expect(behaviour.PORT_READY)
    return f"{stage.expect(behaviour.PORT_VALUE)} interrupts"


def _periodic(subject: Subject) -> str:
    stage = Stage(subject, behaviour.TOPIC_INTERRUPT)
    turns = _arm(stage, ARG_LVT=_PERIODIC | _VECTOR, ARG_COUNT=_PERIOD)
    stage.expect(behaviour.PORT_READY)
    if not any(subject.vcpu.get_lapic().regs[_TIMER_INITIAL : _TIMER_INITIAL + 4]):
        raise Stopped("the timer's initial count is 0 before INIT: it is not armed")
    return _silence(stage, 4 * turns + _FEW)


def _offer_deadline(vcpu: Vcpu) -> None:
    """KVM has the mode when CPUID.1:ECX[24] says so, which KVM_GET_SUPPORTED_CPUID does not do on all kernels."""
    if not vcpu.vm.check_extension(KVM_CAP_TSC_DEADLINE_TIMER):
        raise Untestable("KVM_CAP_TSC_DEADLINE_TIMER is not there")
    leaves = vcpu.get_cpuid2()
    vcpu.set_cpuid2(
        leaf._replace(ecx=leaf.ecx | _CPUID_TSC_DEADLINE) if leaf.function == 1 else leaf for leaf in leaves
    )


def _deadline(subject: Subject) -> str:
    _offer_deadline(subject.vcpu)
    stage = Stage(subject, behaviour.TOPIC_INTERRUPT)
    soon = _arm(stage, ARG_LVT=_DEADLINE | _VECTOR, ARG_DELTA=_SOON)
    stage.set(ARG_DELTA=_LATER)
    stage.expect(behaviour.PORT_READY)
    # KVM clears the MSR when the deadline has passed.
    if not subject.vcpu.get_msrs([_MSR_TSC_DEADLINE]).get(_MSR_TSC_DEADLINE):
        raise Stopped("the deadline had passed before INIT")
    return _silence(stage, 2 * soon * (_LATER // _SOON) + _FEW)


def _restored(subject: Subject) -> str:
    """With the state of a timer that has a nanosecond left, so that it expires while KVM takes the state."""
    vcpu, stage = subject.vcpu, Stage(subject, behaviour.TOPIC_INTERRUPT)
    stage.set(ARG_LVT=_MASKED, ARG_LIMIT=_FEW)
    stage.boot()
    if stage.expect(behaviour.PORT_VALUE):
        raise Stopped("an interrupt comes though the timer is masked")
    stage.expect(behaviour.PORT_LEFT)
    stage.expect(behaviour.PORT_READY)
    lapic = vcpu.get_lapic()
    for at, value in ((_LVT_TIMER, _VECTOR), (_TIMER_INITIAL, _PERIOD), (_TIMER_CURRENT, 1), (_TIMER_DIVIDE, 0xB)):
        lapic.regs[at : at + 4] = list(value.to_bytes(4, "little"))
    vcpu.set_lapic(lapic)
    stage.set(ARG_LIMIT=_MANY)
    return f"{stage.expect(behaviour.PORT_VALUE)} interrupts"


CHECKS = (
    Check(
        "init", "msi", "periodic-timer", (), "0 interrupts", _periodic, (S_APIC_INIT, S_LVT, A_APIC),
        target="bsp", view="guest", alone=True,
    ),
    Check(
        "init", "msi", "tsc-deadline-timer", (), "0 interrupts", _deadline, (S_APIC_INIT, S_TSC_DEADLINE, A_APIC),
        target="bsp", view="guest", alone=True,
    ),
    Check(
        "none", "set-lapic", "timer-fires", (), "1 interrupts", _restored, (KVM_API, S_LVT),
        target="bsp", view="guest", alone=True,
    ),
)  # fmt: skip
