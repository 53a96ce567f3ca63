# SPDX-License-Identifier: GPL-2.0-only
"""Positions of single items in the structures of ioctls, and the ops that read and write them."""

from __future__ import annotations

from collections.abc import Iterable
from ctypes import sizeof
from functools import cache

from kvmtest.scenario.program import Buffer, Compare, Ioctl, Op, Otherwise, Place, Put
from kvmtest.state.layout import static_fields
from kvmtest.uapi import kvm as uapi
from kvmtest.x86 import msr, xsave

__all__ = ("RESULT", "SECTIONS", "Places", "fields")

#: The interrupt controllers of a VM, by their number in struct kvm_irqchip.
_CHIPS = {
    "pic_master": uapi.KVM_IRQCHIP_PIC_MASTER, "pic_slave": uapi.KVM_IRQCHIP_PIC_SLAVE, "ioapic": uapi.KVM_IRQCHIP_IOAPIC,
}  # fmt: skip
#: Sections that single items are written by: KVM_GET_*, KVM_SET_*, the structure.
SECTIONS = {
    "mp_state": (uapi.KVM_GET_MP_STATE, uapi.KVM_SET_MP_STATE, uapi.kvm_mp_state),
    "regs": (uapi.KVM_GET_REGS, uapi.KVM_SET_REGS, uapi.kvm_regs),
    "sregs": (uapi.KVM_GET_SREGS, uapi.KVM_SET_SREGS, uapi.kvm_sregs),
    "debugregs": (uapi.KVM_GET_DEBUGREGS, uapi.KVM_SET_DEBUGREGS, uapi.kvm_debugregs),
    "events": (uapi.KVM_GET_VCPU_EVENTS, uapi.KVM_SET_VCPU_EVENTS, uapi.kvm_vcpu_events),
    "xcrs": (uapi.KVM_GET_XCRS, uapi.KVM_SET_XCRS, uapi.kvm_xcrs),
    "xsave": (uapi.KVM_GET_XSAVE, uapi.KVM_SET_XSAVE, uapi.kvm_xsave),
    "lapic": (uapi.KVM_GET_LAPIC, uapi.KVM_SET_LAPIC, uapi.kvm_lapic_state),
    **dict.fromkeys(_CHIPS, (uapi.KVM_GET_IRQCHIP, uapi.KVM_SET_IRQCHIP, uapi.kvm_irqchip)),
    "nested": (uapi.KVM_GET_NESTED_STATE, uapi.KVM_SET_NESTED_STATE, uapi.kvm_nested_state),
    # Nothing writes it.
    "translation": (uapi.KVM_TRANSLATE, uapi.KVM_TRANSLATE, uapi.kvm_translation),
}
#: The linear address that KVM_TRANSLATE is asked for: the one that guests have other pages at.
_LINEAR = 0x80000
#: Items that KVM_SET_VCPU_EVENTS writes only with a flag (KVM API).
_EVENT_FLAGS = {
    "events.nmi_pending": uapi.KVM_VCPUEVENT_VALID_NMI_PENDING,
    "events.interrupt_shadow": uapi.KVM_VCPUEVENT_VALID_SHADOW,
    "events.triple_fault_pending": uapi.KVM_VCPUEVENT_VALID_TRIPLE_FAULT,
    "events.sipi_vector": uapi.KVM_VCPUEVENT_VALID_SIPI_VECTOR,
}
_SMI = "events.smi_"
_FLAGS = Place("", uapi.kvm_vcpu_events.flags.offset, 4, "flags")
_VMCB = {"msrpm": 0x048, "efer": 0x4D0, "cr4": 0x548, "cr0": 0x558, "rflags": 0x570}
#: struct kvm_nested_state: its head, and all of it with a vmcs12 and its shadow, the larger vendor's.
_NESTED_HEAD = 128
_NESTED_SIZE = _NESTED_HEAD + 2 * 4096
#: KVM's return value of an ioctl that keeps it.
RESULT = Place("result", 0, 8, "result")


@cache
def fields() -> dict[str, tuple[str, int, int]]:
    """Section, offset and size of items; and of pseudo-items: bits of a structure that are no item."""
    found = {name: (field.section, field.offset, field.size) for name, field in static_fields().items()}
    exception, interrupt = uapi.kvm_vcpu_events.exception.offset, uapi.kvm_vcpu_events.interrupt.offset
    found["events.exception_nr"] = ("events", exception + 1, 1)
    found["events.exception_has_error_code"] = ("events", exception + 2, 1)
    found["events.exception_error_code"] = ("events", exception + 4, 4)
    found["events.exception_payload"] = ("events", uapi.kvm_vcpu_events.exception_payload.offset, 8)
    found["events.interrupt_nr"] = ("events", interrupt + 1, 1)
    found["events.flags"] = ("events", uapi.kvm_vcpu_events.flags.offset, 4)
    found["debugregs.flags"] = ("debugregs", uapi.kvm_debugregs.flags.offset, 8)
    found["xcrs.count"] = ("xcrs", uapi.kvm_xcrs.nr_xcrs.offset, 4)
    found["xcrs.flags"] = ("xcrs", uapi.kvm_xcrs.flags.offset, 4)
    found["xsave.xstate_bv"] = ("xsave", xsave.XSTATE_BV_OFFSET, 8)
    found["nested.format"] = ("nested", uapi.kvm_nested_state.format.offset, 2)
    found["translation.physical"] = ("translation", uapi.kvm_translation.physical_address.offset, 8)
    # The MSR permissions map and L1's registers, at the VMCB's offsets (APM vol. 2, Layout of VMCB).
    found |= {f"nested.vmcb.{name}": ("nested", _NESTED_HEAD + at, 8) for name, at in _VMCB.items()}
    bitmap = uapi.kvm_sregs.interrupt_bitmap.offset
    found |= {f"interrupt_bitmap{i}": ("sregs", bitmap + 8 * i, 8) for i in range(4)}
    # struct kvm_irqchip is {u32 chip_id, u32 pad, the state of the chip}.
    for name, *_ in uapi.kvm_pic_state._fields_:
        found |= {f"{pic}.{name}": (pic, 8 + getattr(uapi.kvm_pic_state, name).offset, 1) for pic in ("pic_master", "pic_slave")}
    at = 8 + uapi.kvm_ioapic_state.redirtbl.offset
    found |= {f"ioapic.redirtbl{pin}": ("ioapic", at + 8 * pin, 8) for pin in range(uapi.KVM_IOAPIC_NUM_PINS)}
    return found


def _kept(write: Op, why: str) -> list[Op]:
    """The last op of writing a section: an ioctl that KVM refuses is a skip where ``why`` says so."""
    if not why or not isinstance(write, Ioctl):
        return [write]
    return [write._replace(result="result"), Compare(RESULT, (0,), Otherwise("skip", why))]


class Places:
    """The buffers of one program, and the items in them."""

    def __init__(self) -> None:
        self.buffers: dict[str, Buffer] = {"result": Buffer("s64", bytes(8)), "word": Buffer("u32", bytes(4))}

    def buffer(self, name: str, kind: str, contents: bytes) -> str:
        """Make a buffer, and return its name; another one if the name is used for other contents."""
        made = Buffer(kind, contents)
        unique, number = name, 1
        while self.buffers.setdefault(unique, made) != made:
            number += 1
            unique = f"{name}_{number}"
        return unique

    def place(self, item: str, who: int) -> tuple[Place, list[Op], list[Op]]:
        """Return the place of ``item`` of vCPU ``who``, and the ops that read and write its section."""
        if item.startswith("msr."):
            return self._msr(item.removeprefix("msr."), who)
        section, offset, size = fields()[item]
        get, put, struct = SECTIONS[section]
        contents = bytes(_NESTED_SIZE if section == "nested" else sizeof(struct))
        if section in _CHIPS:
            contents = _CHIPS[section].to_bytes(4, "little") + contents[4:]
        elif section == "translation":
            contents = _LINEAR.to_bytes(8, "little") + contents[8:]
        name = self.buffer(f"{section}{who}", struct.__name__, contents)
        read: list[Op] = [Ioctl(who, get, name)]
        if section == "nested":
            # KVM reads the size of the buffer from `size`, and writes the used size back.
            read.insert(0, Put(Place(name, 4, 4, "size"), _NESTED_SIZE))
        return Place(name, offset, size, item), read, [Ioctl(who, put, name)]

    def _msr(self, name: str, who: int) -> tuple[Place, list[Op], list[Op]]:
        index = msr.index_of(name)
        contents = (1).to_bytes(8, "little") + index.to_bytes(8, "little") + bytes(8)
        buf = self.buffer(f"msr_{name}{who}", "kvm_msrs", contents)
        refused = Otherwise("skip", f"KVM_GET_MSRS refuses MSR {index:#x}")
        read: list[Op] = [Ioctl(who, uapi.KVM_GET_MSRS, buf, "result"), Compare(RESULT, (1,), refused)]
        kept = Otherwise("skip", f"KVM_SET_MSRS refuses MSR {index:#x}")
        write: list[Op] = [Ioctl(who, uapi.KVM_SET_MSRS, buf, "result"), Compare(RESULT, (1,), kept)]
        return Place(buf, 16, 8, f"msr.{name}"), read, write

    def written(self, place: Place) -> Place:
        """Return the place that holds what is written to ``place``."""
        name = self.buffer(f"written_{place.buffer}_{place.offset}", "u64", bytes(8))
        return Place(name, 0, place.size, place.name)

    def set(
        self, items: Iterable[tuple[str, int]], who: int, skip: str, *, check: bool, keep: bool = False
    ) -> list[Op]:
        """One read, write and read of each section in which ``items`` are written; ``skip`` says why KVM need not keep them.

        With ``keep`` what KVM returns is in the RESULT.
        """
        sections: dict[str, tuple[list[Op], list[Op], list[tuple[Place, int, str]]]] = {}
        for item, value in items:
            place, read, write = self.place(item, who)
            sections.setdefault(place.buffer, (read, write, []))[2].append((place, value & (1 << 8 * place.size) - 1, item))
        ops: list[Op] = []
        for buffer, (read, write, puts) in sections.items():
            flags = 0
            for _, value, item in puts:
                # For a 0 the flags that KVM_GET_VCPU_EVENTS gave will do: they name the fields that KVM has.
                wanted = _EVENT_FLAGS.get(item, uapi.KVM_VCPUEVENT_VALID_SMM if item.startswith(_SMI) else 0)
                flags |= wanted if value else 0
            ops += read
            if flags:
                ops.append(Put(_FLAGS._replace(buffer=buffer), flags, flags))
            ops += [Put(place, value) for place, value, _ in puts]
            if keep:
                ops += [op._replace(result=RESULT.buffer) for op in write if isinstance(op, Ioctl)]
                continue
            ops += [*write[:-1], *_kept(write[-1], skip)]
            if check:
                # Without KVM_GET_MP_STATE if it would make KVM process what is pending.
                ops += read
                for place, value, item in puts:
                    why = skip or f"KVM did not keep {value:#x}, which was written to {item}"
                    ops.append(Compare(place, (value,), Otherwise("skip" if skip else "error", why)))
        return ops
