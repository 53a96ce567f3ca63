# SPDX-License-Identifier: GPL-2.0-only
"""The numbers of guests/l1.inc, by its names: what guests that are hypervisors have in common."""

from __future__ import annotations

from kvmtest.guests import load, symbol

__all__ = ("page_tables", "pages")

#: One of the guests that include it.
_OF = "svm"
_PRESENT_WRITABLE, _LARGE = 3, 1 << 7


def __getattr__(name: str) -> int:
    return symbol(_OF, name)


def pages(name: str) -> bytes:
    """Return the bytes of guest ``name`` to put at CODE."""
    return load(name)[: symbol(name, "CODE_SIZE")]


def page_tables() -> bytes:
    """For PAGE_TABLES: 4-level paging, the first 2 MiB where they are."""
    at = symbol(_OF, "PAGE_TABLES")
    next_table = [at + 0x1000 | _PRESENT_WRITABLE, at + 0x2000 | _PRESENT_WRITABLE, _PRESENT_WRITABLE | _LARGE]
    return b"".join(entry.to_bytes(8, "little").ljust(0x1000, b"\0") for entry in next_table)
