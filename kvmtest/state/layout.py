# SPDX-License-Identifier: GPL-2.0-only
"""The position of each item in what the KVM_GET_* ioctls return.

A *section* is the buffer of one ioctl, an *item* a bit field of a section. A layout belongs to a kind of vCPU: which MSRs
it lets the host read and where its XSAVE components lie.
"""

from __future__ import annotations

import ctypes
from collections.abc import Collection
from typing import Any, NamedTuple

from kvmtest.uapi.kvm import (
    kvm_debugregs,
    kvm_dtable,
    kvm_lapic_state,
    kvm_mp_state,
    kvm_regs,
    kvm_segment,
    kvm_sregs,
    kvm_vcpu_events,
    kvm_xcr,
    kvm_xcrs,
)
from kvmtest.x86 import cpuid, lapic, msr, xsave

__all__ = ("SEGMENTS", "Field", "Layout", "static_fields")

#: struct kvm_sregs' names of the segment registers.
SEGMENTS = ("cs", "ds", "es", "fs", "gs", "ss", "tr", "ldt")
_WORD = 8
_XSTATE_BV_END = xsave.XSTATE_BV_OFFSET + 8
_LAPIC_SIZE = ctypes.sizeof(kvm_lapic_state)
#: struct kvm_cpuid2 is {u32 nent, u32 padding, struct kvm_cpuid_entry2 entries[]}; an entry {u32 function, index, flags, eax,
#: ebx, ecx, edx, padding[3]}.
_CPUID_HEAD, _CPUID_LEAF, _CPUID_REGS = 8, 40, {"ebx": 16, "ecx": 20, "edx": 24}


class Field(NamedTuple):
    """A little-endian field of ``size`` bytes at ``offset`` of ``section``.

    ``component`` is the XSTATE_BV bit that must be set for the bytes to count; where it is clear the register holds ``init``.
    """

    section: str
    offset: int
    size: int
    component: int | None = None
    init: int = 0

    def get(self, buf: bytes) -> int | None:
        """The item's value in the section's bytes ``buf``; None where they end before it."""
        if len(buf) < self.offset + self.size:
            return None
        if self.component is not None:
            if len(buf) < _XSTATE_BV_END:
                return None
            bv = int.from_bytes(buf[xsave.XSTATE_BV_OFFSET : xsave.XSTATE_BV_OFFSET + 8], "little")
            if not bv >> self.component & 1:
                return self.init
        return int.from_bytes(buf[self.offset : self.offset + self.size], "little")

    def put(self, buf: bytearray, value: int) -> None:
        """Write ``value``, cut to the field's size, into ``buf``; nothing where that ends before the field."""
        if len(buf) < self.offset + self.size:
            return
        value &= (1 << 8 * self.size) - 1
        buf[self.offset : self.offset + self.size] = value.to_bytes(self.size, "little")


def _place(struct: type[ctypes.Structure], *path: str) -> tuple[int, int]:
    offset, size = 0, 0
    kind: Any = struct
    for name in path:
        member = getattr(kind, name)
        offset, size = offset + member.offset, member.size
        kind = dict((f[0], f[1]) for f in kind._fields_)[name]
    return offset, size


def _array(section: str, struct: type[ctypes.Structure], name: str, index: int, size: int = _WORD) -> Field:
    return Field(section, _place(struct, name)[0] + index * size, size)


#: struct kvm_vcpu_events' members; the item is ``events.`` and the path joined by ``_``.
_EVENTS = (
    ("exception", "injected"),
    ("exception", "pending"),
    ("exception_has_payload",),
    ("interrupt", "injected"),
    ("interrupt", "soft"),
    ("interrupt", "shadow"),
    ("nmi", "injected"),
    ("nmi", "pending"),
    ("nmi", "masked"),
    ("smi", "smm"),
    ("smi", "pending"),
    ("smi", "smm_inside_nmi"),
    ("smi", "latched_init"),
    ("triple_fault", "pending"),
    ("sipi_vector",),
)
_EVENT_NAMES: dict[tuple[str, ...], str] = {("smi", "smm_inside_nmi"): "smi_inside_nmi"}


def static_fields() -> dict[str, Field]:
    """The items whose place is the same on every KVM."""
    fields: dict[str, Field] = {"mp_state": Field("mp_state", *_place(kvm_mp_state, "mp_state"))}
    for name in ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rsp", "rbp", *(f"r{i}" for i in range(8, 16)), "rip", "rflags"):
        fields[name] = Field("regs", *_place(kvm_regs, name))
    for seg in SEGMENTS:
        for part in ("selector", "base", "limit", "type", "s", "dpl", "present", "avl", "l", "db", "g", "unusable"):
            start = _place(kvm_sregs, seg)[0]
            offset, size = _place(kvm_segment, part)
            fields[f"{seg}.{part}"] = Field("sregs", start + offset, size)
    for table in ("gdt", "idt"):
        for part in ("base", "limit"):
            offset, size = _place(kvm_dtable, part)
            fields[f"{table}.{part}"] = Field("sregs", _place(kvm_sregs, table)[0] + offset, size)
    for name in ("cr0", "cr2", "cr3", "cr4", "cr8", "efer", "apic_base"):
        fields[name] = Field("sregs", *_place(kvm_sregs, name))
    for i in range(4):
        fields[f"dr{i}"] = _array("debugregs", kvm_debugregs, "db", i)
    for name in ("dr6", "dr7"):
        fields[name] = Field("debugregs", *_place(kvm_debugregs, name))
    fields["xcr0"] = Field("xcrs", _place(kvm_xcrs, "xcrs")[0] + _place(kvm_xcr, "value")[0], _WORD)
    for path in _EVENTS:
        fields["events." + _EVENT_NAMES.get(path, "_".join(path))] = Field("events", *_place(kvm_vcpu_events, *path))
    for reg in lapic.LAPIC:
        fields[f"lapic.{reg.name}"] = Field("lapic", reg.offset, 4)
    for component in xsave.LEGACY:
        for r in component.registers:
            fields[r.name] = Field("xsave", r.offset, r.size, component.bit, r.init)
    fields["mxcsr"] = Field("xsave", xsave.MXCSR.offset, xsave.MXCSR.size)
    fields["ssp"] = Field("ssp", 0, _WORD)
    # struct kvm_nested_state: flags, then the vendor header (KVM_GET_NESTED_STATE).
    fields["nested.flags"] = Field("nested", 0, 2)
    fields["nested.vmxon_pa"] = Field("nested", 8, _WORD)
    fields["nested.vmcs12_pa"] = Field("nested", 16, _WORD)
    return fields


class Layout:
    """The items of one kind of vCPU.

    ``msrs`` are the MSR indexes of the ``msrs`` section in order; ``components`` maps an XSAVE component's bit to its offset in
    the standard format, in bytes; ``leaves`` are (function, index) of KVM_GET_CPUID2's leaves in order. ``sections`` are those
    that this vCPU has, ``missing_sections`` those that it has not, with the reason. ``missing`` says why an item of the
    project's tables is not there. ``unlisted`` are the items of MSRs that can be read, and that KVM_GET_MSR_INDEX_LIST, of which
    the indexes are ``listed``, does not name.
    """

    unlisted: tuple[str, ...] = ()

    def __init__(
        self,
        msrs: tuple[int, ...],
        components: dict[int, int],
        missing_sections: dict[str, str],
        leaves: tuple[tuple[int, int], ...] = (),
        listed: Collection[int] | None = None,
    ) -> None:
        self.msrs = msrs
        self.unlisted = tuple(f"msr.{msr.name_of(index)}" for index in msrs if listed is not None and index not in listed)
        self.missing_sections = missing_sections
        self.leaves = leaves
        self.fields: dict[str, Field] = {}
        self.missing: dict[str, str] = {}
        for name, field in static_fields().items():
            self._add(name, field, missing_sections)
        for component in xsave.COMPONENTS:
            start = components.get(component.bit)
            for r in component.registers:
                if start is None:
                    self.missing[r.name] = f"this host has no XSAVE component {component.bit} ({component.name})"
                else:
                    self._add(r.name, Field("xsave", start + r.offset, r.size, component.bit, r.init), missing_sections)
        # The section is struct kvm_msr_entry after struct kvm_msr_entry: {u32 index, u32 reserved, u64 data}.
        for i, index in enumerate(msrs):
            self._add(f"msr.{msr.name_of(index)}", Field("msrs", 16 * i + 8, _WORD), missing_sections)
        for known in msr.MSRS:
            name = f"msr.{known.name}"
            if name not in self.fields:
                self.missing.setdefault(name, f"KVM_GET_MSRS does not let the host read MSR {known.index:#x} of this vCPU")
        for mirror in cpuid.MIRRORS:
            if (mirror.function, mirror.index) in leaves:
                place = _CPUID_HEAD + _CPUID_LEAF * leaves.index((mirror.function, mirror.index)) + _CPUID_REGS[mirror.register]
                self._add(mirror.item, Field("cpuid", place, 4), missing_sections)
            else:
                self.missing[mirror.item] = f"KVM_GET_CPUID2 of this vCPU has no leaf {mirror.function:X}H, index {mirror.index}"
        self.by_section: dict[str, tuple[str, ...]] = {}
        for name, field in self.fields.items():
            self.by_section[field.section] = (*self.by_section.get(field.section, ()), name)

    def _add(self, name: str, field: Field, missing_sections: dict[str, str]) -> None:
        if field.section in missing_sections:
            self.missing[name] = missing_sections[field.section]
        elif field.section == "lapic" and field.offset + field.size > _LAPIC_SIZE:
            self.missing[name] = f"KVM_GET_LAPIC does not show it: struct kvm_lapic_state ends at {_LAPIC_SIZE:X}H"
        else:
            self.fields[name] = field
