# SPDX-License-Identifier: GPL-2.0-only
"""The planter guest as the host sees it: where it lies, what its block holds, where its code begins (guests/planter.S)."""

from __future__ import annotations

import functools

from kvmtest import guests

__all__ = ("BASE", "BLOCK", "GPRS", "LABELS", "MMIO", "PORT_IN", "PORT_READY", "SIZE", "WORDS", "labels")

#: Guest-physical, and in 64-bit and 32-bit mode linear: below the sender's page, above the pages that kvm_intel needs.
BASE, SIZE = 0xFFFC0000, 0x20000
BLOCK = BASE + 0x1000
PORT_READY, PORT_IN = 0xF2, 0xF3
MMIO = 0xE0000000

#: Offsets of the block's 64-bit words; `gpr` is the first of 16 in the order of their encoding.
WORDS = {
    **{f"dr{n}": 8 * i for i, n in enumerate((0, 1, 2, 3, 6, 7))},
    "cr0": 0x30,
    "cr2": 0x38,
    "cr3": 0x40,
    "cr4": 0x48,
    "cr8": 0x50,
    "efer": 0x58,
    "xcr0": 0x60,
    "xsave": 0x68,
    "msrs": 0x70,
    "apic": 0x78,
    "gdt": 0x80,
    "idt": 0x90,
    **{f"{seg}.selector": 0xA0 + 8 * i for i, seg in enumerate(("cs", "ss", "ds", "es", "fs", "gs", "tr", "ldt"))},
    "rflags": 0xE0,
    "tail": 0xE8,
    "gpr": 0xF0,
}
GPRS = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", *(f"r{i}" for i in range(8, 16)))

#: In the order of the table at the image's start: entries, what the host reads and writes, and what can come at the end.
LABELS = (
    *("long", "protected", "protected_tail", "v86_tail", "fault64", "fault32", "end", "count"),
    *("loop64", "hlt64", "in64", "mmio64", "icr64", "x2icr64", "ud64", "loop32", "hlt32", "loop16", "in16"),
)


def labels() -> dict[str, int]:
    """Offset in the image of each of LABELS. Raises GuestMissing."""
    return _labels(guests.load("planter"))


@functools.cache
def _labels(image: bytes) -> dict[str, int]:
    return {name: int.from_bytes(image[2 * i : 2 * i + 2], "little") for i, name in enumerate(LABELS)}
