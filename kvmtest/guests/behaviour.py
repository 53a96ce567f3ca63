# SPDX-License-Identifier: GPL-2.0-only
"""The numbers of guests/behaviour.S, by its names."""

from __future__ import annotations

from kvmtest.guests import load

__all__ = ("NAME", "page", "vector_table")

NAME = "behaviour"

CODE = 0x1000

TOPIC = 0x500
ARG_LVT = 0x504
ARG_COUNT = 0x508
ARG_DELTA = 0x50C
ARG_LIMIT = 0x510
ARG_ICR = 0x514
ARG_ICR2 = 0x518
ARG_CR4 = 0x51C
ARG_PTE = 0x520
ARG_FIRST = 0x524
ARG_LAST = 0x528
ARG_CR3 = 0x52C
ARG_EFER = 0x530
ARG_WORD = 0x534
COUNT = 0x540

TOPIC_HALT = 0
TOPIC_SPIN = 1
TOPIC_INTERRUPT = 2
TOPIC_X2APIC = 3
TOPIC_ICR = 4
TOPIC_TLB = 5
TOPIC_SUM = 6
TOPIC_SHUTDOWN = 7
TOPIC_PAGING = 8
TOPIC_RDTSCP = 9
TOPIC_RDPID = 10

PORT_RESET = 0xF2
PORT_SIPI = 0xF3
PORT_READY = 0xF4
PORT_VALUE = 0xF5
PORT_NMI = 0xF7
PORT_SMI = 0xF8
PORT_FAULT = 0xFE

AT_FAULT = 0x20
AT_INTERRUPT = 0x28
AT_NMI = 0x30
AT_FF = 0x38
AT_FF_OTHER = 0x40
TABLE_0 = 0x100
TABLE_OTHER = 0x101
AT_NMI_COUNTS = 0x48

LINEAR = 0x80000
PTE = 0x3200

#: Vectors of the local APIC's interrupts: those from here on, below FFH, have a handler that counts.
FIRST_INTERRUPT = 0x60
_NMI = 2


def page() -> bytes:
    """The code for `CODE`, or for the page of any SIPI vector."""
    return load(NAME)[:0x1000]


def vector_table(*, ff: int = AT_FF, nmi: int = AT_NMI) -> bytes:
    """A real-mode vector table whose entries FFH and 2 are the handlers at offsets ``ff`` and ``nmi`` of `CODE`."""
    at = [AT_FAULT] * FIRST_INTERRUPT + [AT_INTERRUPT] * (0xFF - FIRST_INTERRUPT) + [ff]
    at[_NMI] = nmi
    return b"".join((CODE >> 4 << 16 | offset).to_bytes(4, "little") for offset in at)
