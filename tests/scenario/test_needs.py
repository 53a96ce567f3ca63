# SPDX-License-Identifier: GPL-2.0-only
"""A need is met, or the reason why not is told."""

from __future__ import annotations

import pytest

from kvmtest.scenario.needs import Need


class _Facts:
    vendor = "intel"

    def __init__(self, bit: int) -> None:
        self.bit = bit

    def extension(self, cap: int) -> int:
        return self.bit << 2

    def leaf(self, function: int, register: str) -> int:
        return self.bit << 3

    def msr(self, index: int) -> int:
        return self.bit << 39


@pytest.mark.parametrize(
    ("need", "bit"),
    [
        (Need("", cap=1), 1),
        (Need("", cap=1, flags=1 << 2), 1),
        (Need("", cpuid=(1, "ecx", 3)), 1),
        (Need("", cpuid=(1, "ecx", 3), clear=True), 0),
        (Need("", msr=(0x48B, 39)), 1),
        (Need("", msr=(0x48B, 39), clear=True), 0),
    ],
)
def test_a_need_is_met_by_the_bit_and_not_without_it(need: Need, bit: int) -> None:
    assert need.met(_Facts(bit))
    assert not need.met(_Facts(1 - bit))
    assert not need._replace(vendor="amd").met(_Facts(bit))
