# SPDX-License-Identifier: GPL-2.0-only
"""Whom a message reached is told as it was."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from kvmtest.checks import destination, own
from kvmtest.model.record import Result
from kvmtest.triggers import msi
from kvmtest.triggers.error import TriggerError

Judge = Callable[..., Result]
real_init = msi.init


def test_a_vcpu_that_hears_is_told_from_one_that_does_not(judged: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(msi, "init", lambda vcpu: real_init(own.heard(vcpu)))
    assert judged("init.msi.host.to-newest-vcpu").observed == "received, INIT_RECEIVED f000:fff0"

    def lose(vcpu: object) -> None:
        raise TriggerError("nobody")

    monkeypatch.setattr(msi, "init", lose)
    assert judged("init.msi.host.to-newest-vcpu").observed == "lost, UNINITIALIZED f000:fff0"


@pytest.mark.parametrize("name", ["same-apic-id", "same-apic-id-32-bit-ids"])
def test_who_has_another_id_is_not_reached(name: str, judged: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(destination, "write", lambda vcpu, at, value: own.heard(vcpu))
    assert judged(f"init.msi.host.{name}").observed == "reaches vCPU 1"
    monkeypatch.setattr(msi, "init", lambda vcpu: None)
    assert judged(f"init.msi.host.{name}").observed == "reaches none of them"


def test_an_id_cut_to_eight_bits_fails(judged: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(msi, "init", lambda vcpu: vcpu.vm.signal_msi(0xFEE00000, msi.INIT))
    result = judged("init.msi.host.id-above-255")
    assert result.verdict == "fail" and "vCPU 0" in str(result.observed)
    monkeypatch.setattr(msi, "init", lambda vcpu: None)
    assert judged("init.msi.host.id-above-255").verdict == "fail"
