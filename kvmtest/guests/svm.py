# SPDX-License-Identifier: GPL-2.0-only
"""The numbers of guests/svm.S, by its names, and the VMCB of its nested guest (APM vol. 2, Layout of VMCB)."""

from __future__ import annotations

import struct

from kvmtest.guests import l1
from kvmtest.guests.l1 import (
    COUNT,
    PORT_EXIT,
    PORT_FAULT,
    PORT_LEFT,
    PORT_NESTED,
    PORT_READY,
    PORT_RESET,
    PORT_VALUE,
    TOPIC,
)

__all__ = (
    "COUNT",
    "NAME",
    "PORT_EXIT",
    "PORT_FAULT",
    "PORT_LEFT",
    "PORT_NESTED",
    "PORT_READY",
    "PORT_RESET",
    "PORT_VALUE",
    "TOPIC",
    "vmcb",
)

NAME = "svm"

ARG_NESTED = 0x504
ARG_TURNS = 0x508

TOPIC_RUN = 0
TOPIC_GIF = 1
TOPIC_SPIN = 2
TOPIC_HELD = 3

NESTED_SPIN = 0
NESTED_HALT = 1
NESTED_SHUTDOWN = 2
NESTED_SVME = 3

AT_NESTED = 0x600
NESTED_STACK = 0x6000

VMCB = 0x10000
HSAVE = 0x11000
IOPM = 0x12000
MSRPM = 0x16000
VMCB_EXIT_CODE = 0x70

MSR_EFER = 0xC0000080
MSR_VM_HSAVE_PA = 0xC0010117
EFER_SVME = 0x1000

#: Bits of the VMCB's intercepts at 00CH; VMRUN's, bit 0 of the next word, has to be set for VMRUN to succeed.
_INTERCEPTS, _VMRUN = 0x00C, 0x010
_CODE, _DATA, _TSS = 0xA9B, 0xC93, 0x08B


def vmcb(*intercepts: int, efer: int, cr0: int, cr4: int) -> bytes:
    """The VMCB of a nested guest that begins at `AT_NESTED`, with these bits of the intercepts at 00CH."""
    page = bytearray(0x1000)

    def put(offset: int, value: int, size: int = 8) -> None:
        page[offset : offset + size] = value.to_bytes(size, "little")

    put(_INTERCEPTS, sum(1 << bit for bit in intercepts), 4)
    put(_VMRUN, 1, 4)
    put(0x040, IOPM)
    put(0x048, MSRPM)
    put(0x058, 1, 4)  # ASID
    flat = 0xFFFFFFFF
    segments = {
        **{at: (l1.DATA32, _DATA, flat, 0) for at in (0x400, 0x420, 0x430, 0x440, 0x450)},
        0x410: (l1.CODE64, _CODE, flat, 0),
        0x460: (0, 0, l1.GDT_LIMIT, l1.CODE + l1.AT_GDT),
        0x480: (0, 0, l1.IDT_LIMIT, l1.CODE + l1.AT_IDT),
        0x490: (l1.TSS64, _TSS, l1.TSS_LIMIT, l1.TSS),
    }
    for at, segment in segments.items():
        page[at : at + 16] = struct.pack("<HHIQ", *segment)
    put(0x4D0, efer)
    put(0x548, cr4)
    put(0x550, l1.PAGE_TABLES)
    put(0x558, cr0)
    put(0x560, 0x400)  # DR7
    put(0x568, 0xFFFF0FF0)  # DR6
    put(0x570, 2)  # RFLAGS
    put(0x578, l1.CODE + AT_NESTED)
    put(0x5D8, NESTED_STACK)
    put(0x668, 0x0007040600070406)  # PAT
    return bytes(page)
