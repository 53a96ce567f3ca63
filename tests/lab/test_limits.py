# SPDX-License-Identifier: GPL-2.0-only
"""A guest's limits count its emulator's CPU time: on a busy machine wall time means nothing."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from kvmtest.lab.limits import Died, Limits, Spent
from kvmtest.lab.start import Cpu, Emulator


class _Emulator(Emulator):
    boot_s, silence_s, case_s = 100.0, 50.0, 200.0


class _Guest:
    """Limits on a process whose times are made up."""

    def __init__(self) -> None:
        self.spent = Spent(1.0, 0.0, 0.0)
        self.dying = ""
        self.limits = Limits(_Emulator("svm", Cpu(), ""), lambda: self.spent)

    def goes_on(self, cpu: float = 0.0, queued: float = 0.0, asleep: float = 0.0) -> str:
        """Let time pass; what is said of it."""
        before = self.spent
        self.spent = Spent(before.cpu_s + cpu, before.wall_s + cpu + queued + asleep, before.queued_s + queued)
        try:
            self.limits.check("the place", self.dying)
        except Died as died:
            return str(died)
        return ""


@pytest.fixture
def guest(monkeypatch: pytest.MonkeyPatch) -> _Guest:
    """A guest that does not boot yet."""
    monkeypatch.setattr("kvmtest.lab.limits._EVERY_S", float("-inf"))
    return _Guest()


def test_an_emulator_that_waits_for_a_cpu_is_never_called_hung(guest: _Guest) -> None:
    for up in (False, True):
        if up:
            guest.limits.entered()
        assert not guest.goes_on(cpu=49, queued=1e6, asleep=10)


def test_one_that_tries_what_may_hang_is_not_waited_for_as_long(guest: _Guest) -> None:
    guest.limits = Limits(_Emulator("svm", Cpu(), ""), lambda: guest.spent, short=True)
    assert not guest.goes_on(cpu=99)
    guest.limits.entered()
    assert not guest.goes_on() and not guest.goes_on(cpu=12) and "no sign of life for 13 s" in guest.goes_on(cpu=1)


@pytest.mark.parametrize(("up", "limit"), [(False, 100), (True, 50)])
def test_one_that_runs_and_says_nothing_is(up: bool, limit: int, guest: _Guest) -> None:
    if up:
        guest.limits.entered()
        assert not guest.goes_on()
    assert not guest.goes_on(cpu=limit - 1, queued=3)
    assert guest.goes_on(cpu=2) == f"it hangs: no sign of life for {limit + 1} s of CPU time ({limit + 4} s of wall time)"


def test_one_that_sleeps_is_after_a_long_time(guest: _Guest) -> None:
    assert not guest.goes_on(asleep=599)
    assert guest.goes_on(cpu=1, asleep=2).startswith("it hangs: no sign of life for 601 s asleep and 1 s of CPU time")


def test_a_sign_of_life_lengthens_silence_and_not_what_goes_on(guest: _Guest) -> None:
    guest.limits.entered()
    said = ""
    for _ in range(5):
        guest.limits.heard()
        assert not said
        said = guest.goes_on(cpu=49)
    assert not said and not guest.goes_on(cpu=0)
    guest.limits.heard()
    assert "the place takes longer than 245 s of CPU time" in guest.goes_on(cpu=49)


def test_a_sign_of_life_lengthens_no_boot(guest: _Guest) -> None:
    for _ in range(2):
        guest.limits.heard()
        assert not guest.goes_on(cpu=49)
    guest.limits.heard()
    assert "no sign of life for 102 s of CPU time" in guest.goes_on(cpu=4)


def test_a_dying_kernel_has_its_last_words_and_no_more(guest: _Guest) -> None:
    guest.limits.entered()
    guest.dying = "its kernel oopsed"
    assert not guest.goes_on()
    assert not guest.goes_on(cpu=2.9, queued=60)
    # It was another thread that died.
    guest.dying = ""
    assert not guest.goes_on(cpu=5)
    guest.dying = "its kernel panicked"
    assert not guest.goes_on(asleep=9)
    assert guest.goes_on(asleep=3.1) == "its kernel panicked"


def test_each_step_has_the_limit_of_its_own(guest: _Guest) -> None:
    for _ in range(20):
        guest.limits.entered()
        assert not guest.goes_on(cpu=40)


def test_a_real_process_is_looked_at() -> None:
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as busy:
        start = Spent.by(busy.pid)
        while Spent.by(busy.pid).since(start).cpu_s < 0.05:
            time.sleep(0.01)
        seen = Spent.by(busy.pid).since(start)
        busy.kill()
    assert 0 <= seen.queued_s <= seen.wall_s and seen.own_s + 0.05 >= seen.cpu_s


def test_a_process_that_is_gone_spends_nothing() -> None:
    assert Spent.by(2**30)[::2] == (0.0, 0.0)
