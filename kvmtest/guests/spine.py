# SPDX-License-Identifier: GPL-2.0-only
"""The spine guest: the numbers of guests/spine.S, by its names, and the items that its ports and steps report."""

from __future__ import annotations

import functools
from array import array
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from kvmtest import guests

__all__ = (
    "LIMITS",
    "LIST_ENTRY",
    "LIST_VALUE",
    "NAME",
    "PORT_ITEMS",
    "RAM_SIZE",
    "STEP_ITEMS",
    "WIDE",
    "XSAVE_ROOM",
    "Memory",
    "memory",
    "pattern",
    "placed",
    "ports",
    "sipi_page",
    "slots",
    "status",
    "vector_table",
)

NAME = "spine"

#: Items whose low 32 bits the guest reports by a 32-bit OUT each: PORT_CS_BASE is the port of ``cs.base``.
PORT_ITEMS = (
    *("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", "rip", "rflags"),
    *(f"{seg}.selector" for seg in ("cs", "ds", "es", "ss", "fs", "gs")),
    *("cs.base", "ss.base"),
)
#: Step -> the items whose 8-byte slots it fills, in the order of running: SLOT_CS_LIMIT is the number of ``cs.limit``'s.
#: ``msw``, the low half of CR0 by another instruction, is not an item: it must agree.
STEP_ITEMS: dict[str, tuple[str, ...]] = {
    "TABLES": ("gdt.base", "gdt.limit", "idt.base", "idt.limit"),
    "CS_LIMIT": ("cs.limit",),
    **{f"{seg.upper()}_BASE": (f"{seg}.base",) for seg in ("ds", "es", "fs", "gs")},
    **{f"{seg.upper()}_LIMIT": (f"{seg}.limit",) for seg in ("ds", "es", "ss", "fs", "gs")},
    "CONTROL": ("cr0", "cr2", "cr3", "cr4"),
    "MSW": ("msw",),
    "CPUID": ("cpuid.1.ecx", "cpuid.1.edx", "cpuid.7.ecx", "cpuid.d.ebx", "cpuid.d1.ebx"),
    "DEBUG": ("dr0", "dr1", "dr2", "dr3", "dr6", "dr7"),
    "X87": ("fcw", "fsw"),
    "FXSAVE": (),
    "OSXSAVE": (),
    "PROTECTED": (),
    "TR": ("tr.selector",),
    "LDT": ("ldt.selector",),
    "LIMITLESS": (),
    "LONG": (),
    "R8": ("r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"),
    "CR8": ("cr8",),
    "WIDE": (),
    "XCR0": ("xcr0",),
    "PKE": (),
    "XSETBV": (),
    "XSAVE": (),
}
#: Items of other steps whose upper halves the step WIDE adds.
WIDE = ("cr2", "cr4", "dr0", "dr1", "dr2", "dr3")
#: The offsets that it tries in each segment to find the limit: it reports the largest that can be read.
LIMITS = (0, 0xFFFF, 0x10000, 0xFFFFF, 0x100000, 0xFFFFFFFF)

_VECTOR_TABLE_SIZE = 0x400
RAM_SIZE = 0xA0000
#: Slots from _CODE_SLOT on are for SIPI vectors outside of the RAM, fewer than the 125 slots that any KVM has.
_ROM_SLOT, _RAM_SLOT, _CODE_SLOT = 0, 1, 16
#: Bytes of an entry of the lists MSRS and LAPIC, what is read at 8 of it; and of the area for XSAVE.
LIST_ENTRY, LIST_VALUE, XSAVE_ROOM = 16, 8, 0x4000


def __getattr__(name: str) -> int:
    return guests.symbol(NAME, name)


@functools.cache
def ports() -> dict[int, str]:
    """Port -> the item that is reported by it. Raises GuestMissing."""
    return {port: item for item, port in guests.items(NAME, "PORT_").items() if item in PORT_ITEMS}


@functools.cache
def slots() -> dict[str, int]:
    """Item -> the offset of its slot from DATA. Raises GuestMissing."""
    start = guests.symbol(NAME, "SLOTS")
    return {item: start + 8 * number for item, number in guests.items(NAME, "SLOT_").items()}


@functools.cache
def status(step: str) -> int:
    """The offset of a step's status from DATA. Raises GuestMissing."""
    return guests.symbol(NAME, "STEPS") + 4 * guests.symbol(NAME, f"STEP_{step}")


def placed(image: bytes, gpa: int) -> bytes:
    """``image`` for a copy at ``gpa``: executed there, it reports ``gpa`` as ``cs.base``."""
    where = guests.symbol(NAME, "where")
    return image[:where] + gpa.to_bytes(4, "little") + image[where + 4 :]


def sipi_page(gpa: int) -> bytes:
    """The page to put at ``gpa``, which is vector << 12, so that a SIPI with that vector starts the guest."""
    if gpa & ~0xFF000:
        raise ValueError(f"no SIPI vector points to {gpa:#x}")
    return placed(guests.load(NAME)[: guests.PAGE], gpa)


class Memory(NamedTuple):
    """Memory of ``size`` bytes at ``gpa`` in ``slot``, and its contents: pairs of guest-physical address and bytes."""

    slot: int
    gpa: int
    size: int
    writes: tuple[tuple[int, bytes], ...]


def memory(vector: int | None, msrs: Iterable[int], lapic: Iterable[int], xcr0: int) -> Iterator[Memory]:
    """RAM, the ROM below 4 GiB, and for a SIPI the guest's code where its ``vector`` points; None is the reset vector.

    The guest reads the ``msrs`` and what lies at the addresses ``lapic``. All else in RAM is for `pattern`. Raises GuestMissing,
    and ValueError for a vector from 20H to 53H.
    """
    rom, image = guests.load(NAME), _ram()
    data, code = guests.symbol(NAME, "DATA"), guests.symbol(NAME, "CODE")
    lists = [(guests.symbol(NAME, name), tuple(numbers)) for name, numbers in (("MSRS", msrs), ("LAPIC", lapic))]
    counts = [guests.symbol(NAME, f"{name}_COUNT") for name in ("MSR", "LAPIC")]
    writes = [(0, vector_table()), (code, image)]
    writes += [(data + at, len(numbers).to_bytes(4, "little")) for at, (_, numbers) in zip(counts, lists, strict=True)]
    writes.append((data + guests.symbol(NAME, "XCR0_WANTED"), xcr0.to_bytes(8, "little")))
    writes += [(data + at, b"".join(number.to_bytes(LIST_ENTRY, "little") for number in numbers)) for at, numbers in lists]
    yield Memory(_RAM_SLOT, 0, RAM_SIZE, tuple(writes))
    yield Memory(_ROM_SLOT, guests.ROM_GPA, len(rom), ((guests.ROM_GPA, rom),))
    if vector is not None:
        gpa = vector << 12
        if code <= gpa < code + len(image):
            raise ValueError(f"SIPI vector {vector:#x} points to where the guest has its second part")
        slot = _RAM_SLOT if gpa < RAM_SIZE else _CODE_SLOT + (gpa - RAM_SIZE) // guests.PAGE
        yield Memory(slot, gpa, guests.PAGE, ((gpa, sipi_page(gpa)),))


def _ram() -> bytes:
    """RAM from CODE up to the end of the XSAVE area, with the guest's second part and its page tables."""
    rom, code, tables = guests.load(NAME), guests.symbol(NAME, "CODE"), guests.symbol(NAME, "PAGE_TABLES")
    ram = bytearray(guests.symbol(NAME, "XSAVE") + XSAVE_ROOM - code)
    ram[: len(rom)] = rom
    # Present, writable, accessed; the page also dirty, and large.
    for at, entry in ((0, tables + 0x1023), (0x1000, tables + 0x2023), (0x2000, 0xE3)):
        ram[tables - code + at : tables - code + at + 8] = entry.to_bytes(8, "little")
    return bytes(ram)


def pattern(gpa: int, size: int) -> bytes:
    """Return the bytes at ``gpa`` for the guest's search of a segment's base: each aligned 32-bit word is its own address."""
    start = gpa & ~3
    words = array("I", range(start, gpa + size, 4)).tobytes()
    return words[gpa - start : gpa - start + size]


def vector_table() -> bytes:
    """For guest-physical 0: a real-mode vector table, and after it the handler of all vectors, which reports it.

    Not together with SIPI vector 0, whose page is in the same place.
    """
    handler = guests.load(NAME)[guests.symbol(NAME, "fault") : guests.symbol(NAME, "reset_start")]
    return _VECTOR_TABLE_SIZE.to_bytes(4, "little") * 256 + handler
