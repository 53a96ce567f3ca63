# SPDX-License-Identifier: GPL-2.0-only
"""Nested virtualization: whether KVM offers VMX or SVM to its guests, and how to enable it."""

from __future__ import annotations

from collections.abc import Iterable

from kvmtest.engine import host as host_facts
from kvmtest.kvm import CpuidEntry, Kvm
from kvmtest.model.host import Host, module_of
from kvmtest.uapi import kvm as uapi

__all__ = ("backend", "enable", "offered")

#: Backend -> CPUID.1:ECX.VMX, or CPUID.80000001H:ECX.SVM.
_BITS = {"vmx": (1, 1 << 5), "svm": (0x80000001, 1 << 2)}


def offered(leaves: Iterable[CpuidEntry]) -> str:
    """The backend that a guest's KVM has by this CPUID, or ""."""
    leaves = tuple(leaves)
    for name, (function, bit) in _BITS.items():
        if any(leaf.function == function and leaf.ecx & bit for leaf in leaves):
            return name
    return ""


def backend(kvm: Kvm) -> str:
    """The backend that a guest's KVM has under ``kvm``; "" where it has none, or cannot be migrated.

    KVM_CAP_NESTED_STATE alone does not show it: kvm_intel and kvm_amd have it with nested=0, too.
    """
    found = offered(kvm.supported_cpuid())
    return found if kvm.check_extension(uapi.KVM_CAP_NESTED_STATE) else ""


def enable(host: Host, offers: bool = False) -> str:
    """Describe how to enable it on a ``host`` without; ``offers`` is set if its CPUID has the bit."""
    module = module_of(host.backend)
    if offers:
        return "to enable: Linux 4.20 or newer"
    if "nested" in host.parameters:
        there = host_facts.flags() & {"vmx", "svm"}
        return f"to enable: load {module} with nested=1" + ("" if there else ", on a CPU that has it")
    return f"nothing to enable: {module} has no parameter nested"
