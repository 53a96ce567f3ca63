# SPDX-License-Identifier: GPL-2.0-only
"""INIT by ioctl alone: KVM_SET_VCPU_EVENTS with smi.latched_init.

KVM sets KVM_APIC_INIT in the local APIC's pending events whether or not the vCPU is in SMM
(kvm_vcpu_ioctl_x86_set_vcpu_events() in arch/x86/kvm/x86.c).
"""

from __future__ import annotations

from kvmtest.kvm import Vcpu
from kvmtest.uapi.kvm import KVM_VCPUEVENT_VALID_SMM

__all__ = ("init",)


def init(vcpu: Vcpu) -> None:
    """Latch an INIT on ``vcpu``. Raises KvmError, also where KVM emulates no SMM and refuses the flag."""
    events = vcpu.get_vcpu_events()
    events.flags |= KVM_VCPUEVENT_VALID_SMM
    events.smi.latched_init = 1
    vcpu.set_vcpu_events(events)
