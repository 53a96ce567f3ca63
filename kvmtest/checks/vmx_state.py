# SPDX-License-Identifier: GPL-2.0-only
"""INIT and KVM_SET_MP_STATE while KVM_SET_NESTED_STATE holds a vCPU in VMX root operation: by ioctls alone."""

from __future__ import annotations

import errno
from collections.abc import Callable
from ctypes import sizeof

from kvmtest.checks.check import Check, Subject
from kvmtest.checks.delivery import run_at, seen
from kvmtest.checks.vmx import need_vmx
from kvmtest.kvm import KvmError, RunTimeout, Vcpu
from kvmtest.spec.cite import KVM_API, S_VMX_EXITS, S_VMX_LIMITS
from kvmtest.triggers import latched, msi
from kvmtest.uapi.kvm import (
    KVM_MP_STATE_INIT_RECEIVED,
    KVM_MP_STATE_RUNNABLE,
    KVM_MP_STATE_SIPI_RECEIVED,
    KVM_STATE_NESTED_FORMAT_VMX,
    kvm_nested_state,
)

__all__ = ("CHECKS",)

#: Guest-physical addresses; KVM does not look at what is there.
_REGION, _NONE = 0x10000, (1 << 64) - 1
_WHILE_S = 0.02


def _set_vmxon(vcpu: Vcpu, region: int) -> None:
    """Into VMX root operation with the VMXON region at ``region``, or with _NONE out of it."""
    state = kvm_nested_state(format=KVM_STATE_NESTED_FORMAT_VMX, size=sizeof(kvm_nested_state))
    state.hdr.vmx.vmxon_pa, state.hdr.vmx.vmcs12_pa = region, _NONE
    vcpu.set_nested_state(bytes(state))


def _in_root(subject: Subject) -> Vcpu:
    need_vmx(subject)
    run_at(subject.vcpu)
    _set_vmxon(subject.vcpu, _REGION)
    return subject.vcpu


def _latched_by(subject: Subject, init: Callable[[Vcpu], None]) -> str:
    vcpu = _in_root(subject)
    init(vcpu)
    before = seen(vcpu)
    kept = "latched" if vcpu.get_vcpu_events().smi.latched_init else "not latched"
    _set_vmxon(vcpu, _NONE)
    return f"{kept} at {before}, then {seen(vcpu)}"


def _by_latched_init(subject: Subject) -> str:
    return _latched_by(subject, latched.init)


def _by_msi(subject: Subject) -> str:
    return _latched_by(subject, msi.init)


def _set_mp_state(subject: Subject, state: int) -> str:
    vcpu = _in_root(subject)
    try:
        vcpu.set_mp_state(state)
    except KvmError as error:
        return _name(error)
    try:
        ran = f"{vcpu.run(_WHILE_S)}"
    except KvmError as error:
        ran = _name(error)
    except RunTimeout:
        ran = "no exit"
    vcpu.set_mp_state(KVM_MP_STATE_RUNNABLE)
    return f"taken, KVM_RUN: {ran}"


def _name(error: KvmError) -> str:
    return errno.errorcode.get(error.errno or 0, "an unknown errno")


def _init_received(subject: Subject) -> str:
    return _set_mp_state(subject, KVM_MP_STATE_INIT_RECEIVED)


def _sipi_received(subject: Subject) -> str:
    return _set_mp_state(subject, KVM_MP_STATE_SIPI_RECEIVED)


_LATCHED = "latched at RUNNABLE 0000:1234, then INIT_RECEIVED f000:fff0"
_BLOCKED = "the API is silent; KVM refuses it until v6.16, and from v6.17 on fails the KVM_RUN after it"
_ROOT = (S_VMX_LIMITS, S_VMX_EXITS, KVM_API)

CHECKS = (
    Check("init", "latched", "latched-in-vmx-root", ("E-16",), _LATCHED, _by_latched_init, _ROOT, alone=True),
    Check("init", "msi", "latched-in-vmx-root", ("E-16",), _LATCHED, _by_msi, _ROOT, alone=True),
    Check("none", "mp-state", "init-received-in-vmx-root", (), "", _init_received, (KVM_API,), _BLOCKED, alone=True),
    Check("none", "mp-state", "sipi-received-in-vmx-root", (), "", _sipi_received, (KVM_API,), _BLOCKED, alone=True),
)
