# SPDX-License-Identifier: GPL-2.0-only
"""The built guests, where the host puts them, and what their port writes mean.

The sources are in ``guests/`` of the repository; ``make guests`` builds them into this folder, and a wheel ships them.
"""

from __future__ import annotations

import os

__all__ = (
    "ENTRY_RESET",
    "ENTRY_SIPI",
    "PORTS",
    "PORT_SENT",
    "PORT_DONE",
    "PORT_ENTRY",
    "PORT_FAULT",
    "RESET_RIP",
    "ROM_GPA",
    "ROM_SIZE",
    "SENDER_X2APIC",
    "SENDER_XAPIC",
    "SIPI_SIZE",
    "GuestMissing",
    "load",
    "placed",
    "sipi_page",
    "vector_table",
)

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
    0xD0: "cr0",
    0xD2: "cr2",
    0xD3: "cr3",
    0xD4: "cr4",
    0xD5: "gdt.base",
    0xD6: "gdt.limit",
    0xD7: "idt.base",
    0xD8: "idt.limit",
    0xD9: "efer",
    0xDA: "apic_base",
    0xE0: "dr0",
    0xE1: "dr1",
    0xE2: "dr2",
    0xE3: "dr3",
    0xE6: "dr6",
    0xE7: "dr7",
    0xE8: "fcw",
    0xE9: "fsw",
}
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
    """The ROM image of guest ``name``, for a copy at `ROM_GPA`."""
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), name + ".bin")
    try:
        with open(path, "rb") as file:
            image = file.read()
    except FileNotFoundError:
        raise GuestMissing(f"the guest '{name}' has not been built: run 'make guests' (looked for {path})") from None
    if len(image) != ROM_SIZE:
        raise GuestMissing(f"{path} is {len(image)} bytes instead of {ROM_SIZE}: run 'make clean guests'")
    return image


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
