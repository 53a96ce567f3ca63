# SPDX-License-Identifier: GPL-2.0-only
"""Capabilities of a VM that may affect RESET or INIT, as facts: the arguments of KVM_ENABLE_CAP."""

from __future__ import annotations

from typing import NamedTuple

from kvmtest.uapi import kvm as uapi

__all__ = ("CAPABILITIES", "Capability")

#: Each reason for which an access to an MSR may exit: reserved bits or an MSR that is inactive, an unknown one, a filtered one.
_MSR_EXITS = 7
#: KVM_HC_MAP_GPA_RANGE, the only hypercall that can exit.
_MAP_GPA_RANGE = 1 << 12


class Capability(NamedTuple):
    """KVM_CAP_* ``cap`` with ``argument``. Without ``flags`` KVM_CHECK_EXTENSION does not return which arguments it accepts."""

    cap: int
    argument: int
    flags: bool = True


#: By the names that cases have.
CAPABILITIES: dict[str, Capability] = {
    **{
        f"no-{name}-exits": Capability(uapi.KVM_CAP_X86_DISABLE_EXITS, 1 << bit)
        for bit, name in enumerate(("mwait", "hlt", "pause", "cstate", "aperfmperf"))
    },
    **{
        f"no-quirk-{name}": Capability(uapi.KVM_CAP_DISABLE_QUIRKS2, 1 << bit)
        for bit, name in enumerate(
            (
                *("lint0", "cd-nw", "mmio-hole", "out-7e", "misc-enable-mwait", "hypercall", "mwait-ud", "slot-zap"),
                *("feature-msrs", "guest-pat", "freeze-in-smm", "shared-pat"),
            )
        )
    },
    "x2apic-32-bit-ids": Capability(uapi.KVM_CAP_X2APIC_API, uapi.KVM_X2APIC_API_USE_32BIT_IDS, False),
    "x2apic-no-broadcast": Capability(uapi.KVM_CAP_X2APIC_API, uapi.KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK, False),
    "user-space-msrs": Capability(uapi.KVM_CAP_X86_USER_SPACE_MSR, _MSR_EXITS, False),
    "bus-lock-exits": Capability(uapi.KVM_CAP_X86_BUS_LOCK_EXIT, 2),
    "no-pmu": Capability(uapi.KVM_CAP_PMU_CAPABILITY, 1),
    "emulation-failure-exits": Capability(uapi.KVM_CAP_EXIT_ON_EMULATION_FAILURE, 1, False),
    "hypercall-exits": Capability(uapi.KVM_CAP_EXIT_HYPERCALL, _MAP_GPA_RANGE),
    "dirty-ring": Capability(uapi.KVM_CAP_DIRTY_LOG_RING, 1 << 16, False),
    # A VM of a case has the two, unless it names them.
    "no-payloads": Capability(uapi.KVM_CAP_EXCEPTION_PAYLOAD, 0, False),
    "no-triple-fault-event": Capability(uapi.KVM_CAP_X86_TRIPLE_FAULT_EVENT, 0, False),
}
