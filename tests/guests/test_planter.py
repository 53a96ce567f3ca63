# SPDX-License-Identifier: GPL-2.0-only
"""The planter guest's labels and its block."""

from __future__ import annotations

from kvmtest import guests
from kvmtest.guests import planter
from kvmtest.state.layout import SEGMENTS


def test_each_label_leads_to_its_code() -> None:
    at, image = guests.symbols("planter"), guests.load("planter")
    starts = {"loop64": b"\x48\xff", "hlt64": b"\xf4", "in64": b"\xe5", "ud64": b"\x0f\x0b", "long": b"\x0f\x01"}
    assert {name: image[at[name] : at[name] + len(code)] for name, code in starts.items()} == starts
    assert image[planter.end : planter.count + 8] == bytes(16)


def test_the_block_has_a_word_for_each_item_and_no_two_are_one() -> None:
    words = planter.words()
    assert {"rflags", "cr8", "dr7", *(f"{seg}.selector" for seg in SEGMENTS)} <= words.keys()
    # LGDT and LIDT read ten bytes.
    used = [at + i for word, at in words.items() for i in range(16 if word in ("gdt", "idt") else 8)]
    assert len(set(used)) == len(used) and words["gpr"] == max(words.values())
