# SPDX-License-Identifier: GPL-2.0-only
"""Needs as facts: what a scenario, state or trigger cannot do without, and the reason of the skip where it is not there."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from kvmtest.scenario.capabilities import CAPABILITIES, Capability
from kvmtest.uapi.kvm import (
    KVM_CAP_DISABLE_QUIRKS,
    KVM_CAP_HYPERV_SYNIC2,
    KVM_CAP_HYPERV_TIME,
    KVM_CAP_HYPERV_VAPIC,
    KVM_CAP_NESTED_STATE,
    KVM_CAP_SET_BOOT_CPU_ID,
    KVM_CAP_SPLIT_IRQCHIP,
    KVM_CAP_TSC_DEADLINE_TIMER,
    KVM_CAP_X2APIC_API,
    KVM_CAP_X86_MSR_FILTER,
    KVM_CAP_X86_SMM,
    KVM_CAP_X86_TRIPLE_FAULT_EVENT,
)
from kvmtest.uapi.names import CAPS

__all__ = ("NEEDS", "Facts", "Need", "of_capability", "unmet")


class Facts(Protocol):
    """Facts that needs are checked against."""

    vendor: str

    def extension(self, cap: int) -> int:
        """KVM_CHECK_EXTENSION."""

    def leaf(self, function: int, register: str) -> int:
        """A register of the vCPU's CPUID leaf, 0 where it has none."""

    def msr(self, index: int) -> int:
        """An MSR of the vCPU, 0 where KVM refuses it."""


class Need(NamedTuple):
    """``why`` is the skip's reason. All that is given has to hold: KVM_CAP_* ``cap`` with the bits ``flags``, the CPUID bit
    ``cpuid`` (function, register, bit) and the MSR bit ``msr`` (index, bit), which have to be 0 with ``clear``, the guest's CPUID
    ``vendor``.
    """

    why: str
    cap: int = 0
    flags: int = 0
    cpuid: tuple[int, str, int] | None = None
    msr: tuple[int, int] | None = None
    vendor: str = ""
    clear: bool = False

    def met(self, facts: Facts) -> bool:
        """Return True if a vCPU and its KVM have it."""
        if self.vendor not in ("", facts.vendor):
            return False
        if self.cap:
            there = facts.extension(self.cap)
            if not there or there & self.flags != self.flags:
                return False
        if self.cpuid and facts.leaf(*self.cpuid[:2]) >> self.cpuid[2] & 1 == self.clear:
            return False
        return not self.msr or facts.msr(self.msr[0]) >> self.msr[1] & 1 != self.clear


def _capability(one: Capability) -> Need:
    flags = one.argument if one.flags else 0
    return Need(f"{CAPS[one.cap]} {f'has no flag {flags:#x}' if flags else 'is not there'}", one.cap, flags)


NEEDS: dict[str, tuple[Need, ...]] = {
    "smm": (Need("KVM_CAP_X86_SMM is not there: this KVM has no SMM", KVM_CAP_X86_SMM),),
    "svm": (
        Need("KVM offers the guest no SVM (kvm_amd does with nested=1)", cpuid=(0x80000001, "ecx", 2)),
        Need("KVM_CAP_NESTED_STATE is not there", KVM_CAP_NESTED_STATE),
    ),
    "svm-nested-paging": (
        Need("CPUID.8000000AH:EDX[0] is clear: no nested paging (kvm_amd's parameter npt=0)", cpuid=(0x8000000A, "edx", 0)),
    ),
    "svm-next-rip": (
        Need("CPUID.8000000AH:EDX[3] is clear: VMRUN takes no next RIP for software interrupts", cpuid=(0x8000000A, "edx", 3)),
    ),
    "vmx": (
        Need("the guest's CPU is one of AMD's, which have no VMX", vendor="intel"),
        Need(
            "CPUID.1:ECX.VMX is clear: this KVM offers no VMX to its guests (kvm_intel's parameter nested=1)", cpuid=(1, "ecx", 5)
        ),
        Need("KVM_CAP_NESTED_STATE is not there", KVM_CAP_NESTED_STATE),
    ),
    "vmx-wait-for-sipi": (
        Need("IA32_VMX_MISC[8] is clear: no VM entry into the activity state wait-for-SIPI", msr=(0x485, 8)),
    ),
    "vmx-monitor-trap": (
        # The upper half of IA32_VMX_PROCBASED_CTLS has the bits that may be 1.
        Need("IA32_VMX_PROCBASED_CTLS[59] is clear: this KVM has no monitor trap flag for nested guests", msr=(0x482, 32 + 27)),
    ),
    "vmx-restricted-guest": (
        Need(
            "the CPU itself runs guests without paging here: needs kvm_intel's parameter unrestricted_guest=0",
            # The upper half of IA32_VMX_PROCBASED_CTLS2 has the bits that may be 1.
            msr=(0x48B, 32 + 7),
            clear=True,
        ),
    ),
    "smep": (Need("the guest's CPUID has no SMEP", cpuid=(7, "ebx", 7)),),
    "pcid": (Need("the guest's CPUID has no PCID", cpuid=(1, "ecx", 17)),),
    "tsc-deadline": (Need("KVM_CAP_TSC_DEADLINE_TIMER is not there", KVM_CAP_TSC_DEADLINE_TIMER),),
    "rdtscp": (Need("the guest's CPUID has no RDTSCP", cpuid=(0x80000001, "edx", 27)),),
    "rdpid": (Need("the guest's CPUID has no RDPID", cpuid=(7, "ecx", 22)),),
    "no-debug-store": (
        Need("the guest's CPUID offers the debug store, so that BTS or PEBS may be there", cpuid=(1, "edx", 21), clear=True),
    ),
    "cmci": (Need("IA32_MCG_CAP.MCG_CMCI_P is clear: KVM_X86_GET_MCE_CAP_SUPPORTED does not have it", msr=(0x179, 10)),),
    **{
        f"kvm-{name}": (Need(f"CPUID.40000001H:EAX[{bit}] is clear: this KVM has no {says}", cpuid=(0x40000001, "eax", bit)),)
        for name, bit, says in (
            ("clock", 3, "kvmclock"),
            ("async-pf", 14, "asynchronous page faults that an interrupt ends"),
            ("steal-time", 5, "steal time"),
            ("pv-eoi", 6, "EOI by way of memory"),
        )
    },
    "hyperv-synic": (Need("KVM_CAP_HYPERV_SYNIC2 is not there", KVM_CAP_HYPERV_SYNIC2),),
    "hyperv-time": (Need("KVM_CAP_HYPERV_TIME is not there", KVM_CAP_HYPERV_TIME),),
    "hyperv-vapic": (Need("KVM_CAP_HYPERV_VAPIC is not there", KVM_CAP_HYPERV_VAPIC),),
    "msr-filter": (Need("KVM_CAP_X86_MSR_FILTER is not there", KVM_CAP_X86_MSR_FILTER),),
    "split-irqchip": (Need("KVM_CAP_SPLIT_IRQCHIP is not there", KVM_CAP_SPLIT_IRQCHIP),),
    "boot-cpu-id": (Need("KVM_CAP_SET_BOOT_CPU_ID is not there", KVM_CAP_SET_BOOT_CPU_ID),),
    "x2apic-api": (Need("KVM_CAP_X2APIC_API is not there", KVM_CAP_X2APIC_API),),
    "triple-fault-event": (Need("KVM_CAP_X86_TRIPLE_FAULT_EVENT is not there", KVM_CAP_X86_TRIPLE_FAULT_EVENT),),
    "disable-quirks": (Need("KVM_CAP_DISABLE_QUIRKS is not there", KVM_CAP_DISABLE_QUIRKS),),
    **{name: (_capability(one),) for name, one in CAPABILITIES.items()},
}
_NAMED = {(one.cap, one.argument): name for name, one in CAPABILITIES.items()}
#: The needs of a capability and no more, by its number: the first of each.
_ALONE = {needs[0].cap: name for name, needs in reversed(NEEDS.items()) if needs == (Need(needs[0].why, needs[0].cap),)}


def of_capability(cap: int, argument: int) -> str:
    """The name of the need of KVM_CAP_* ``cap`` with ``argument``, else of the capability alone; "" where none has one."""
    return _NAMED.get((cap, argument)) or _ALONE.get(cap, "")


def unmet(names: tuple[str, ...], facts: Facts) -> str:
    """The reason of the first need that is not met, "" where all are."""
    return next((need.why for name in names for need in NEEDS[name] if not need.met(facts)), "")
