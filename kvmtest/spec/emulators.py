# SPDX-License-Identifier: GPL-2.0-only
"""Bugs of emulated CPUs that show in guests of the KVM that runs on them: a guest's view there says nothing of KVM.

Each line was found by a guest that read something else than KVM_GET_* showed, and traced to the emulator's source.
"""

from __future__ import annotations

__all__ = ("cannot_tell", "ends_early")

_NO_INTERCEPT = "QEMU's TCG does not intercept XSETBV, so KVM does not see it and loads no PKRU (helper_xsetbv())"
_MXCSR = "QEMU's TCG does not load MXCSR in an XRSTOR with XSTATE_BV.SSE clear (helper_xrstor())"
_SPEC_CTRL = "QEMU's TCG has no IA32_SPEC_CTRL: it reads as 0 and drops what is written (helper_rdmsr())"

_OLD_XRSTOR = "Bochs before 2.8 does not load MXCSR in an XRSTOR with XSTATE_BV.SSE clear (its commit f3537f282a1e)"
_BAD_MSR = "Bochs' Haswell has no IA32_SPEC_CTRL, and Bochs reads an MSR that is not there as 0"

#: kvm_amd keeps the VMCB's CPL through INIT and shows it as SS.DPL, which fails there, and what restores that writes it to the
#: VMCB's SS, too. A CPU does not look at either outside of protected mode.
_CPL = (
    "QEMU's TCG uses SS.DPL as CPL in real mode, too, where VMRUN sets CPL to 0: a guest with another SS.DPL cannot "
    "execute LIDT (cpu_x86_load_seg_cache(); APM vol. 2, VMRUN, Canonicalization and Consistency Checks)"
)
_CR0_PE = 1

#: By the beginning of the CPU's model name in /proc/cpuinfo or of the lab's emulator, then by item.
_WRONG = {
    "QEMU TCG CPU": {"pkru": _NO_INTERCEPT, "mxcsr": _MXCSR, "msr.spec_ctrl": _SPEC_CTRL},
    "Bochs": {"msr.spec_ctrl": _BAD_MSR},
    "Bochs 2.7": {"mxcsr": _OLD_XRSTOR},
}


def cannot_tell(names: tuple[str, ...], item: str) -> str:
    """Return why a guest on a CPU with ``names`` (model and emulator) cannot read ``item`` correctly; "" if it can."""
    there = (wrong for begin, wrong in _WRONG.items() if any(name.startswith(begin) for name in names))
    return next((wrong[item] for wrong in there if item in wrong), "")


def ends_early(names: tuple[str, ...], cr0: int | None, ss_dpl: int | None) -> str:
    """Return why a guest with this restored CR0 and SS stops too early on this emulator; "" if it does not."""
    tcg = any(name.startswith("QEMU TCG CPU") for name in names)
    return _CPL if tcg and ss_dpl and cr0 is not None and not cr0 & _CR0_PE else ""
