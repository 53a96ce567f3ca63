# SPDX-License-Identifier: GPL-2.0-only
"""The VM of a case, as data."""

from __future__ import annotations

from typing import NamedTuple

from kvmtest.scenario.needs import of_capability

__all__ = ("LEAVES", "SPARSE", "VENDORS", "Setup")

VENDORS = ("intel", "amd")
#: For Setup.vcpus.
SPARSE = 0
#: The choices of CPUID leaves for vCPUs, in words.
LEAVES = {
    "": "",
    "none": "without KVM_SET_CPUID2",
    "0": "leaf 0 alone",
    "deadline": "with CPUID.1:ECX[24]",
    "no-long-mode": "without CPUID.80000001H:EDX[29]",
    "no-svm": "without CPUID.80000001H:ECX[2]",
    "no-x2apic": "without CPUID.1:ECX[21]",
}


class Setup(NamedTuple):
    """The VM that a case needs.

    ``irqchip`` is ``none``, ``split`` or ``full``. ``vendor`` is the CPUID vendor given by KVM_SET_CPUID2, "" before any.
    ``boot_id`` is the vCPU id given to KVM_SET_BOOT_CPU_ID. ``vcpus`` are created, their ids from 0 on; SPARSE are some two dozen
    whose ids go to the last one of the xAPIC or, with ``x2apic_ids`` (KVM_CAP_X2APIC_API), a few beyond. ``mce`` is whether
    KVM_X86_SETUP_MCE gives them MCE_BANKS banks and what else KVM supports: it changes what RESET has left. ``memory`` is
    whether RAM and ROM of the guest that reports its state are there; without them nothing is at the reset vector.

    ``caps`` are enabled on the VM before its vCPUs are created: (KVM_CAP_*, argument). ``ids`` are the vCPUs' ids where they are
    not the usual ones. ``leaves`` says which of CPUID's leaves the vCPUs get: one of LEAVES. ``heard`` is whether messages reach
    the vCPU created last: KVM's map of APIC ids lacks it until something renews the map. ``denied`` are MSRs that a filter denies
    the guest (KVM_X86_SET_MSR_FILTER).
    """

    irqchip: str = "full"
    vendor: str = ""
    boot_id: int = 0
    mce: bool = False
    memory: bool = False
    vcpus: int = 2
    x2apic_ids: bool = False
    caps: tuple[tuple[int, int], ...] = ()
    ids: tuple[int, ...] = ()
    leaves: str = ""
    heard: bool = True
    denied: tuple[int, ...] = ()

    @property
    def needs(self) -> tuple[str, ...]:
        """The needs of making it (`kvmtest.scenario.needs`)."""
        given = {"split-irqchip": self.irqchip == "split", "boot-cpu-id": self.boot_id, "x2apic-api": self.x2apic_ids}
        given["msr-filter"] = bool(self.denied)
        named = dict.fromkeys(of_capability(*one) for one in self.caps)
        return (*(name for name, needed in given.items() if needed), *filter(None, named))

    @property
    def many(self) -> bool:
        """True if the VM has so many vCPUs that one such VM at a time is enough."""
        return self.vcpus == SPARSE or self.vcpus > 8
