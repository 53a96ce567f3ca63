# SPDX-License-Identifier: GPL-2.0-only
"""MSRs of KVM's own, by which it writes guest memory: a third kind of rule, which KVM promises and no CPU manual knows.

Where KVM's documentation and its reset code say nothing, the MSR has no line here, and stays undefined.
"""

from __future__ import annotations

from kvmtest.spec.cite import KVM_MSR, KVM_RESET
from kvmtest.spec.rule import Entry, entry, value

__all__ = ("RULES",)

#: RESET and INIT: what enables the writing has bit 0 clear.
_OFF = value(0, "KVM's own promise, no CPU manual's: the memory of what ran before is written no more")

RULES: tuple[Entry, ...] = tuple(
    entry(f"msr.kvm_{name}", row=(), reset=_OFF, init=_OFF, cite=(KVM_RESET, KVM_MSR))
    for name in ("system_time", "system_time_new", "steal_time", "async_pf_en", "async_pf_int", "pv_eoi_en")
)
