# SPDX-License-Identifier: GPL-2.0-only
"""The planter guest as the host sees it: the numbers of guests/planter.S, by its names, and what its block holds."""

from __future__ import annotations

from kvmtest import guests

__all__ = ("GPRS", "NAME", "words")

NAME = "planter"

#: The block's general registers, in the order of their encoding.
GPRS = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", *(f"r{i}" for i in range(8, 16)))


def __getattr__(name: str) -> int:
    return guests.symbol(NAME, name)


def words() -> dict[str, int]:
    """Offsets of the block's 64-bit words; ``gpr`` is the first of 16. Raises GuestMissing."""
    return guests.items(NAME, "B_")
