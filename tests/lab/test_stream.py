# SPDX-License-Identifier: GPL-2.0-only
"""What goes into the stream comes out of it."""

from __future__ import annotations

import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmtest.engine.result import VERDICTS, Result
from kvmtest.lab.stream import Decoder, Encoder

_CASE = "init.msi.host/ap"
_TEXT = st.none() | st.text(st.characters(exclude_categories=("Cs",)), max_size=8)


def _through(results: list[Result], chunk: int = 7) -> list[Result]:
    sent = bytearray()
    encoder = Encoder(sent.extend)
    encoder.case(_CASE, "init.msi.host")
    for result in results:
        encoder.result(result)
    encoder.flush()
    decoder = Decoder()
    found: list[tuple[str, list[Any]]] = []
    for start in range(0, len(sent), chunk):
        found += decoder.feed(bytes(sent[start : start + chunk]))
    return [Result._make(fields) for letter, fields in found if letter == "result"]


def _result(
    item: str, values: tuple[str | None, ...], verdict: str, reason: str, cite: tuple[str, ...], case: str = _CASE
) -> Result:
    return Result(f"init.msi.host.{item}", "init", "msi", "host", item, case, *values, verdict, reason, cite, None)  # type: ignore[arg-type]


@given(
    st.lists(
        st.builds(
            _result,
            st.sampled_from(("cr0", "cr3", "lapic.svr")),
            st.tuples(_TEXT, _TEXT, _TEXT),
            st.sampled_from(VERDICTS),
            st.text(st.characters(exclude_categories=("Cs",)), max_size=20),
            st.sampled_from((("A",), ("A", "B, with\ttab"))),
            st.sampled_from((_CASE, "init.msi.views/ap")),
        ),
        max_size=20,
    )
)
def test_results_come_out_as_they_went_in(results: list[Result]) -> None:
    sent = [r for r in results if r.case == _CASE]
    assert [r for r in _through(results) if r.case == _CASE] == sent
    assert _through(results) == results


def test_results_stay_with_their_case() -> None:
    sent = bytearray()
    encoder = Encoder(sent.extend)
    for case in ("init.msi.host/x", "sipi.msi.guest/y"):
        encoder.case(case, case.partition("/")[0])
        event, trigger, view = case.partition("/")[0].split(".")
        encoder.result((f"{event}.{trigger}.{view}.cr0", event, trigger, view, "cr0", case, *[None] * 3, "pass", "", (), None))
        encoder.line("c", "1.0")
    encoder.flush()
    found = [fields for letter, fields in Decoder().feed(bytes(sent)) if letter == "result"]
    assert [(fields[0], fields[5]) for fields in found] == [
        ("init.msi.host.cr0", "init.msi.host/x"),
        ("sipi.msi.guest.cr0", "sipi.msi.guest/y"),
    ]


def test_the_same_result_again_takes_few_bytes() -> None:
    size = []
    encoder = Encoder(lambda data: size.append(len(data)))
    encoder.case(_CASE, "init.msi.host")
    for _ in range(1000):
        encoder.result(_result("cr0", ("0x1", "0x2", "0x3"), "fail", "because " * 10, ("A manual",)))
    encoder.flush()
    assert sum(size) < 3000


@given(st.binary(max_size=64))
def test_bytes_come_out_as_they_went_in(data: bytes) -> None:
    sent = bytearray()
    encoder = Encoder(sent.extend)
    encoder.blob("D", data)
    encoder.blob("O", (1, data, "x"))
    encoder.flush()
    assert list(Decoder().feed(bytes(sent))) == [("D", [data]), ("O", [(1, data, "x")])]


@pytest.mark.parametrize("line", [b"R\ttoo\tfew\n", b"r\t0\n", b"r\tx\n", b"O\tx\n"])
def test_nonsense_is_refused(line: bytes) -> None:
    with pytest.raises((ValueError, IndexError, EOFError)):
        list(Decoder().feed(zlib.compress(line)))
    with pytest.raises(ValueError):
        list(Decoder().feed(line))


def test_a_sign_of_life_comes_at_once_and_between_lines() -> None:
    sent = bytearray()
    out = Encoder(sent.extend)
    out.line("C", "init.msi.host/x")
    out.beat()
    out.line("c", "0.5")
    out.flush()
    assert list(Decoder().feed(bytes(sent))) == [("h", []), ("C", ["init.msi.host/x"]), ("c", ["0.5"])]
