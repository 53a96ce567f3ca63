# SPDX-License-Identifier: GPL-2.0-only
"""Guest code and data in C: the bytes are those of the guest, whatever is left out or written beside them."""

from __future__ import annotations

import re
import shutil

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kvmtest import guests
from kvmtest.emit import code

_GAPS = st.sampled_from((b"\0" * 40, b"\xf4" * 40))
_TABLES = st.builds(
    lambda first, step, count: b"".join((first + step * i).to_bytes(8, "little") for i in range(count)),
    st.integers(0, 1 << 40), st.integers(1, 1 << 30), st.integers(16, 40),
)
_DATA = st.lists(st.binary(max_size=60) | _GAPS | _TABLES, max_size=6).map(b"".join)


def _bytes(text: str) -> bytes:
    """The bytes of a C array, without what comments say."""
    return bytes(int(one, 16) for one in re.findall(r"0x([0-9a-f]{2})\b", re.sub(r"/\*.*?\*/", "", text)))


@given(_DATA, st.integers(0, 1 << 20))
@example(b"\xf4" * 16, 0)
@example(b"\0\1" + b"\xf4" * 20 + b"\2", 0)
def test_pieces_are_all_but_zeros_and_what_fills(data: bytes, gpa: int) -> None:
    there, end = bytearray(len(data)), gpa
    for at, piece in code.pieces(gpa, data):
        assert at >= end and piece
        end = at + len(piece)
        there[at - gpa : end - gpa] = piece
    assert end <= gpa + len(data)
    left = bytes(new ^ old for new, old in zip(there, data, strict=True))
    assert set(left) <= {0, 0xF4}
    # Only long parts are left out, so that none of them was code.
    assert all(len(run) >= 16 for run in re.findall(rb"\xf4+", left))


@given(st.binary(min_size=1, max_size=200))
def test_an_array_has_the_bytes(data: bytes) -> None:
    text = code.array("code_0", data)
    assert text.startswith("static const __u8 code_0[] = {\n") and _bytes(text) == data


@given(_TABLES)
def test_a_table_is_what_a_loop_writes(data: bytes) -> None:
    found = code.progression(data)
    assert found
    first, step, count = found
    assert b"".join((first + step * i).to_bytes(8, "little") for i in range(count)) == data
    assert code.progression(data[:-8] + bytes(8)) is None and code.progression(data + b"\0") is None


def test_a_guests_code_is_an_instruction_a_line() -> None:
    if not shutil.which("objdump"):
        pytest.skip("objdump is needed: apt-get install binutils")
    labels, image = guests.labels("spine"), guests.load("spine")
    start = sorted(at for at in labels.values() if at < len(image))[0]
    data = image[start : start + guests.PAGE].rstrip(b"\xf4")
    text = code.array("code_0", data)
    assert _bytes(text) == data
    reported = re.findall(r"/\* (.*?) \*/", text)
    assert "data" not in reported
    assert any(one.startswith("mov") for one in reported) and any(one.startswith("out ") for one in reported)
    assert {f"{label}:" for label, at in labels.items() if start < at < start + 64} & set(reported) or len(labels) < 3


def test_without_a_disassembler_they_are_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    code._disassembled.cache_clear()
    image = guests.load("sender")
    data = image[: max(guests.labels("sender").values())].rstrip(b"\xf4")
    assert _bytes(code.array("code_0", data)) == data
    code._disassembled.cache_clear()
