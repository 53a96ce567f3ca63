# SPDX-License-Identifier: GPL-2.0-only
"""The VM of a scenario, and its needs, in words."""

from __future__ import annotations

from kvmtest.scenario.needs import NEEDS, Need
from kvmtest.scenario.setup import LEAVES, SPARSE, Setup
from kvmtest.scenario.text import VENDORS, number
from kvmtest.uapi.names import CAPS
from kvmtest.x86.msr import name_of

__all__ = ("need", "setup")

_IRQCHIPS = {"none": "no irqchip", "split": "a split irqchip", "full": "KVM's irqchip"}


def setup(vm: Setup) -> str:
    """A VM in words."""
    if vm.ids:
        vcpus = f"vCPUs {', '.join(map(str, vm.ids))}"
    else:
        vcpus = "vCPUs with sparse ids" if vm.vcpus == SPARSE else f"{vm.vcpus} vCPU{'s' if vm.vcpus > 1 else ''}"
    parts = (
        f"a VM with {_IRQCHIPS[vm.irqchip]}",
        vcpus,
        f"{VENDORS[vm.vendor]}'s CPUID" if vm.vendor else "no CPUID",
        LEAVES[vm.leaves],
        f"boot vCPU {vm.boot_id}" if vm.boot_id else "",
        "KVM_X86_SETUP_MCE" if vm.mce else "",
        "memory" if vm.memory else "",
        "32-bit x2APIC ids (KVM_CAP_X2APIC_API)" if vm.x2apic_ids else "",
        *(f"{CAPS.get(cap, f'capability {cap}')}({number(argument)})" for cap, argument in vm.caps),
        f"a filter that denies the guest {', '.join(map(name_of, vm.denied))}" if vm.denied else "",
        "" if vm.heard else "the vCPU created last missing from KVM's map of APIC ids",
    )
    return ", ".join(filter(None, parts))


def _need(one: Need) -> str:
    parts = []
    if one.cap:
        parts.append(CAPS.get(one.cap, f"capability {one.cap}") + (f" with bits {one.flags:#x}" if one.flags else ""))
    if one.cpuid:
        function, register, bit = one.cpuid
        parts.append(f"CPUID.{function:X}H:{register.upper()}[{bit}]")
    if one.msr:
        parts.append(f"MSR {one.msr[0]:X}H[{one.msr[1]}]")
    if one.vendor:
        parts.append(f"{VENDORS[one.vendor]}'s CPUID")
    return " and ".join(parts)


def need(name: str) -> str:
    """A need in words."""
    return f"{name}: {', '.join(filter(None, map(_need, NEEDS[name])))}"
