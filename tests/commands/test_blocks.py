# SPDX-License-Identifier: GPL-2.0-only
"""Blocks of KVM that random scenarios run: counted, and compared with those of the kept coverage."""

from __future__ import annotations

import argparse
from types import SimpleNamespace

import pytest

from kvmtest.commands.blocks import Blocks
from kvmtest.commands.common import Failed
from kvmtest.coverage.blocks import Block
from kvmtest.coverage.table import Cell, Table
from kvmtest.lab import instrument, kernels
from kvmtest.lab.steps import Executed

_AT = {("kvm", ".text"): 0x1000}
_BLOCKS = [Block("kvm", ".text", 8 * number, name, name, "lapic.c", 10 + number, ()) for number, name in enumerate("abbc")]


def _args(modules: str = "") -> argparse.Namespace:
    return argparse.Namespace(kernel="6.1", modules="", kvm_modules=modules, backend="svm")


def _blocks(monkeypatch: pytest.MonkeyPatch, cells: list[Cell]) -> Blocks:
    build = SimpleNamespace(modules="/built", table=lambda: Table("6.1", "source", "build", _BLOCKS, cells))
    monkeypatch.setattr(kernels, "find", lambda *args: SimpleNamespace(release="6.1"))
    monkeypatch.setattr(instrument, "instrumented", lambda *args: build)
    args = _args()
    made = Blocks(args)
    assert args.kvm_modules == "/built"
    # The first is the loading of the modules.
    for bits in (0b1, 0b1, 1 << 8 | 1 << 16, 1 << 16 | 1 << 24):
        made.take(Executed(None, _AT, {0x1000: bits}))
    return made


def test_what_no_case_ran_is_shown_by_function(monkeypatch: pytest.MonkeyPatch) -> None:
    cell = Cell("6.1/svm", "svm")
    cell.add("init.msi/ap", [0, 3])
    made = _blocks(monkeypatch, [cell])
    assert made.count == 4
    assert list(made.lines()) == [
        "4 basic blocks of KVM were run", "2 of them by no case in 6.1/svm", "     2 lapic.c b(): lines 11, 12",
    ]  # fmt: skip


def test_without_kept_coverage_they_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = _blocks(monkeypatch, []).lines()
    assert first.startswith("4 ") and "kvmtest lab coverage measures it" in second


def test_modules_of_ones_own_are_not_instrumented() -> None:
    with pytest.raises(Failed, match="leave out --kvm-modules"):
        Blocks(_args("/mine"))
