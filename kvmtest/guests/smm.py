# SPDX-License-Identifier: GPL-2.0-only
"""The numbers of guests/smm.S, by its names."""

from __future__ import annotations

from kvmtest.guests import load

__all__ = ("NAME", "handler", "page")

NAME = "smm"

CODE = 0x1000

TOPIC = 0x500
COUNT = 0x540

PORT_RESET = 0xF2
PORT_SIPI = 0xF3
PORT_READY = 0xF4
PORT_VALUE = 0xF5
PORT_LEFT = 0xF6
PORT_SMI = 0xF8
PORT_FAULT = 0xFE

TOPIC_WAIT = 0
TOPIC_SEND = 1

SMBASE = 0x30000
SMRAM_SIZE = 0x10000
ENTRY = 0x38000
AT_HANDLER = 0x800
HANDLER_SIZE = 0x100
SMM_TOPIC = 0x38800
SMM_TURNS = 0x38804
SMM_COUNT = 0x38808

SMM_RSM = 0
SMM_SHUTDOWN = 1


def page() -> bytes:
    """The code for `CODE`, or for the page of any SIPI vector."""
    return load(NAME)[:0x1000]


def handler() -> bytes:
    """The SMI handler, for `ENTRY` in SMRAM."""
    return page()[AT_HANDLER : AT_HANDLER + HANDLER_SIZE]
