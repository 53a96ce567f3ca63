# SPDX-License-Identifier: GPL-2.0-only
"""Places in KVM's source as people name them."""

from __future__ import annotations

import pytest

from kvmtest.coverage.error import CoverageError
from kvmtest.coverage.place import parse
from tests.coverage.made import table


@pytest.mark.parametrize(
    ("text", "blocks"),
    [
        ("lapic.c:9", [1]),
        ("kvm/lapic.c:9", [1]),
        ("arch/x86/kvm/lapic.c:9", [1]),
        ("./arch/x86/kvm/lapic.c:9", [1]),
        ("lapic.c:9-11", [1, 2]),
        # An inlined function runs with the line that calls it; a block begins in one file, and has lines of others.
        ("lapic.c:12", [3]),
        ("lib.h:3", [3]),
        ("lapic.c", [0, 1, 2, 3, 4]),
        ("accept", [0, 1, 2]),
        ("ready", [3]),
        ("*e*", [0, 1, 2, 3, 4]),
        ("[ru]*", [3, 4]),
    ],
)
def test_a_place_has_its_blocks(text: str, blocks: list[int]) -> None:
    assert parse(text).blocks(table()) == blocks


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("lapic.c:10", "lapic.c:10 of 6.1.0-9 has no code; the nearest lines with some: 9, 11"),
        ("lapic.c:99", "the nearest lines with some: 17"),
        ("apic.c", "has no code of a file apic.c"),
        ("lib.h", "has no code of a file lib.h|no code"),
        ("reset", "KVM of 6.1.0-9 has no code of a function reset"),
    ],
)
def test_where_there_is_no_code_it_says_what_is_near(text: str, says: str) -> None:
    with pytest.raises(CoverageError, match=says):
        parse(text).blocks(table())


@pytest.mark.parametrize("text", ["", "lapic.c:", "lapic.c:x", "lapic.c:0", "lapic.c:9-8", "a b", "--x", "lapic.py:3"])
def test_other_words_are_refused(text: str) -> None:
    with pytest.raises(CoverageError):
        parse(text)
