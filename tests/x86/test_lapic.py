# SPDX-License-Identifier: GPL-2.0-only
"""Registers of the local APIC page by name."""

from __future__ import annotations

from kvmtest.x86 import lapic


def test_a_register_reads_back_and_its_neighbours_stay() -> None:
    page = bytearray(range(256)) * 4
    was = bytes(page)
    lapic.put(page, "ldr", 0x12345678)
    assert lapic.get(page, "ldr") == 0x12345678
    assert page[:0xD0] == was[:0xD0] and page[0xD4:] == was[0xD4:]
