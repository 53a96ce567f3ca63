# SPDX-License-Identifier: GPL-2.0-only
"""The numbers of guests/behaviour.S, by its names."""

from __future__ import annotations

from kvmtest.guests import PAGE, load, symbol, symbols

__all__ = ("FIRST_INTERRUPT", "NAME", "page", "vector_table")

NAME = "behaviour"

#: Vectors of the local APIC's interrupts: those from here on, below FFH, have a handler that counts.
FIRST_INTERRUPT = 0x60
_NMI = 2


def __getattr__(name: str) -> int:
    return symbol(NAME, name)


def page() -> bytes:
    """The code for CODE, or for the page of any SIPI vector."""
    return load(NAME)[:PAGE]


def vector_table(*, ff: int | None = None) -> bytes:
    """A real-mode vector table whose entry FFH is the handler at offset ``ff`` of CODE, by default AT_FF."""
    of = symbols(NAME)
    at = [of["AT_FAULT"]] * FIRST_INTERRUPT + [of["AT_INTERRUPT"]] * (0xFF - FIRST_INTERRUPT)
    at += [of["AT_FF"] if ff is None else ff]
    at[_NMI] = of["AT_NMI"]
    return b"".join((of["CODE"] >> 4 << 16 | offset).to_bytes(4, "little") for offset in at)
