# SPDX-License-Identifier: GPL-2.0-only
"""Values that KVM changes when KVM_SET_* writes them. Every other item must be kept as it was written.

A fact explains one exact value: anything else that is read back is a departure. A refusal with an error is not a fact.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from kvmtest.spec.cite import KVM_API
from kvmtest.spec.commits.entry import Version

__all__ = ("AS_WRITTEN", "FACTS", "Fact", "explained", "priority")

AS_WRITTEN = ("KVM_GET_* returns what KVM_SET_* accepted", KVM_API)
_ALL = (1 << 64) - 1
_FOREVER: Version = (1 << 16, 0)
#: The value of an item as it was written, None where it was not.
Written = Callable[[str], int | None]


class Fact(NamedTuple):
    """KVM keeps the bits ``keep`` of the values written to ``items``, and sets those of ``adds``.

    It does so on ``backends`` ("" is any) of kernels ``since`` to before ``until``, for guests of ``vendor``, and where the item
    ``where`` was not written as 0. ``source`` is KVM's function, ``why`` what it does. ``formula`` names what is computed.
    """

    items: tuple[str, ...]
    source: str
    why: str
    keep: int = 0
    adds: int = 0
    backends: str = ""
    vendor: str = ""
    since: Version = (0, 0)
    until: Version = _FOREVER
    where: str = ""
    formula: str = ""

    @property
    def says(self) -> str:
        """The change that KVM makes, and its source."""
        return f"{self.why} ({self.source})"

    def holds(self, backend: str, kernel: Version, vendor: str, written: Written) -> bool:
        """Return True if it applies to this KVM and this guest, in which ``written`` was written."""
        here = (not self.backends or backend in self.backends.split()) and self.since <= kernel < self.until
        return here and self.vendor in ("", vendor) and (not self.where or bool(written(self.where)))

    def value(self, item: str, written: Written) -> int | None:
        """Return the value that is read back; None if unknown."""
        if self.formula:
            return _FORMULAS[self.formula](written)
        asked = written(item)
        return None if asked is None else asked & self.keep | self.adds


def _in_service(written: Written) -> int:
    """The highest vector in ISR, 0 without one."""
    for number in range(7, -1, -1):
        if bits := written(f"lapic.isr{number}") or 0:
            return 32 * number + bits.bit_length() - 1
    return 0


def priority(written: Written) -> int:
    """The processor priority of a local APIC: SDM vol. 3, Task and Processor Priorities."""
    tpr, isr = written("lapic.tpr") or 0, _in_service(written)
    return tpr if tpr & 0xF0 >= isr & 0xF0 else isr & 0xF0


_FORMULAS: dict[str, Callable[[Written], int | None]] = {"TPR": lambda written: written("lapic.tpr"), "PPR": priority}
_K7 = tuple(f"msr.{name}{i}" for name in ("k7_evntsel", "k7_perfctr") for i in range(4))
_P6 = tuple(f"msr.{name}{i}" for name in ("perfevtsel", "pmc") for i in range(2))
_SEGMENTS = ("cs", "ss", "ds", "es", "fs", "gs", "tr")
_SOFT = "a soft interrupt is not shown: its instruction is executed again"
_NO_LBR = "last-branch recording that is not virtualized is accepted and ignored"
_NO_BTF = "single steps on branches are not virtualized: BTF is accepted and ignored"
_BY_PPR = "PPR is computed from TPR and ISR"

FACTS = (
    Fact(
        (*_K7, *_P6), "kvm_set_msr_common()", "a counter that the vCPU does not have is accepted, and reads as 0",
    ),
    Fact(
        ("msr.vm_hsave_pa",), "kvm_set_msr_common()", "without SVM it is accepted, and reads as 0", backends="vmx pvm",
    ),
    Fact(("msr.debugctl",), "vmx_set_msr()", _NO_LBR, keep=_ALL & ~3, backends="vmx"),
    Fact(("msr.debugctl",), "vmx_set_msr()", _NO_BTF, keep=_ALL & ~2, backends="vmx"),
    Fact(("msr.debugctl",), "svm_set_msr()", _NO_LBR, backends="svm"),
    Fact(("msr.debugctl",), "svm_set_msr()", _NO_BTF, keep=_ALL & ~2, backends="svm"),
    Fact(("msr.debugctl",), "pvm_set_msr()", _NO_LBR, backends="pvm"),
    Fact(
        ("msr.sysenter_esp", "msr.sysenter_eip"), "svm_set_msr()", "an AMD guest has 32 bits of it", keep=(1 << 32) - 1,
        backends="svm", vendor="amd", since=(5, 12),
    ),
    Fact(("events.interrupt_soft",), "kvm_vcpu_ioctl_x86_get_vcpu_events()", _SOFT),
    Fact(("events.interrupt_injected",), "kvm_vcpu_ioctl_x86_get_vcpu_events()", _SOFT, where="events.interrupt_soft"),
    Fact(
        ("events.interrupt_shadow",), "svm_get_interrupt_shadow()", "the VMCB has one bit for the shadows of STI and MOV SS",
        adds=3, backends="svm", where="events.interrupt_shadow",
    ),
    Fact(
        tuple(f"{segment}.type" for segment in _SEGMENTS), "vmx_set_segment()",
        "with unrestricted guests a segment's accessed bit is set", keep=_ALL, adds=1, backends="vmx",
    ),
    # KVM_SET_LAPIC looks at ISR before it computes PPR, or after.
    Fact(("lapic.ppr",), "kvm_apic_set_state()", _BY_PPR, formula="TPR"),
    Fact(("lapic.ppr",), "kvm_apic_set_state()", _BY_PPR, formula="PPR"),
)  # fmt: skip

_BY_ITEM: dict[str, list[Fact]] = {}
for _fact in FACTS:
    for _item in _fact.items:
        _BY_ITEM.setdefault(_item, []).append(_fact)


def explained(item: str, observed: int, backend: str, kernel: Version, vendor: str, written: Written) -> Fact | None:
    """The fact by which ``item`` reads as ``observed`` and not as it was ``written``."""
    for fact in _BY_ITEM.get(item, ()):
        if fact.holds(backend, kernel, vendor, written) and fact.value(item, written) == observed:
            return fact
    return None
