# SPDX-License-Identifier: GPL-2.0-only
"""Checks of what is pending beside INIT fail where it comes first, or comes at all."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from kvmtest.checks import interrupts
from kvmtest.kvm import Vcpu
from kvmtest.model.record import Result
from kvmtest.triggers import msi

Judge = Callable[..., Result]
real_init, real_send = msi.init, msi.send


def test_an_interrupt_that_outlives_init_fails(judged: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    def init(vcpu: Vcpu) -> None:
        real_init(vcpu)
        vcpu.get_mp_state()
        interrupts.set_svr(vcpu, 0x1FF)
        real_send(vcpu, 0x61)

    monkeypatch.setattr(msi, "init", init)
    result = judged("init.msi.guest.interrupt-forgotten")
    assert (result.verdict, result.observed) == ("fail", "1 interrupts")


def test_a_vcpu_that_an_interrupt_below_tpr_stops_fails(judged: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that halts instead of restarting, and one that goes on as if there were no INIT."""
    assert judged("init.msi.guest.interrupt-below-tpr").observed in ("restarts", "executes nothing")
    monkeypatch.setattr(msi, "init", lambda vcpu: vcpu.set_mp_state(3))
    result = judged("init.msi.guest.interrupt-below-tpr", timeout_s=0.05)
    assert (result.verdict, result.observed) == ("fail", "executes nothing")
    monkeypatch.setattr(msi, "init", lambda vcpu: None)
    result = judged("init.msi.guest.interrupt-below-tpr")
    assert result.verdict == "fail" and str(result.observed).startswith("goes on with")


@pytest.mark.parametrize("name", ["interrupt", "nmi"])
def test_what_comes_before_init_fails(name: str, judged: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(msi, "init", lambda vcpu: None)
    result = judged(f"init.msi.guest.before-{name}")
    assert result.verdict == "fail" and str(result.observed).endswith("first")
    assert result.observed != "INIT first"


@pytest.mark.parametrize("name", ["interrupt", "nmi"])
def test_a_vcpu_that_does_not_wait_for_its_sipi_fails(name: str, judged: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    def send(vcpu: Vcpu, data: int) -> None:
        real_send(vcpu, data)
        if data != msi.INIT:
            vcpu.set_mp_state(0)

    monkeypatch.setattr(msi, "send", send)
    result = judged(f"init.msi.guest.{name}-while-waiting")
    assert result.verdict == "fail" and str(result.observed).startswith("ran: KVM_EXIT_")


def test_an_interrupt_that_is_not_pending_is_an_error(judged: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(msi, "send", lambda vcpu, data: None)
    result = judged("init.msi.guest.interrupt-forgotten")
    assert result.verdict == "error" and "not requested" in result.reason


@pytest.mark.parametrize("id", ["init.msi.guest.earlier-nmi", "sipi.msi.guest.earlier-nmi"])
def test_what_becomes_of_an_nmi_is_recorded(id: str, judged: Judge) -> None:
    result = judged(id)
    assert result.verdict == "info" and result.observed
