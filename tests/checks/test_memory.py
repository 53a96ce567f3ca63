# SPDX-License-Identifier: GPL-2.0-only
"""RAM that INIT changes fails in both views, and so does a translation that it leaves."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from kvmtest.checks import memory
from kvmtest.guests import behaviour
from kvmtest.kvm import Vcpu
from kvmtest.model.record import Result
from kvmtest.triggers import msi

Judge = Callable[..., Result]
real_init = msi.init
OLD, NEW = memory._OLD_WORD, memory._NEW_WORD


@pytest.mark.parametrize(("view", "slot"), [("host", 2), ("host", 5), ("guest", 1), ("guest", 6)])
def test_ram_that_init_changes_fails(view: str, slot: int, judged: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    def init(vcpu: Vcpu) -> None:
        real_init(vcpu)
        ram = next(m for m in vcpu.vm.memory if m.slot == slot)
        last = ram.gpa + ram.size - 1
        ram.write_int(last, ram.read_int(last, 1) ^ 0x10, 1)

    monkeypatch.setattr(msi, "init", init)
    result = judged(f"init.msi.{view}.ram")
    assert result.verdict == "fail" and "changed" in str(result.observed)


def test_the_sum_is_the_guests() -> None:
    assert memory._sum(bytes.fromhex("01000080 05000000")) == ((0x80000001 << 1 & 0xFFFFFFFF | 1) + 5) & 0xFFFFFFFF


@pytest.mark.parametrize(
    ("vendor", "words", "verdict"),
    [
        ("intel", (OLD, OLD, OLD), "fail"),
        ("amd", (OLD, OLD, OLD), "info"),
        ("intel", (OLD, OLD, NEW), "pass"),
        ("amd", (OLD, OLD, NEW), "pass"),
        ("intel", (OLD, NEW, NEW), "skip"),
        ("intel", (NEW, NEW, NEW), "error"),
    ],
)
def test_a_translation_that_init_leaves_fails(
    vendor: str, words: tuple[int, ...], verdict: str, judged: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a guest that reads these words, since few hosts show a stale translation at will."""
    left = list(words)

    def word(stage: memory.Stage) -> tuple[int, int]:
        return behaviour.PORT_VALUE, left.pop(0)

    def expect(stage: memory.Stage, port: int) -> int:
        return left.pop(0) if port == behaviour.PORT_VALUE else 0

    monkeypatch.setattr(memory.Stage, "word", word)
    monkeypatch.setattr(memory.Stage, "expect", expect)
    monkeypatch.setattr(memory.Stage, "restart", lambda stage: None)
    result = judged("init.msi.guest.tlb", vendor)
    assert result.verdict == verdict, result
