# SPDX-License-Identifier: GPL-2.0-only
"""A log in which a bit is flipped, or a line is lost, doubled, moved or cut, is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmtest.observer.log import LogError, parse
from tests.observer import made

#: The boot processor's looks alone, with a RESET and an INIT in between: as much as is parsed in a moment.
LOG = made.printed(
    made.recorded()._replace(
        boots=[boot._replace(looks=[look for look in boot.looks if look.apic_id == 0]) for boot in made.recorded().boots]
    )
)
LINES = LOG.splitlines(keepends=True)
AT = st.integers(0, len(LINES) - 1)


def _refused(data: bytes) -> None:
    with pytest.raises(LogError):
        parse(data)


def test_the_log_is_whole() -> None:
    assert parse(LOG).ended


@given(st.integers(0, 8 * len(LOG) - 1))
def test_one_bit_is_enough(bit: int) -> None:
    data = bytearray(LOG)
    data[bit // 8] ^= 1 << bit % 8
    _refused(bytes(data))


@given(AT, st.integers(0), st.integers(0, 7))
def test_a_bit_of_any_line(line: int, at: int, bit: int) -> None:
    """Short lines are as likely as long ones: first lines, checksums, `over`, `end`."""
    changed = bytearray(LINES[line])
    changed[at % len(changed)] ^= 1 << bit
    _refused(b"".join((*LINES[:line], changed, *LINES[line + 1 :])))


@given(AT)
def test_a_line_that_is_lost(line: int) -> None:
    _refused(b"".join(LINES[:line] + LINES[line + 1 :]))


@given(AT)
def test_a_line_that_comes_twice(line: int) -> None:
    _refused(b"".join(LINES[: line + 1] + LINES[line:]))


@given(AT, AT)
def test_two_lines_that_changed_places(one: int, other: int) -> None:
    lines = list(LINES)
    lines[one], lines[other] = lines[other], lines[one]
    if lines != LINES:
        _refused(b"".join(lines))


@given(st.integers(0, len(LOG) - 1))
def test_a_log_that_was_cut(end: int) -> None:
    _refused(LOG[:end])
