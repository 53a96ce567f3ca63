# SPDX-License-Identifier: GPL-2.0-only
"""The numbers of guests/stress.S, by its names."""

from __future__ import annotations

from kvmtest.guests import load

__all__ = ("NAME", "page")

NAME = "stress"

ORDERS = 0x600
ORDER_SIZE = 0x20
ORDER_SHIFT = 5
DO = 0x0
DESTINATION = 0x4
VECTOR = 0x8
DELAY_SIPI = 0xC
DELAY_SECOND = 0x10
ARRIVED = 0x18
ARRIVED_CS = 0x1C

DO_SPIN = 0
DO_HALT = 1
DO_SEND = 2

PORT_ARRIVED = 0xF2
PORT_SENT = 0xF3

ICR_INIT = 0x4500
ICR_STARTUP = 0x4600


def page() -> bytes:
    """The code for the page of any SIPI vector."""
    return load(NAME)[:0x1000]
