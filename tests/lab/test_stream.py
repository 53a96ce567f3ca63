# SPDX-License-Identifier: GPL-2.0-only
"""The stream decodes to what was encoded."""

from __future__ import annotations

import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmtest.lab.stream import Decoder, Encoder

_TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)


@given(st.lists(st.tuples(st.sampled_from("BLX"), st.lists(_TEXT, max_size=3)), max_size=20), st.integers(1, 50))
def test_lines_come_out_as_they_went_in(lines: list[tuple[str, list[str]]], chunk: int) -> None:
    sent = bytearray()
    encoder = Encoder(sent.extend)
    for letter, fields in lines:
        encoder.line(letter, *fields)
    encoder.flush()
    decoder = Decoder()
    found: list[tuple[str, list[Any]]] = []
    for start in range(0, len(sent), chunk):
        found += decoder.feed(bytes(sent[start : start + chunk]))
    assert found == lines


def test_a_case_is_sent_at_once_with_what_came_before() -> None:
    sent = bytearray()
    encoder = Encoder(sent.extend)
    encoder.line("c", "0.5")
    assert not sent
    encoder.case("init.msi/ap,intel,halted", "host")
    assert list(Decoder().feed(bytes(sent))) == [("c", ["0.5"]), ("C", ["init.msi/ap,intel,halted", "host"])]


def test_the_same_again_takes_few_bytes() -> None:
    size = []
    encoder = Encoder(lambda data: size.append(len(data)))
    for _ in range(1000):
        encoder.blob("O", ([], ("Untried", ["error", "because " * 10, False])))
    encoder.flush()
    assert sum(size) < 3000


@given(st.binary(max_size=64))
def test_bytes_come_out_as_they_went_in(data: bytes) -> None:
    sent = bytearray()
    encoder = Encoder(sent.extend)
    encoder.blob("D", data)
    encoder.blob("K", data)
    encoder.blob("O", (1, data, "x"))
    encoder.flush()
    assert list(Decoder().feed(bytes(sent))) == [("D", [data]), ("K", [data]), ("O", [(1, data, "x")])]


@pytest.mark.parametrize("line", [b"O\tx\n", b"V\t\n"])
def test_nonsense_is_refused(line: bytes) -> None:
    with pytest.raises((ValueError, IndexError, EOFError)):
        list(Decoder().feed(zlib.compress(line)))
    with pytest.raises(ValueError):
        list(Decoder().feed(line))


def test_a_sign_of_life_comes_at_once_and_between_lines() -> None:
    sent = bytearray()
    out = Encoder(sent.extend)
    out.line("C", "init.msi/x", "host")
    out.beat()
    out.line("c", "0.5")
    out.flush()
    assert list(Decoder().feed(bytes(sent))) == [("h", []), ("C", ["init.msi/x", "host"]), ("c", ["0.5"])]
