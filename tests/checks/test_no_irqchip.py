# SPDX-License-Identifier: GPL-2.0-only
"""A BSP bit that nobody set fails in every view."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from kvmtest.checks import Subject, no_irqchip
from kvmtest.checks.own import as_guest, own_vm
from kvmtest.kvm import Vcpu
from kvmtest.model.record import Result

Judge = Callable[..., Result]


@contextmanager
def _bsp(subject: Subject) -> Iterator[Vcpu]:
    with own_vm(subject, "none") as vm:
        yield as_guest(subject, vm.create_vcpu(0))


@pytest.mark.parametrize("prefix", ["reset.create.guest", "none.set-sregs.host", "none.set-msrs.host"])
def test_a_bsp_bit_fails(prefix: str, judged: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(no_irqchip, "_ap", _bsp)
    monkeypatch.setattr(no_irqchip, "_AP", 0xFEE00900)
    result = judged(f"{prefix}.bsp-without-irqchip")
    assert (result.verdict, result.observed) == ("fail", "0xfee00900")
