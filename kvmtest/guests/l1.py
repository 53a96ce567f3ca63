# SPDX-License-Identifier: GPL-2.0-only
"""The numbers of guests/l1.inc, by its names: what guests that are hypervisors have in common."""

from __future__ import annotations

from kvmtest.guests import load

__all__ = ("page_tables", "pages")

CODE = 0x1000
CODE_SIZE = 0x3000
STACK = 0x7000

TOPIC = 0x500
COUNT = 0x540

PORT_RESET = 0xF2
PORT_SIPI = 0xF3
PORT_READY = 0xF4
PORT_VALUE = 0xF5
PORT_LEFT = 0xF6
PORT_EXIT = 0xF9
PORT_NESTED = 0xFA
PORT_FAULT = 0xFE

AT_ENTRY = 0x20
AT_GDT = 0x40
GDT_LIMIT = 0x27
AT_IDT = 0x80
IDT_LIMIT = 0x1FF

CODE64 = 0x8
DATA32 = 0x10
TSS64 = 0x18
TSS = 0x600
TSS_LIMIT = 0x67
PAGE_TABLES = 0x8000

_PRESENT_WRITABLE, _LARGE = 3, 1 << 7


def pages(name: str) -> bytes:
    """What of guest ``name`` is to be put at `CODE`."""
    return load(name)[:CODE_SIZE]


def page_tables() -> bytes:
    """For `PAGE_TABLES`: 4-level paging, the first 2 MiB where they are."""
    next_table = [PAGE_TABLES + 0x1000 | _PRESENT_WRITABLE, PAGE_TABLES + 0x2000 | _PRESENT_WRITABLE, _PRESENT_WRITABLE | _LARGE]
    return b"".join(entry.to_bytes(8, "little").ljust(0x1000, b"\0") for entry in next_table)
