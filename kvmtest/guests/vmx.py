# SPDX-License-Identifier: GPL-2.0-only
"""The numbers of guests/vmx.S, by its names."""

from __future__ import annotations

from kvmtest.guests.l1 import CODE, CODE_SIZE, COUNT, TOPIC

__all__ = ("CODE", "CODE_SIZE", "COUNT", "NAME", "TOPIC")

NAME = "vmx"

ARG_L2 = 0x504
ARG_ACTIVITY = 0x508
ARG_CONTROLS = 0x50C
ARG_TURNS = 0x510
ARG_PINS = 0x514

TOPIC_ROOT = 0
TOPIC_NESTED = 1
TOPIC_HALT = 2

L2_SPIN = 0
L2_SILENT = 1
L2_HLT = 2
L2_SHUTDOWN = 3
L2_CR3 = 4
L2_STEP = 5

PORT_NMI = 0xF7
PORT_VMFAIL = 0xFB

MARK = 0x5A5AA5A5
LDT = 0x28
