# SPDX-License-Identifier: GPL-2.0-only
"""How long a guest is listened to before it is said to do nothing, with a vCPU that is none."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from kvmtest.checks.stage import Stage
from kvmtest.kvm import Exit, RunTimeout
from kvmtest.uapi.kvm import KVM_EXIT_HLT


class _Vcpu:
    """Makes an exit where it is given ``needs`` seconds."""

    id = 0

    def __init__(self, needs: float) -> None:
        self.needs = needs
        self.given: list[float] = []

    def run(self, seconds: float) -> Exit:
        self.given.append(seconds)
        if seconds < self.needs:
            raise RunTimeout(self, seconds)  # type: ignore[arg-type]
        return Exit(KVM_EXIT_HLT)


def _stage(monkeypatch: pytest.MonkeyPatch, took: float, needs: float) -> tuple[Stage, _Vcpu]:
    """A stage whose guest's only exit until now took so long."""
    made, vcpu = Stage.__new__(Stage), _Vcpu(0)
    made.vcpu, made.timeout_s, made._slowest_s = vcpu, 1.0, 0.0  # type: ignore[assignment]
    times = iter((5.0, 5.0 + took))
    monkeypatch.setattr("kvmtest.checks.stage.time", SimpleNamespace(monotonic=lambda: next(times)))
    made.run()
    vcpu.needs = needs
    vcpu.given.clear()
    return made, vcpu


@pytest.mark.parametrize(("took", "listens"), [(0.0001, 0.1), (0.004, 0.2), (0.3, 1.0)])
def test_silence_takes_as_long_as_the_guests_own_pace_asks_for(
    took: float, listens: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, vcpu = _stage(monkeypatch, took, 100)
    assert made.listen() is None
    assert vcpu.given == [pytest.approx(listens)]


@pytest.mark.parametrize("took", [0.0001, 0.004, 0.02])
def test_an_exit_that_takes_forty_times_as_long_is_seen(took: float, monkeypatch: pytest.MonkeyPatch) -> None:
    made, _ = _stage(monkeypatch, took, 40 * took)
    assert made.listen() is not None


def test_without_an_exit_to_go_by_the_whole_limit_is_waited_for() -> None:
    made, vcpu = Stage.__new__(Stage), _Vcpu(100)
    made.vcpu, made.timeout_s, made._slowest_s = vcpu, 1.0, 0.0  # type: ignore[assignment]
    assert made.listen() is None
    assert vcpu.given == [1.0]
