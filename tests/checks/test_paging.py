# SPDX-License-Identifier: GPL-2.0-only
"""A vCPU that still sees a page of before INIT fails: in real-address mode, and by the next tables."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from kvmtest.checks import paging
from kvmtest.kvm import GuestMemory
from kvmtest.model.record import Result

Judge = Callable[..., Result]
ID = "init.msi.guest.paging-to-4-level"


def _after(
    monkeypatch: pytest.MonkeyPatch, name: str, then: Callable[[paging.Stage | GuestMemory], None], time: int = 3
) -> None:
    """What ``name`` does, and ``then`` behind it at one of the three times that a vCPU is started."""
    real, count = getattr(paging, name), iter(range(1, 4))

    def function(stage: paging.Stage | GuestMemory, *args: object) -> None:
        real(stage, *args)
        if next(count) == time:
            then(stage)

    monkeypatch.setattr(paging, name, function)


@pytest.fixture(autouse=True)
def _can_be_seen(untestable_here: Callable[[str], None]) -> None:
    untestable_here(ID)


@pytest.mark.parametrize(
    ("time", "cr3", "seen", "out_of"),
    [
        (3, paging._OLD_TABLES, "paging reads 20000", "out of 64-bit mode"),
        (3, 0x30000, "paging reads nothing, and shuts down", "out of 64-bit mode"),
        (2, paging._NEW_TABLES, "paging reads 21000", "out of 4-level paging"),
        (1, 0x30000, "paging reads nothing, and shuts down", "out of RESET"),
    ],
)
def test_other_tables_than_those_of_cr3_fail(
    time: int, cr3: int, seen: str, out_of: str, judged: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    _after(monkeypatch, "_use", lambda stage: stage.set(ARG_CR3=cr3), time)
    result = judged(ID)
    assert result.verdict == "fail" and str(result.observed).startswith(out_of)
    assert str(result.observed).endswith(seen)


def test_a_page_of_before_init_read_in_real_mode_fails(judged: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    _after(monkeypatch, "_fill", lambda ram: ram.write_int(paging._REAL, paging._OLD, 4))
    result = judged(ID)
    assert result.verdict == "fail" and "out of 64-bit mode: real mode reads 20000 and writes 80000" in str(result.observed)


def test_a_page_of_before_init_written_in_real_mode_fails(judged: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    def swap(ram: GuestMemory) -> None:
        read_int = ram.read_int
        other = {paging._REAL + 4: paging._OLD + 4, paging._OLD + 4: paging._REAL + 4}
        monkeypatch.setattr(ram, "read_int", lambda gpa, length: read_int(other.get(gpa, gpa), length))

    _after(monkeypatch, "_fill", swap)
    result = judged(ID)
    assert result.verdict == "fail" and "and writes 20000," in str(result.observed)


def test_a_mode_that_never_works_is_no_pass(judged: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paging, "_LONG", paging._LONG._replace(cr4=0))
    result = judged(ID)
    assert result.verdict == "skip" and "does not let" in result.reason
