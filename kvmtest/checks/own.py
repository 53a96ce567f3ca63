# SPDX-License-Identifier: GPL-2.0-only
"""VMs of a check's own: what a case's VM has, such as quirks and interrupt controllers, is fixed when its vCPUs are made."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from kvmtest.checks.check import Subject, Untestable
from kvmtest.kvm import Vcpu, Vm
from kvmtest.uapi.kvm import KVM_CAP_SPLIT_IRQCHIP
from kvmtest.x86 import cpuid

__all__ = ("IDENTITY_MAP", "TSS", "as_guest", "heard", "own_vm")

#: Above the guest's memory and below its ROM: what kvm_intel needs without unrestricted guest support.
IDENTITY_MAP, TSS = 0xFFFBC000, 0xFFFBD000


@contextmanager
def own_vm(subject: Subject, irqchip: str = "full", caps: tuple[tuple[int, int], ...] = ()) -> Iterator[Vm]:
    """A VM without vCPUs. ``irqchip`` is ``none``, ``split`` or ``full``, ``caps`` are enabled behind it: (KVM_CAP_*, argument).

    Raises Untestable, KvmError.
    """
    with subject.vcpu.vm.kvm.create_vm() as vm:
        vm.set_identity_map_addr(IDENTITY_MAP)
        vm.set_tss_addr(TSS)
        if irqchip == "full":
            vm.create_irqchip()
        elif irqchip == "split":
            if not vm.check_extension(KVM_CAP_SPLIT_IRQCHIP):
                raise Untestable("KVM_CAP_SPLIT_IRQCHIP is not there")
            vm.split_irqchip()
        for cap, argument in caps:
            vm.enable_cap(cap, argument)
        yield vm


def as_guest(subject: Subject, vcpu: Vcpu) -> Vcpu:
    """Give ``vcpu`` the subject's CPUID, with its own APIC id."""
    vcpu.set_cpuid2(cpuid.for_guest(subject.vcpu.get_cpuid2(), subject.vendor, vcpu.id))
    return vcpu


def heard(vcpu: Vcpu) -> Vcpu:
    """Make messages reach ``vcpu``, the last of its VM: KVM's map of APIC ids lacks the newest one until something renews it."""
    vcpu.set_lapic(vcpu.get_lapic())
    return vcpu
