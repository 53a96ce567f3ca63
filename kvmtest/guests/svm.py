# SPDX-License-Identifier: GPL-2.0-only
"""The numbers of guests/svm.S and guests/l1.inc, by name, and the VMCB of its nested guest (APM vol. 2, Layout of VMCB)."""

from __future__ import annotations

import struct

from kvmtest.guests import symbol, symbols

__all__ = ("NAME", "vmcb")

NAME = "svm"

#: Bits of the VMCB's intercepts at 00CH; VMRUN's, bit 0 of the next word, has to be set for VMRUN to succeed.
_INTERCEPTS, _VMRUN = 0x00C, 0x010
_CODE, _DATA, _TSS = 0xA9B, 0xC93, 0x08B


def __getattr__(name: str) -> int:
    return symbol(NAME, name)


def vmcb(*intercepts: int, efer: int, cr0: int, cr4: int) -> bytes:
    """The VMCB of a nested guest that begins at AT_NESTED, with these bits of the intercepts at 00CH."""
    page, of = bytearray(0x1000), symbols(NAME)

    def put(offset: int, value: int, size: int = 8) -> None:
        page[offset : offset + size] = value.to_bytes(size, "little")

    put(_INTERCEPTS, sum(1 << bit for bit in intercepts), 4)
    put(_VMRUN, 1, 4)
    put(0x040, of["IOPM"])
    put(0x048, of["MSRPM"])
    put(0x058, 1, 4)  # ASID
    flat = 0xFFFFFFFF
    segments = {
        **{at: (of["DATA32"], _DATA, flat, 0) for at in (0x400, 0x420, 0x430, 0x440, 0x450)},
        0x410: (of["CODE64"], _CODE, flat, 0),
        0x460: (0, 0, of["GDT_LIMIT"], of["CODE"] + of["AT_GDT"]),
        0x480: (0, 0, of["IDT_LIMIT"], of["CODE"] + of["AT_IDT"]),
        0x490: (of["TSS64"], _TSS, of["TSS_LIMIT"], of["TSS"]),
    }
    for at, segment in segments.items():
        page[at : at + 16] = struct.pack("<HHIQ", *segment)
    put(0x4D0, efer)
    put(0x548, cr4)
    put(0x550, of["PAGE_TABLES"])
    put(0x558, cr0)
    put(0x560, 0x400)  # DR7
    put(0x568, 0xFFFF0FF0)  # DR6
    put(0x570, 2)  # RFLAGS
    put(0x578, of["CODE"] + of["AT_NESTED"])
    put(0x5D8, of["NESTED_STACK"])
    put(0x668, 0x0007040600070406)  # PAT
    return bytes(page)
