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


def vector_table(ff: str = "AT_FF", nmi: str = "AT_NMI") -> bytes:
    """A real-mode vector table whose entries FFH and 2 are the handlers that the source calls ``ff`` and ``nmi``."""
    of = symbols(NAME)
    at = [of["AT_FAULT"]] * FIRST_INTERRUPT + [of["AT_INTERRUPT"]] * (0xFF - FIRST_INTERRUPT) + [of[ff]]
    at[_NMI] = of[nmi]
    return b"".join((of["CODE"] >> 4 << 16 | offset).to_bytes(4, "little") for offset in at)
