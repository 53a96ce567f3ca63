# SPDX-License-Identifier: GPL-2.0-only
"""INIT and KVM_SET_MP_STATE while KVM_SET_NESTED_STATE holds a vCPU in VMX root operation: by ioctls alone."""

from __future__ import annotations

from collections.abc import Callable
from ctypes import sizeof

from kvmtest.checks.check import Check, Subject
from kvmtest.checks.delivery import run_at, seen
from kvmtest.checks.pending import HELD, TAKEN, held, mp_state, state
from kvmtest.checks.vmx import need_vmx
from kvmtest.kvm import Vcpu
from kvmtest.spec.cite import KVM_API, S_VMX_EXITS, S_VMX_LIMITS
from kvmtest.triggers import latched, msi
from kvmtest.uapi.kvm import (
    KVM_MP_STATE_SIPI_RECEIVED,
    KVM_STATE_NESTED_FORMAT_VMX,
    kvm_nested_state,
)

__all__ = ("CHECKS",)

#: Guest-physical addresses; KVM does not look at what is there.
_REGION, _NONE = 0x10000, (1 << 64) - 1


def _set_vmxon(vcpu: Vcpu, region: int) -> None:
    """Into VMX root operation with the VMXON region at ``region``, or with _NONE out of it."""
    nested = kvm_nested_state(format=KVM_STATE_NESTED_FORMAT_VMX, size=sizeof(kvm_nested_state))
    nested.hdr.vmx.vmxon_pa, nested.hdr.vmx.vmcs12_pa = region, _NONE
    vcpu.set_nested_state(bytes(nested))


def _in_root(subject: Subject) -> Vcpu:
    need_vmx(subject)
    run_at(subject.vcpu)
    _set_vmxon(subject.vcpu, _REGION)
    return subject.vcpu


def _latched_by(subject: Subject, init: Callable[[Vcpu], None]) -> str:
    vcpu = _in_root(subject)
    before = state(vcpu)
    init(vcpu)
    latched_as = held(vcpu, before)
    _set_vmxon(vcpu, _NONE)
    return f"{latched_as}, then {seen(vcpu)}"


def _by_latched_init(subject: Subject) -> str:
    return _latched_by(subject, latched.init)


def _by_msi(subject: Subject) -> str:
    return _latched_by(subject, msi.init)


def _init_received(subject: Subject) -> str:
    return mp_state(_in_root(subject))


def _sipi_received(subject: Subject) -> str:
    return mp_state(_in_root(subject), KVM_MP_STATE_SIPI_RECEIVED)


_LATCHED = f"{HELD}, then {TAKEN}"
_BLOCKED = "the API is silent; KVM refuses it until v6.16, and from v6.17 on fails the KVM_RUN after it"
_ROOT = (S_VMX_LIMITS, S_VMX_EXITS, KVM_API)

CHECKS = (
    Check("init", "latched", "latched-in-vmx-root", ("E-16",), _LATCHED, _by_latched_init, _ROOT, alone=True),
    Check("init", "msi", "latched-in-vmx-root", ("E-16",), _LATCHED, _by_msi, _ROOT, alone=True),
    Check("none", "mp-state", "init-received-in-vmx-root", (), "", _init_received, (KVM_API,), _BLOCKED, alone=True),
    Check("none", "mp-state", "sipi-received-in-vmx-root", (), "", _sipi_received, (KVM_API,), _BLOCKED, alone=True),
)
