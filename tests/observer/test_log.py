# SPDX-License-Identifier: GPL-2.0-only
"""An observer's lines are parsed strictly: whatever is missing, changed or out of place is refused."""

from __future__ import annotations

import re

import pytest

from kvmtest.observer.log import LogError, parse
from tests.observer import made

LINES = made.RECORDED.decode().splitlines(keepends=True)


def _at(begin: str, number: int = 0) -> int:
    return [i for i, line in enumerate(LINES) if line.startswith(begin)][number]


def _without(begin: str) -> bytes:
    at = _at(begin)
    return "".join(LINES[:at] + LINES[at + 1 :]).encode()


def test_what_was_recorded_is_whole() -> None:
    log = made.recorded()
    assert log.ended and [boot.sent for boot in log.boots] == [["cf9"], ["icr-xapic"]]
    assert [look.kind for look in log.boots[0].looks] == ["read", "read", "plant", "read", "plant", "plant"]


def test_a_log_that_is_printed_anew_is_the_same() -> None:
    assert parse(made.printed(made.recorded())) == made.recorded()


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "it has no line of an observer"),
        (b"SeaBIOS\n\xff\xfe\n", "it has no line of an observer"),
        (made.RECORDED[:20000], "in the middle of a state, in boot 1"),
        ("".join(LINES[: _at("KVMTEST", 1)]).encode(), "after 'cf9' was sent"),
        ("".join(LINES[:-1]).encode(), "it ends in boot 2"),
        (made.RECORDED.replace(b"CR0 60000010", b"CR0 60000011", 1), "the log is corrupted"),
        (made.RECORDED.replace(b"CR0 60000010", b"CR0 6000001", 1), "the log is corrupted"),
        (made.RECORDED.replace(b"CR0 60000010", b"CR0 0x10", 1), "not numbers in hex"),
        (made.RECORDED.replace(b"CR0 60000010", b"CR9 60000010", 1), "not a line of a state"),
        (made.RECORDED.replace(b"\nstep MSW 1", b"\nstep MSWX 1", 1), "not a line of a state"),
        (_without("CR0 "), "the state ends before all of it is printed"),
        (_without("msr 1b "), "the log is corrupted"),
        (_without("crc "), "a checksum should stand here"),
        (made.RECORDED.replace(b"CR0 60000010\n", b"CR0 60000010\nCR0 60000010\n", 1), "not a line of a state"),
        (made.RECORDED.replace(b"OBSERVER 1 ", b"OBSERVER 2 ", 1), "version 2 of the observer's lines"),
        (made.RECORDED.replace(b" boot 2 ", b" boot 3 ", 1), "boot 3, where number 2 should come"),
        (made.RECORDED + b"KVMTEST-OBSERVER 1 0 boot 3 firmware\n", "a boot begins where the one before it has not ended"),
        (made.RECORDED + b"hello\n", "something after the end"),
        (made.RECORDED.replace(b"\nRBX 0", b"\nRBX \xff", 1), "bytes that no observer prints"),
    ],
)  # fmt: skip
def test_a_log_that_is_none_is_refused(data: bytes, says: str) -> None:
    with pytest.raises(LogError, match=re.escape(says)):
        parse(data)


def test_what_a_firmware_prints_before_is_passed_over_and_lines_may_end_as_on_a_serial_line() -> None:
    noisy = b"SeaBIOS (version)\n\xff\n" + made.RECORDED.replace(b"\n", b"\r\n").replace(b"KVMTEST", b"junk KVMTEST")
    assert parse(noisy) == made.recorded()


def test_of_a_log_that_was_cut_off_the_whole_looks_are_kept() -> None:
    log = parse(made.RECORDED[: made.RECORDED.index(b"plant 1 1")], cut=True)
    assert not log.ended and [len(boot.looks) for boot in log.boots] == [2]
