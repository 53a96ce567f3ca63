# SPDX-License-Identifier: GPL-2.0-only
"""The sender guest: its entries."""

from __future__ import annotations

from kvmtest import guests


def test_each_mode_has_its_entry() -> None:
    image = guests.load("sender")
    assert image[guests.symbol("sender", "xapic") :].startswith(b"\x89\x15" + (0xFEE00310).to_bytes(4, "little"))
    assert image[guests.symbol("sender", "x2apic") :].startswith(b"\xb9" + (0x830).to_bytes(4, "little"))
