# SPDX-License-Identifier: GPL-2.0-only
"""Documented departures of KVM from the manuals, one a line: what is seen, where, since and until when, and why.

A deviation explains one exact value: any other wrong value stays a ``fail``.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ("DEVIATIONS", "Deviation", "find")

Version = tuple[int, int]


class Deviation(NamedTuple):
    """``item`` shows ``observed`` after ``event`` on ``backends`` ("" is any) of kernels ``since`` to before ``until``.

    The event ``views`` is that the guest reads ``observed`` where the host's ioctls show another value.

    ``view`` is "host" or "guest", ``target`` "bsp" or "ap", ``vendor`` the guest's CPUID vendor, where only one of them departs. ``commit`` is the upstream commit or the function of the
    kernel's source that admits it; ``why`` says it in a sentence.
    """

    item: str
    event: str
    observed: int
    commit: str
    why: str
    backends: str = ""
    target: str = ""
    vendor: str = ""
    view: str = ""
    since: Version = (0, 0)
    until: Version = (1 << 16, 0)


_EDX = "KVM emulates RESET before the vCPU can have a CPUID, so EDX is always its default family/model/stepping"
_FNINIT = "a new vCPU's FPU is in the FNINIT configuration, in all kernels; the architectural RESET image is another"
_LINT0 = "the boot CPU's LINT0 is unmasked as ExtINT unless KVM_X86_QUIRK_LINT0_REENABLED is disabled (KVM API)"
_NO_EXTENDED = "KVM gives every guest the version of its one local APIC model, which has no extended register space"
_SYSCFG = "KVM emulates SYSCFG as a constant 0"
_ACCESSED = "KVM shows the data segments' accessed bit as set, whatever the VMCB has, for the sake of migration"

_TPR = "on an exit KVM takes TPR from the VMCB's V_TPR, which has its priority class only: bits 3:0 are lost"
_PPR = "KVM_SET_LAPIC computes PPR before it looks at the ISR that it was given; a guest's read computes it anew"

DEVIATIONS = (
    Deviation("rdx", "reset", 0x600, "665f4d9238ad", _EDX),
    Deviation("fcw", "reset", 0x37F, "fpstate_init_user()", _FNINIT),
    Deviation("ftw", "reset", 0x0, "fpstate_init_user()", _FNINIT),
    Deviation("lapic.lvt_lint0", "reset", 0x700, "kvm_lapic_reset()", _LINT0, target="bsp"),
    Deviation("lapic.lvt_lint0", "init", 0x700, "kvm_lapic_reset()", _LINT0, target="bsp"),
    Deviation("msr.syscfg", "reset", 0x0, "kvm_get_msr_common()", _SYSCFG, vendor="amd"),
    # With 6 or 7 LVT entries, and with EOI-broadcast suppression where a split irqchip allows it.
    *(
        Deviation("lapic.version", event, version, "kvm_apic_set_version()", _NO_EXTENDED, vendor="amd")
        for event in ("reset", "init")
        for version in (0x00050014, 0x00060014, 0x01050014, 0x01060014)
    ),
    Deviation("lapic.tpr", "sipi", 0xD0, "sync_cr8_to_lapic()", _TPR, backends="svm", view="guest"),
    Deviation("lapic.tpr", "views", 0xD0, "sync_cr8_to_lapic()", _TPR, backends="svm"),
    Deviation("lapic.ppr", "views", 0xF0, "kvm_apic_set_state()", _PPR),
    *(
        Deviation(f"{seg}.type", event, 0x3, "svm_get_segment()", _ACCESSED, backends="svm")
        for event in ("reset", "init")
        for seg in ("ds", "es", "fs", "gs")
    ),
)

_BY_ITEM: dict[tuple[str, str], tuple[Deviation, ...]] = {}
for _d in DEVIATIONS:
    _BY_ITEM[_d.item, _d.event] = (*_BY_ITEM.get((_d.item, _d.event), ()), _d)


def find(
    item: str, event: str, observed: int, backend: str, kernel: Version, vendor: str, is_bsp: bool, view: str = ""
) -> tuple[Deviation | None, bool]:
    """The deviation listed for ``item`` after ``event`` on this backend, kernel, guest vendor and target.

    True with it if it is the one that explains ``observed``; otherwise some other value is listed.
    """
    here = [
        d
        for d in _BY_ITEM.get((item, event), ())
        if (not d.backends or backend in d.backends.split())
        and d.target in ("", "bsp" if is_bsp else "ap")
        and d.vendor in ("", vendor)
        and d.view in ("", view)
        and d.since <= kernel < d.until
    ]
    exact = next((d for d in here if d.observed == observed), None)
    return exact or (here[0] if here else None), exact is not None
