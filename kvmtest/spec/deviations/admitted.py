# SPDX-License-Identifier: GPL-2.0-only
"""Departures that KVM makes on purpose, by its own comments, commits or documentation."""

from __future__ import annotations

from kvmtest.spec.deviations.deviation import Deviation

__all__ = ("ADMITTED",)

_EDX = "KVM emulates RESET before the vCPU can have a CPUID, so EDX is always its default family/model/stepping"
_LINT0 = "the boot CPU's LINT0 is unmasked as ExtINT unless KVM_X86_QUIRK_LINT0_REENABLED is disabled (KVM API)"
_TSC_0 = "a VMM that writes 0 to the TSC asks KVM to synchronise it with the vCPUs of the VM, by a comment there: it counts on"
_ACCESSED = "KVM shows the data segments' accessed bit as set, whatever the VMCB has, for the sake of migration"


def _admitted(
    item: str, event: str, observed: int | str, commit: str, why: str, backends: str = "", target: str = "", vendor: str = "",
    view: str = "", case: str = "",
) -> Deviation:  # fmt: skip
    return Deviation(item, event, observed, commit, why, "admitted", backends, target, vendor, view, case=case)


ADMITTED = (
    _admitted("rdx", "reset", 0x600, "665f4d9238ad", _EDX),
    _admitted("lapic.lvt_lint0", "reset", 0x700, "kvm_lapic_reset()", _LINT0, target="bsp"),
    _admitted("lapic.lvt_lint0", "init", 0x700, "kvm_lapic_reset()", _LINT0, target="bsp"),
    _admitted("lapic.lvt_lint0", "shutdown", 0x700, "kvm_lapic_reset()", _LINT0, target="bsp", backends="svm"),
    _admitted(
        "none.set-msrs.host.msr.tsc", "none", "far more than what was written", "kvm_synchronize_tsc()", _TSC_0,
        case="tsc-back-to-0",
    ),
    *(
        _admitted(f"{seg}.type", event, 0x3, "svm_get_segment()", _ACCESSED, backends="svm")
        for event in ("reset", "init", "shutdown")
        for seg in ("ds", "es", "fs", "gs")
    ),
)
