# SPDX-License-Identifier: GPL-2.0-only
"""Names of bits."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmtest.x86.bits import BITS, describe, difference

ITEMS = st.sampled_from([*BITS, "rax", "no.such.item"])
VALUES = st.integers(0, 2**64 - 1)


def _bits_of(item: str, text: str) -> int:
    """The bits that a difference names."""
    fields = {name: (1 << width) - 1 << low for name, low, width in BITS.get(item, ())}
    mask = 0
    for word in text.split("|") if text else ():
        mask |= fields[word] if word in fields else int(word, 16)
    return mask


@pytest.mark.parametrize("item", BITS)
def test_fields_do_not_overlap(item: str) -> None:
    seen = 0
    for name, low, width in BITS[item]:
        mask = (1 << width) - 1 << low
        assert width > 0, name
        assert not seen & mask, name
        seen |= mask
    assert len({name for name, _, _ in BITS[item]}) == len(BITS[item])
    assert not any("|" in name or "=" in name for name, _, _ in BITS[item])


@pytest.mark.parametrize(
    ("item", "value", "text"),
    [
        ("cr0", 0x80010001, "PG|WP|PE"),
        ("cr4", 1 << 32 | 1 << 5, "FRED|PAE"),
        ("rflags", 0x3002, "IOPL=0x3|fixed1"),
        ("lapic.lvt_timer", 0x20040, "mode=0x1|vector=0x40"),
        ("lapic.irr1", 0x3, "v21|v20"),
        ("cr0", 0x2, "MP"),
        ("cr0", 0x40, "0x40"),
        ("cr0", 0, ""),
        ("rax", 5, ""),
    ],
)
def test_describe(item: str, value: int, text: str) -> None:
    assert describe(item, value) == text


@pytest.mark.parametrize(
    ("item", "a", "b", "text"),
    [
        ("cr0", 0x60000010, 0x10, "CD|NW"),
        ("cr0", 0x10, 0x10, ""),
        ("rflags", 0x3002, 0x1002, "IOPL"),
        ("cr0", 0x40, 0x1, "PE|0x40"),
        ("rax", 1, 2, "0x3"),
    ],
)
def test_difference(item: str, a: int, b: int, text: str) -> None:
    assert difference(item, a, b) == text


@given(ITEMS, VALUES, VALUES)
def test_every_differing_bit_is_named(item: str, a: int, b: int) -> None:
    named = _bits_of(item, difference(item, a, b))
    assert (a ^ b) & ~named == 0
    assert bool(difference(item, a, b)) == (a != b)


@given(ITEMS, VALUES)
def test_describe_loses_nothing(item: str, value: int) -> None:
    fields = {name: (low, width) for name, low, width in BITS.get(item, ())}
    back = 0
    for word in describe(item, value).split("|") if describe(item, value) else ():
        name, _, number = word.partition("=")
        if name in fields:
            low, width = fields[name]
            back |= (int(number, 16) if number else (1 << width) - 1) << low
        else:
            back |= int(word, 16)
    assert back == (value if item in BITS else 0)
