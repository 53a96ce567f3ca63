# SPDX-License-Identifier: GPL-2.0-only
"""Checks of the local APIC's mode fail for one that INIT changes."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from kvmtest.checks import apic
from kvmtest.kvm import Vcpu
from kvmtest.model.record import Result
from kvmtest.triggers import latched, msi

Judge = Callable[..., Result]


def _with_mode(init: Callable[[Vcpu], None], mode: int) -> Callable[[Vcpu], None]:
    """INIT that leaves ``mode`` in IA32_APIC_BASE.EN and EXTD."""

    def changed(vcpu: Vcpu) -> None:
        init(vcpu)
        vcpu.get_mp_state()
        sregs = vcpu.get_sregs()
        sregs.apic_base = sregs.apic_base & ~0xC00 | mode
        vcpu.set_sregs(sregs)

    return changed


def test_an_apic_that_init_enables_fails(judged: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latched, "init", _with_mode(latched.init, 0x800))
    result = judged("init.latched.host.disabled-apic")
    assert result.verdict == "fail" and result.observed == "enabled, INIT_RECEIVED f000:fff0"


def test_an_apic_that_init_takes_out_of_x2apic_mode_fails(judged: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(msi, "init", _with_mode(msi.init, 0x800))
    result = judged("init.msi.guest.x2apic-msrs")
    assert result.verdict == "fail" and result.observed == "another mode"


def test_an_apic_that_hears_while_it_is_off_fails(judged: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apic, "_set_mode", lambda subject, mode: None)
    result = judged("init.msi.host.globally-disabled-apic")
    assert result.verdict == "fail" and result.observed == "received, INIT_RECEIVED f000:fff0"


def test_a_message_that_starts_nothing_is_an_error(judged: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(msi, "sipi", lambda vcpu, vector: None)
    result = judged("sipi.msi.guest.vectors-a0-bf", timeout_s=0.05)
    assert result.verdict == "error" and "no exit within" in result.reason


@pytest.mark.parametrize(("name", "other"), [("self", "RUNNABLE"), ("all-including-self", "INIT_RECEIVED")])
def test_shorthands_are_recorded(name: str, other: str, judged: Judge) -> None:
    result = judged(f"init.icr-x2apic.guest.shorthand-{name}")
    assert result.verdict == "info" and result.observed
    if "restarts" in result.observed:
        assert result.observed.endswith(f"the other one is {other}")
