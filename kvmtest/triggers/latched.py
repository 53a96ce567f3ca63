# SPDX-License-Identifier: GPL-2.0-only
"""INIT by ioctl alone: KVM_SET_VCPU_EVENTS with smi.latched_init.

KVM sets KVM_APIC_INIT in the local APIC's pending events whether or not the vCPU is in SMM
(kvm_vcpu_ioctl_x86_set_vcpu_events() in arch/x86/kvm/x86.c).
"""

from __future__ import annotations

import time

from kvmtest.engine.error import TriggerError
from kvmtest.kvm import Vcpu
from kvmtest.kvm.clock import Limit
from kvmtest.uapi.kvm import KVM_VCPUEVENT_VALID_SMM

__all__ = ("init", "wait_for")

_POLL_S = 0.0005


def init(vcpu: Vcpu) -> None:
    """Latch an INIT on ``vcpu``. Raises KvmError, also where KVM emulates no SMM and refuses the flag."""
    events = vcpu.get_vcpu_events()
    events.flags |= KVM_VCPUEVENT_VALID_SMM
    events.smi.latched_init = 1
    vcpu.set_vcpu_events(events)


def wait_for(vcpu: Vcpu, sent_by: str, timeout_s: float = 1.0) -> None:
    """Wait until an INIT is pending on ``vcpu``, for a device's interrupt that KVM may deliver from a worker thread.

    Reading the events does not make KVM take the INIT. Raises TriggerError, with ``sent_by`` in its text, when none has come
    after ``timeout_s`` seconds, KvmError.
    """
    limit = Limit(timeout_s)
    late = False
    while not vcpu.get_vcpu_events().smi.latched_init:
        if late:
            raise TriggerError(f"{sent_by}: no INIT is pending on vcpu {vcpu.id} after {timeout_s:g} s") from TimeoutError()
        time.sleep(_POLL_S)
        late = limit.left() <= 0
