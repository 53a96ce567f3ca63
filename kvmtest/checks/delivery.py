# SPDX-License-Identifier: GPL-2.0-only
"""When INIT and SIPI are taken, and when they are dropped: KVM_SIGNAL_MSI to an AP, KVM_GET_MP_STATE makes KVM decide."""

from __future__ import annotations

from kvmtest.checks.check import Check, Observation, Stopped, Subject
from kvmtest.kvm import KvmError, Vcpu
from kvmtest.kvm.alarm import thread_alarm
from kvmtest.model.value import MP_STATES
from kvmtest.spec.cite import (
    A_ICR,
    A_INIT_IPI,
    KVM_API,
    S_APIC_DISABLED,
    S_ICR,
    S_INIT_DEASSERT,
    S_MP,
    S_MSI,
    S_VMX_ACTIVITY,
)
from kvmtest.triggers import msi, sender
from kvmtest.uapi.kvm import KVM_MP_STATE_HALTED, KVM_MP_STATE_RUNNABLE

__all__ = ("CHECKS", "run_at", "seen", "set_svr")

#: Where a vCPU "runs" that never enters the guest: neither the reset vector nor a SIPI's.
_RIP = 0x1234
_FIRST, _SECOND = 0x10, 0x20
#: The spurious-interrupt vector register: enabled, and as RESET leaves it.
_SVR, _ENABLED, _DISABLED = 0xF0, 0x1FF, 0xFF


def set_svr(vcpu: Vcpu, value: int) -> None:
    """Write the spurious-interrupt vector register."""
    lapic = vcpu.get_lapic()
    lapic.regs[_SVR : _SVR + 4] = list(value.to_bytes(4, "little"))
    vcpu.set_lapic(lapic)


def run_at(vcpu: Vcpu, mp_state: int = KVM_MP_STATE_RUNNABLE) -> None:
    """An AP that is past its SIPI and has enabled its local APIC: running, or halted."""
    msi.init(vcpu)
    vcpu.get_mp_state()
    msi.sipi(vcpu, 0)
    vcpu.get_mp_state()
    regs = vcpu.get_regs()
    regs.rip = _RIP
    vcpu.set_regs(regs)
    set_svr(vcpu, _ENABLED)
    vcpu.set_mp_state(mp_state)


def _wait_for_sipi(vcpu: Vcpu) -> None:
    """An AP in wait-for-SIPI."""
    run_at(vcpu)
    msi.init(vcpu)
    vcpu.get_mp_state()


def seen(vcpu: Vcpu) -> str:
    """Activity state, then where it would execute: CS selector and RIP."""
    state = MP_STATES.get(vcpu.get_mp_state(), "unknown")
    return f"{state} {vcpu.get_sregs().cs.selector:04x}:{vcpu.get_regs().rip:04x}"


_WAITING = "INIT_RECEIVED f000:fff0"
_RUNNING = f"RUNNABLE 0000:{_RIP:04x}"


def _init_in_wait_for_sipi(subject: Subject) -> str:
    vcpu = subject.vcpu
    _wait_for_sipi(vcpu)
    msi.init(vcpu)
    return seen(vcpu)


def _init_halted(subject: Subject) -> str:
    vcpu = subject.vcpu
    run_at(vcpu, KVM_MP_STATE_HALTED)
    msi.init(vcpu)
    return seen(vcpu)


def _init_with_vector(subject: Subject) -> str:
    vcpu = subject.vcpu
    run_at(vcpu)
    msi.send(vcpu, msi.INIT | 0x55)
    return seen(vcpu)


def _init_deassert(subject: Subject) -> str:
    vcpu = subject.vcpu
    run_at(vcpu)
    msi.send(vcpu, msi.INIT | msi.LEVEL_TRIGGERED)
    return seen(vcpu)


def _init_deassert_ipi(subject: Subject) -> str:
    vcpu = subject.vcpu
    run_at(vcpu)
    sender.send(vcpu, msi.INIT | msi.LEVEL_TRIGGERED, x2apic=False)
    return seen(vcpu)


def _init_software_disabled(subject: Subject) -> str:
    vcpu = subject.vcpu
    run_at(vcpu)
    set_svr(vcpu, _DISABLED)
    msi.init(vcpu)
    return seen(vcpu)


def _init_over_sipi(subject: Subject) -> str:
    vcpu = subject.vcpu
    _wait_for_sipi(vcpu)
    msi.sipi(vcpu, _FIRST)
    msi.init(vcpu)
    return seen(vcpu)


def _init_by_run(subject: Subject) -> Observation:
    """Reading the activity state would make KVM take the INIT; the events do not."""
    vcpu = subject.vcpu
    msi.init(vcpu)
    if not vcpu.get_vcpu_events().smi.latched_init:
        raise Stopped("no INIT is pending on a new vCPU that one was sent to")
    alarm = thread_alarm()
    alarm.start(subject.timeout_s)
    try:
        answer = vcpu.run_once().name
    except KvmError as error:
        answer = error.name
    finally:
        alarm.stop()
    taken = "left pending" if vcpu.get_vcpu_events().smi.latched_init else "taken"
    return Observation(f"{taken}, {seen(vcpu)}", f"KVM_RUN ends with {answer}")


def _sipi_running(subject: Subject) -> str:
    vcpu = subject.vcpu
    run_at(vcpu)
    msi.sipi(vcpu, _FIRST)
    return seen(vcpu)


def _sipi_halted(subject: Subject) -> str:
    vcpu = subject.vcpu
    run_at(vcpu, KVM_MP_STATE_HALTED)
    msi.sipi(vcpu, _FIRST)
    return seen(vcpu)


def _sipi_not_kept(subject: Subject) -> str:
    vcpu = subject.vcpu
    run_at(vcpu)
    msi.sipi(vcpu, _FIRST)
    vcpu.get_mp_state()
    msi.init(vcpu)
    return seen(vcpu)


def _sipi_second(subject: Subject) -> str:
    vcpu = subject.vcpu
    _wait_for_sipi(vcpu)
    msi.sipi(vcpu, _FIRST)
    vcpu.get_mp_state()
    msi.sipi(vcpu, _SECOND)
    return seen(vcpu)


def _sipi_behind_init(subject: Subject) -> str:
    vcpu = subject.vcpu
    run_at(vcpu)
    msi.init(vcpu)
    msi.sipi(vcpu, _FIRST)
    return seen(vcpu)


_INIT = (S_MP, A_INIT_IPI)
_SIPI = (S_MP, S_VMX_ACTIVITY, A_INIT_IPI)
_STARTED = f"RUNNABLE {_FIRST << 8:04x}:0000"

_BY_IPI = "the manuals say it of an INIT that an IPI de-asserts, and are silent on a message that does so"

CHECKS = (
    Check("init", "msi", "in-wait-for-sipi", ("E-3",), _WAITING, _init_in_wait_for_sipi, (S_VMX_ACTIVITY, A_INIT_IPI)),
    Check("init", "msi", "halted", ("E-1", "E-24"), _WAITING, _init_halted, _INIT),
    Check("init", "msi", "vector-ignored", ("E-10",), _WAITING, _init_with_vector, (S_ICR, A_INIT_IPI)),
    Check("init", "msi", "deassert-ignored", ("E-8",), _RUNNING, _init_deassert, (S_INIT_DEASSERT, S_MSI, A_ICR), _BY_IPI),
    Check("init", "icr-xapic", "deassert-ignored", ("E-8",), _RUNNING, _init_deassert_ipi, (S_INIT_DEASSERT, S_ICR, A_ICR)),
    Check("init", "msi", "software-disabled-apic", ("E-11",), _WAITING, _init_software_disabled, (S_APIC_DISABLED,)),
    Check("init", "msi", "discards-pending-sipi", ("E-7",), _WAITING, _init_over_sipi, _INIT),
    Check("init", "msi", "by-run-of-new-vcpu", ("E-1",), f"taken, {_WAITING}", _init_by_run, (*_INIT, KVM_API), alone=True),
    Check("sipi", "msi", "dropped-when-running", ("E-5",), _RUNNING, _sipi_running, _SIPI),
    Check("sipi", "msi", "dropped-when-halted", ("E-5",), f"HALTED 0000:{_RIP:04x}", _sipi_halted, _SIPI),
    Check("sipi", "msi", "not-kept-for-later", ("E-5",), _WAITING, _sipi_not_kept, _SIPI),
    Check("sipi", "msi", "second-dropped", ("E-6",), _STARTED, _sipi_second, _SIPI),
    Check("sipi", "msi", "behind-pending-init", ("E-4",), _STARTED, _sipi_behind_init, _SIPI),
)
