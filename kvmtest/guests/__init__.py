# SPDX-License-Identifier: GPL-2.0-only
"""The built guests, where the host puts them, and what their port writes mean.

The sources are in ``guests/`` of the repository; ``make guests`` builds them into this folder, and a wheel ships them.
"""

from __future__ import annotations

import functools
import os

__all__ = (
    "CODE",
    "DATA",
    "ENTRY_RESET",
    "ENTRY_SIPI",
    "FXSAVE",
    "LAPIC",
    "LAPIC_COUNT",
    "LIMITS",
    "MSRS",
    "MSR_COUNT",
    "PAGE_TABLES",
    "PORTS",
    "PORT_SENT",
    "PORT_DONE",
    "PORT_ENTRY",
    "PORT_FAULT",
    "PROBE",
    "RESET_RIP",
    "RESUME",
    "ROM_GPA",
    "ROM_SIZE",
    "SENDER_X2APIC",
    "SENDER_XAPIC",
    "SIPI_SIZE",
    "SLOTS",
    "SLOT_VALUES",
    "STATUS",
    "STEPS",
    "STEP_STATUS",
    "WIDE",
    "XCR0_USED",
    "XCR0_WANTED",
    "XSAVE",
    "GuestMissing",
    "IMAGES",
    "load",
    "missing",
    "placed",
    "sipi_page",
    "vector_table",
)

#: All guests: the sources in ``guests/``.
IMAGES = ("behaviour", "planter", "sender", "smm", "spine", "stress", "svm", "vmx")
#: Where the ROM goes: its last 16 bytes are then at the reset vector, FFFFFFF0.
ROM_GPA = 0xFFFF0000
ROM_SIZE = 0x10000
#: RIP after RESET and INIT, with CS.base = ROM_GPA.
RESET_RIP = 0xFFF0
#: The part of an image that is copied to VV000 for SIPI vector VV.
SIPI_SIZE = 0x1000

#: Port of a guest's 32-bit OUT -> the item whose low 32 bits it reports. The order is that of the item tables.
PORTS = {
    0xB0: "rax",
    0xB1: "rbx",
    0xB2: "rcx",
    0xB3: "rdx",
    0xB4: "rsi",
    0xB5: "rdi",
    0xB6: "rbp",
    0xB7: "rsp",
    0xB8: "rip",
    0xB9: "rflags",
    0xC0: "cs.selector",
    0xC1: "cs.base",
    0xC2: "ds.selector",
    0xC3: "es.selector",
    0xC4: "ss.selector",
    0xC5: "fs.selector",
    0xC6: "gs.selector",
    0xC7: "ss.base",
}
#: Step of the spine guest -> the items whose 8-byte slots it fills. Steps are in the source's order, which is that of running.
STEPS: dict[str, tuple[str, ...]] = {
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
#: The items of the 8-byte slots, in order. ``msw``, the low half of CR0 by another instruction, is none: it must agree.
SLOTS = (
    *("cr0", "cr2", "cr3", "cr4", "msw", "gdt.base", "gdt.limit", "idt.base", "idt.limit"),
    *("dr0", "dr1", "dr2", "dr3", "dr6", "dr7", "fcw", "fsw", "xcr0"),
    *("cpuid.1.ecx", "cpuid.1.edx", "cpuid.7.ecx", "cpuid.d.ebx", "cpuid.d1.ebx"),
    *("ds.base", "es.base", "fs.base", "gs.base"),
    *("cs.limit", "ds.limit", "es.limit", "ss.limit", "fs.limit", "gs.limit"),
    *("tr.selector", "ldt.selector", "cr8"),
    *(f"r{i}" for i in range(8, 16)),
)
#: Where the spine guest has its second part and its data, in bytes: names and numbers are the source's.
CODE, DATA, PAGE_TABLES, XSAVE = 0x20000, 0x30000, 0x40000, 0x50000
#: Offsets from DATA; MSRS and LAPIC are lists of four 32-bit words.
RESUME, STATUS, MSR_COUNT, LAPIC_COUNT, XCR0_WANTED, XCR0_USED = 0x00, 0x04, 0x08, 0x0C, 0x10, 0x28
STEP_STATUS, SLOT_VALUES, FXSAVE, MSRS, LAPIC = 0x100, 0x200, 0x800, 0x1000, 0x5000
#: The offset of the 32-bit word that the guest reads in each segment to tell its base: the word must be its own address.
PROBE = 0xE000
#: The offsets that it tries in each segment to tell its limit: the largest that can be read is what it reports.
LIMITS = (0, 0xFFFF, 0x10000, 0xFFFFF, 0x100000, 0xFFFFFFFF)
#: The guest tells by which vector it came: ENTRY_RESET or ENTRY_SIPI.
PORT_ENTRY = 0xF0
ENTRY_RESET, ENTRY_SIPI = 1, 2
#: The guest ended: by an exception (the value is IP of the instruction, and CS << 16), or with everything reported.
PORT_FAULT = 0xFE
PORT_DONE = 0xFF

# Where the handler of exceptions lies in an image (`fault` in the source), and where `vector_table` puts it.
_FAULT_OFFSET, _FAULT_SIZE = 0x10, 0x10
_VECTOR_TABLE_SIZE = 0x400
#: The sender guest: where its code for each local APIC mode begins, and the port by which it says that it wrote the ICR.
SENDER_XAPIC, SENDER_X2APIC = 0x00, 0x20
PORT_SENT = 0xF1

# Offset in an image of the address it was put at (`where` in the source).
_WHERE_OFFSET = 0x8


class GuestMissing(FileNotFoundError):
    """A guest image that has not been built."""


def load(name: str) -> bytes:
    """The ROM image of guest ``name``, for a copy at `ROM_GPA`. Raises GuestMissing."""
    return _kept(name, _path(name))


def _path(name: str) -> str:
    return os.path.join(os.path.dirname(os.path.abspath(__file__)), name + ".bin")


def _read(name: str, path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            image = file.read()
    except FileNotFoundError:
        raise GuestMissing(f"the guest '{name}' has not been built: run 'make guests' (looked for {path})") from None
    if len(image) != ROM_SIZE:
        raise GuestMissing(f"{path} is {len(image)} bytes instead of {ROM_SIZE}: run 'make clean guests'")
    return image


_kept = functools.cache(_read)


def missing() -> list[str]:
    """The guests that cannot be loaded now, whatever was loaded before."""
    found = []
    for name in IMAGES:
        try:
            _read(name, _path(name))
        except GuestMissing:
            found.append(name)
    return found


def placed(image: bytes, gpa: int) -> bytes:
    """``image`` for a copy at ``gpa``: executed there, it reports ``gpa`` as ``cs.base``."""
    return image[:_WHERE_OFFSET] + gpa.to_bytes(4, "little") + image[_WHERE_OFFSET + 4 :]


def sipi_page(gpa: int) -> bytes:
    """The page to put at ``gpa``, which is vector << 12, so that a SIPI with that vector starts the spine guest."""
    if gpa & ~0xFF000:
        raise ValueError(f"no SIPI vector points to {gpa:#x}")
    return placed(load("spine")[:SIPI_SIZE], gpa)


def vector_table() -> bytes:
    """For guest-physical 0: a real-mode vector table, and behind it the handler of all vectors, which reports it.

    Not together with SIPI vector 0, whose page is in the same place.
    """
    handler = load("spine")[_FAULT_OFFSET : _FAULT_OFFSET + _FAULT_SIZE]
    return _VECTOR_TABLE_SIZE.to_bytes(4, "little") * 256 + handler
