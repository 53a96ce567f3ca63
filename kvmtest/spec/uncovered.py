# SPDX-License-Identifier: GPL-2.0-only
"""Rows of the project's state table that have no item, with the reason why the host cannot read the state."""

from __future__ import annotations

__all__ = ("NOT_HOST_READABLE",)

_NO_MSR = "KVM does not emulate the MSR"
_NO_PLACE = "no ioctl shows it"

NOT_HOST_READABLE: dict[int, str] = {
    26: "the host's KVM_GET_MSRS refuses AMD's breakpoint address masks",
    39: "KVM does not virtualize supervisor protection keys (IA32_PKRS)",
    51: "KVM does not emulate MPERF and APERF by default",
    76: "the x2APIC SELF IPI register is write-only",
    95: "KVM does not emulate the extended machine-check state",
    101: _NO_MSR,
    103: "KVM does not virtualize cache allocation",
    106: "KVM does not virtualize user interrupts",
    111: "SVM_KEY and SMM_KEY read as 0 always, and KVM does not emulate them",
    114: "KVM refuses TOP_MEM and TOP_MEM2",
    115: _NO_MSR,
    118: "collaborative power control, platform QoS and the SEV registers are not emulated by KVM",
    119: "caches cannot be seen in a VM; only a guest can observe that memory survives INIT",
    120: "TLB contents show only in what a guest reads through them",
    121: "branch predictors cannot be seen",
    122: _NO_PLACE + ": the range that MONITOR armed",
    126: _NO_PLACE + ": KVM does not model the A20 mask",
}
