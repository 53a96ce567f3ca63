# SPDX-License-Identifier: GPL-2.0-only
"""Side effects of writing one section of a vCPU back to RESET's values: all other items must be unchanged."""

from __future__ import annotations

from typing import NamedTuple

from kvmtest.spec.cite import A_APIC, KVM_API, S_APIC_ENABLE, S_PRIORITIES, S_X2APIC
from kvmtest.x86.cpuid import FOLLOWS

__all__ = ("CITE", "Follows", "follows")

CITE = (KVM_API, S_PRIORITIES, S_APIC_ENABLE, S_X2APIC, A_APIC)


class Follows(NamedTuple):
    """``item`` follows from the section that is written: it is as RESET has it, or with ``free`` not judged, for the reason ``why``."""

    item: str
    why: str
    free: bool = False


_SAME = "one register, which both sections show"
_LEFT = "a restarted instruction raises it again: __set_regs() drops it, and the API does not mention it"
_MODE = "another mode of the timer disarms it (SDM vol. 3, TSC-Deadline Mode)"
_TPR = "TPR is CR8 (SDM vol. 3, Task and Processor Priorities)"
_LOCK = "writing 0 does not undo all of its bits: reset.vmm-reset judges that"
_PPR = "PPR follows from TPR and ISR, and KVM may compute it when the vCPU runs"

#: By the section that is written.
_FOLLOWS: dict[str, tuple[Follows, ...]] = {
    "sregs": (
        *(Follows(f"msr.{name}", _SAME) for name in ("apic_base", "efer", "fs_base", "gs_base")),
        Follows("lapic.tpr", _TPR), Follows("msr.hv_tpr", _TPR), Follows("lapic.ppr", _PPR, free=True),
    ),
    "regs": tuple(
        Follows(f"events.exception_{name}", _LEFT, free=True) for name in ("pending", "has_payload", "injected")
    ),
    "lapic": (
        Follows("cr8", _TPR), Follows("msr.hv_tpr", _TPR), Follows("msr.hv_icr", _SAME), Follows("msr.tsc_deadline", _MODE, free=True),
        Follows("lapic.ppr", _PPR, free=True),
    ),
    "msrs": (Follows("msr.hwcr", _LOCK, free=True),),
}  # fmt: skip


def follows(section: str) -> tuple[Follows, ...]:
    """Return the side effects of writing ``section``."""
    mirrors = (Follows(item, "CPUID shows it") for item, of in FOLLOWS.items() if of == section)
    return (*_FOLLOWS.get(section, ()), *mirrors)
