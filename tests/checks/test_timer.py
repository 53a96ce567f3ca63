# SPDX-License-Identifier: GPL-2.0-only
"""A timer that goes on through INIT fails, and one that never fires proves nothing."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from kvmtest.checks import timer
from kvmtest.kvm import Vcpu
from kvmtest.model.record import Result
from kvmtest.triggers import msi

Judge = Callable[..., Result]
real_init = msi.init


def _init_with_a_timer(vcpu: Vcpu) -> None:
    """INIT that leaves a one-shot timer running, a millisecond from its end."""
    real_init(vcpu)
    vcpu.get_mp_state()
    lapic = vcpu.get_lapic()
    for offset, value in ((0xF0, 0x1FF), (0x320, 0x60), (0x3E0, 0xB), (0x380, 1_000_000)):
        lapic.regs[offset : offset + 4] = list(value.to_bytes(4, "little"))
    vcpu.set_lapic(lapic)


@pytest.mark.parametrize("name", ["periodic-timer", "tsc-deadline-timer"])
def test_a_timer_that_init_does_not_stop_fails(
    name: str, judged: Judge, untestable_here: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    id = f"init.msi.guest.{name}"
    untestable_here(id)
    monkeypatch.setattr(msi, "init", _init_with_a_timer)
    # Long enough for that millisecond on any host.
    monkeypatch.setattr(timer, "_FEW", 100_000)
    result = judged(id)
    assert (result.verdict, result.observed) == ("fail", "1 interrupts")


def test_a_timer_that_never_fires_is_an_error(judged: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timer, "_PERIODIC", 1 << 16)
    monkeypatch.setattr(timer, "_MANY", 1000)
    result = judged("init.msi.guest.periodic-timer")
    assert result.verdict == "error" and "does not fire" in result.reason


def test_a_restored_timer_that_does_not_fire_fails(judged: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timer, "_VECTOR", 1 << 16 | 0x60)
    monkeypatch.setattr(timer, "_MANY", 1000)
    result = judged("none.set-lapic.guest.timer-fires")
    assert (result.verdict, result.observed) == ("fail", "0 interrupts")
