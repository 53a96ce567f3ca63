# SPDX-License-Identifier: GPL-2.0-only
"""Bugs of emulated CPUs that show in guests of the KVM that runs on them: a guest's view there says nothing of KVM.

Each line was found by a guest that read something else than KVM_GET_* showed, and traced to the emulator's source.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

__all__ = ("cannot_tell", "ends_early", "lost", "misleads", "past_event", "wrong")

_NO_INTERCEPT = "QEMU's TCG does not intercept XSETBV, so KVM does not see it and loads no PKRU (helper_xsetbv())"
_MXCSR = "QEMU's TCG does not load MXCSR in an XRSTOR with XSTATE_BV.SSE clear (helper_xrstor())"
_SPEC_CTRL = "QEMU's TCG has no IA32_SPEC_CTRL: it reads as 0 and drops what is written (helper_rdmsr())"

_OLD_XRSTOR = "Bochs before 2.8 does not load MXCSR in an XRSTOR with XSTATE_BV.SSE clear (its commit f3537f282a1e)"
_XRSTORS_MXCSR = "Bochs 3.0 keeps MXCSR in an XRSTORS that finds XSTATE_BV.SSE clear (mended by its commit 17462bb09)"
_XRSTORS_CET = (
    "Bochs 3.0 looks for CET's components in the wrong place if an XRSTORS leaves one before them out, as Linux does with PKRU "
    "(mended by its commit f59ff867d)"
)
_BAD_MSR = "Bochs' Haswell has no IA32_SPEC_CTRL, and Bochs reads an MSR that is not there as 0"

#: kvm_amd keeps the VMCB's CPL through INIT and shows it as SS.DPL, which fails there, and what restores that writes it to the
#: VMCB's SS, too. A CPU does not look at either outside of protected mode.
_CPL = (
    "QEMU's TCG uses SS.DPL as CPL in real mode, too, where VMRUN sets CPL to 0: a guest with another SS.DPL cannot "
    "execute LIDT (cpu_x86_load_seg_cache(); APM vol. 2, VMRUN, Canonicalization and Consistency Checks)"
)
_CR0_PE = 1

#: With kvm_amd of this version and later. A CPU sets the type of EXITINTINFO with its V bit.
_PAST_EVENT, _SINCE = "KVM_INTERNAL_ERROR_DELIVERY_EV", (6, 14)
_TYPE = (
    "QEMU's TCG leaves the type of a past event in EXITINTINFO (do_vmexit()), and KVM takes it for an event in delivery "
    "without a look at its V bit (svm_check_emulate_instruction(), since 11c98fa07a79): it emulates no access"
)

#: By a scenario's trigger.
_WITHOUT_NPT = {
    "task-gate": (
        "QEMU's TCG intercepts no task switch, and without nested paging it loads CR3 from the TSS in the place of KVM's page table "
        "(switch_tss_ra())"
    )
}

#: By the beginning of the CPU's model name in /proc/cpuinfo or of the lab's emulator, then by item.
_WRONG = {
    "QEMU TCG CPU": {"pkru": _NO_INTERCEPT, "mxcsr": _MXCSR, "msr.spec_ctrl": _SPEC_CTRL},
    "Bochs": {"msr.spec_ctrl": _BAD_MSR},
    "Bochs 2.7": {"mxcsr": _OLD_XRSTOR},
}
#: The same of what KVM itself keeps by the CPU's instructions: neither view has the right value.
_LOST = {
    "Bochs 3.0": {"mxcsr": _XRSTORS_MXCSR}
    | dict.fromkeys(("msr.u_cet", "msr.pl0_ssp", "msr.pl1_ssp", "msr.pl2_ssp", "msr.pl3_ssp"), _XRSTORS_CET),
}


def _why(table: Mapping[str, Mapping[str, str]], names: tuple[str, ...], item: str) -> str:
    there = (wrong for begin, wrong in table.items() if any(name.startswith(begin) for name in names))
    return next((wrong[item] for wrong in there if item in wrong), "")


@cache
def wrong(names: tuple[str, ...], item: str) -> str:
    """Return why KVM cannot keep ``item`` on a CPU with ``names`` (model and emulator); "" if it can."""
    return _why(_LOST, names, item)


@cache
def cannot_tell(names: tuple[str, ...], item: str) -> str:
    """Return why a guest on a CPU with ``names`` cannot read ``item`` correctly; "" if it can."""
    return wrong(names, item) or _why(_WRONG, names, item)


def lost(names: tuple[str, ...], item: str) -> bool:
    """Return True if a guest's execution on a CPU with ``names`` loses ``item`` for KVM, too.

    kvm_amd of 5.10 reads IA32_SPEC_CTRL back from the CPU after each exit (svm_vcpu_run()).
    """
    return bool(wrong(names, item) or item == "msr.spec_ctrl" and cannot_tell(names, item))


def ends_early(names: tuple[str, ...], cr0: int | None, ss_dpl: int | None) -> str:
    """Return why a guest with this restored CR0 and SS stops too early on this emulator; "" if it does not."""
    tcg = any(name.startswith("QEMU TCG CPU") for name in names)
    return _CPL if tcg and ss_dpl and cr0 is not None and not cr0 & _CR0_PE else ""


def past_event(names: tuple[str, ...], backend: str, kernel: tuple[int, int], end: str) -> str:
    """Return why a guest that stopped with ``end`` did so for what an earlier guest on its vCPU did; "" if for itself."""
    tcg = any(name.startswith("QEMU TCG CPU") for name in names)
    return _TYPE if tcg and backend == "svm" and kernel >= _SINCE and _PAST_EVENT in end else ""


def misleads(names: tuple[str, ...], parameters: Mapping[str, str], trigger: str) -> str:
    """Return why what comes by ``trigger`` says nothing of a KVM with these ``parameters`` on this emulator; "" if it does."""
    tcg = any(name.startswith("QEMU TCG CPU") for name in names)
    return _WITHOUT_NPT.get(trigger, "") if tcg and parameters.get("npt") in ("N", "0") else ""
