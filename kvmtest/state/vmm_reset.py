# SPDX-License-Identifier: GPL-2.0-only
"""RESET as a VMM does it: KVM has no ioctl for it, so that every piece of state is written back to what a new vCPU shows.

The order of the ioctls is the VMM's, within CONSTRAINTS. Sources name the function of arch/x86/kvm that makes a constraint.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import NamedTuple

from kvmtest.kvm import KvmError, Vcpu
from kvmtest.kvm.ioctl import ioctl
from kvmtest.state.layout import Layout
from kvmtest.state.sections import Snapshot
from kvmtest.state.snapshot import Buffer, msr_buffers, one_reg, refusal
from kvmtest.uapi.kvm import (
    KVM_SET_DEBUGREGS,
    KVM_SET_LAPIC,
    KVM_SET_MP_STATE,
    KVM_SET_MSRS,
    KVM_SET_NESTED_STATE,
    KVM_SET_ONE_REG,
    KVM_SET_REGS,
    KVM_SET_SREGS,
    KVM_SET_VCPU_EVENTS,
    KVM_SET_XCRS,
    KVM_SET_XSAVE,
)

__all__ = ("COMMANDS", "CONSTRAINTS", "SECTIONS", "SETTERS", "Constraint", "Reset", "orders")

#: The ioctl that writes each section.
SETTERS = {
    "nested": KVM_SET_NESTED_STATE,
    "sregs": KVM_SET_SREGS,
    "lapic": KVM_SET_LAPIC,
    "xcrs": KVM_SET_XCRS,
    "xsave": KVM_SET_XSAVE,
    "regs": KVM_SET_REGS,
    "debugregs": KVM_SET_DEBUGREGS,
    "msrs": KVM_SET_MSRS,
    "ssp": KVM_SET_ONE_REG,
    "events": KVM_SET_VCPU_EVENTS,
    "mp_state": KVM_SET_MP_STATE,
}
#: The sections of a snapshot, in an order that is legal.
SECTIONS = tuple(SETTERS)


class Constraint(NamedTuple):
    """Section ``first`` has to be written before ``second``. ``at_reset`` is whether that holds for RESET's values too.

    Where it does not, either order leaves the same, because the value at RESET is the one that the later ioctl would drop or
    force.
    """

    first: str
    second: str
    at_reset: bool
    why: str
    source: str


_APIC_MODE = "IA32_APIC_BASE decides the format of ID, LDR and ICR"
_GUEST_MODE = "in guest mode these are the nested guest's registers, which leaving it discards"
_VMXE = "in VMX operation KVM refuses CR4 without VMXE; " + _GUEST_MODE
_VMX_MSRS = "in VMX operation KVM refuses the capability MSRs; " + _GUEST_MODE
_DEADLINE = "IA32_TSC_DEADLINE is dropped unless the LVT timer is in that mode; 0 arms nothing"
_UNHALT = "a BSP at the reset vector is made RUNNABLE, as a new one is"
_PENDING = "a pending exception is dropped; a new vCPU has none"
_SMI = "an SMI is refused in INIT_RECEIVED until v6.16; a new vCPU has neither"
_LEAVE = "svm_leave_nested(), vmx_leave_nested()"

CONSTRAINTS = (
    Constraint("sregs", "lapic", True, _APIC_MODE, "KVM API, KVM_GET_LAPIC; kvm_apic_state_fixup()"),
    Constraint("nested", "sregs", True, _VMXE, "nested_cr4_valid(), " + _LEAVE),
    Constraint("nested", "msrs", True, _VMX_MSRS, "vmx_set_vmx_msr(), " + _LEAVE),
    Constraint("nested", "regs", True, _GUEST_MODE, _LEAVE),
    Constraint("nested", "debugregs", True, _GUEST_MODE, _LEAVE),
    Constraint("nested", "events", True, _GUEST_MODE, _LEAVE),
    Constraint("lapic", "msrs", False, _DEADLINE, "kvm_set_lapic_tscdeadline_msr()"),
    Constraint("sregs", "mp_state", False, _UNHALT, "__set_sregs_common()"),
    Constraint("regs", "events", False, _PENDING, "__set_regs()"),
    Constraint("events", "mp_state", False, _SMI, "kvm_vcpu_ioctl_x86_set_vcpu_events()"),
)
_AT_RESET = frozenset((c.first, c.second) for c in CONSTRAINTS if c.at_reset)
#: MSRs that are commands: 0 is not what they hold but what a read gives.
COMMANDS = frozenset(f"msr.{name}" for name in ("hv_eoi", "hv_icr", "hv_tpr", "hv_eom"))


@cache
def orders(sections: tuple[str, ...] = SECTIONS) -> list[tuple[str, ...]]:
    """Orders of ``sections`` that RESET's constraints allow: together they have each pair both ways, where both are legal."""
    wanted = {(a, b) for a in sections for b in sections if a != b and not _after(a, b)}
    found = [sections]
    wanted -= _pairs(sections)
    while wanted:
        found.append(order := _next(sections, wanted))
        wanted -= _pairs(order)
    return found


def _after(a: str, b: str) -> bool:
    """Return True if the constraints require ``a`` after ``b``, directly or through others."""
    return any(first == b and (second == a or _after(a, second)) for first, second in _AT_RESET)


def _pairs(order: tuple[str, ...]) -> set[tuple[str, str]]:
    return {(a, b) for i, a in enumerate(order) for b in order[i + 1 :]}


def _next(names: tuple[str, ...], wanted: set[tuple[str, str]]) -> tuple[str, ...]:
    """Return a legal order, chosen greedily: next is always the section with most pairs of ``wanted``."""
    left, order = list(names), []
    while left:
        free = [a for a in left if not any(_after(a, b) for b in left)]
        order.append(max(free, key=lambda a: sum((a, b) in wanted for b in left)))
        left.remove(order[-1])
    return tuple(order)


class Reset:
    """Writes ``vcpu`` back to ``new``, its state at creation."""

    def __init__(self, vcpu: Vcpu, layout: Layout, new: Snapshot) -> None:
        self.vcpu = vcpu
        self._buffers = {
            section: one_reg(request, contents) if section == "ssp" else Buffer(section, request, contents)
            for section, request in SETTERS.items()
            if (contents := new.sections.get(section)) is not None
        }
        self._msrs = [
            (index, value, item)
            for index, item in zip(layout.msrs, layout.by_section["msrs"], strict=True)
            if item not in COMMANDS and (value := new.get(layout, item)) is not None
        ]
        #: The MSRs whose own value KVM refuses, with the error: found by trying, once.
        self.read_only: dict[str, str] = {}
        self._write_msrs(self.read_only)
        self._msrs = [known for known in self._msrs if known[2] not in self.read_only]

    @property
    def sections(self) -> tuple[str, ...]:
        """The sections that are written, in a legal order."""
        return tuple(self._buffers)

    def write(self, order: Iterable[str]) -> dict[str, str]:
        """Write the sections in ``order``; says what KVM refused, by section or item, with the error. Raises KvmError."""
        refused: dict[str, str] = {}
        for section in order:
            if section == "msrs":
                self._write_msrs(refused)
                continue
            buf = self._buffers[section]
            try:
                ioctl(self.vcpu.fd, buf.request, buf.address)
            except KvmError as error:
                refused[section] = refusal(error)
        return refused

    def _write_msrs(self, refused: dict[str, str]) -> None:
        """KVM_SET_MSRS stops at the first MSR that it refuses; name that one and continue."""
        left = self._msrs
        while left:
            buf = msr_buffers(KVM_SET_MSRS, [(index, value) for index, value, _ in left])[0]
            done = ioctl(self.vcpu.fd, buf.request, buf.address)
            if 16 * done + 8 < buf.size:
                index, value, item = left[done]
                refused[item] = f"KVM_SET_MSRS refused {value:#x} for MSR {index:#x}"
                done += 1
            left = left[done:]
