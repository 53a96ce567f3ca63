# SPDX-License-Identifier: GPL-2.0-only
"""Checks of GIF: a vCPU that takes INIT while it is clear, or not at once when it is set, fails."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from kvmtest.checks import CHECKS, Stopped, Untestable, gif
from kvmtest.checks.svm import LEFT, TURNS
from kvmtest.guests import svm
from kvmtest.model.record import Result
from tests.cases import judged_check
from tests.checks.scripted import GIF, TIMEOUT, Script, Step, init, start, subject, word

IDS = [check.id for check in gif.CHECKS]


def judged(id: str, vcpu: Script) -> Result:
    return judged_check(CHECKS[id], CHECKS[id].observe(subject(vcpu)))


def _at_once(vcpu: Script) -> None:
    if vcpu.events.smi.latched_init:
        init(vcpu)
    start(vcpu)


def _accept(vcpu: Script) -> None:
    if vcpu.flags & GIF:
        _at_once(vcpu)
    else:
        vcpu.sipi = None


def _keeps_sipi(vcpu: Script) -> None:
    if vcpu.flags & GIF:
        _at_once(vcpu)


def _leaves_gif(vcpu: Script) -> None:
    pending = vcpu.events.smi.latched_init
    _accept(vcpu)
    if pending:
        vcpu.flags, vcpu.sregs.efer = 0, svm.EFER_SVME


@pytest.mark.parametrize(
    ("id", "accept", "observed"),
    [
        ("init.gif-clear.host.latched", _accept, gif.HELD),
        ("init.gif-clear.host.latched", _at_once, "not pending, INIT_RECEIVED f000:fff0"),
        ("init.gif-clear.host.taken-after", _accept, f"{gif.TAKEN}, {LEFT}"),
        ("init.gif-clear.host.taken-after", _leaves_gif, f"{gif.TAKEN}, not in guest mode, GIF clear, EFER 0x1000"),
        ("sipi.gif-clear.host.dropped", _accept, gif.TAKEN),
        ("sipi.gif-clear.host.dropped", _keeps_sipi, "RUNNABLE 1000:0000"),
    ],
)
def test_by_ioctl(id: str, accept: Callable[[Script], None], observed: str) -> None:
    result = judged(id, Script(accept=accept, bsp=False))
    assert result.observed == observed
    assert result.verdict == ("pass" if observed == CHECKS[id].expected else "fail")


@pytest.mark.parametrize(
    ("id", "script", "observed"),
    [
        ("none.mp-state.host.init-received-with-gif-clear", {"refuses": ["set_mp_state"]}, "EINVAL"),
        ("none.mp-state.host.init-received-with-gif-clear", {"refuses": ["run"]}, "taken, KVM_RUN: EINVAL"),
        ("none.nested-state.host.gif-clear-while-init-received", {"refuses": ["set_nested_state"]}, "EINVAL"),
        ("none.nested-state.host.gif-clear-while-init-received", {}, "taken, KVM_RUN: waits"),
        ("none.nested-state.host.gif-clear-while-init-received", {"refuses": ["run"]}, "taken, KVM_RUN: EINVAL"),
        ("init.gif-clear.host.without-svme", {}, "GIF clear; KVM_SET_NESTED_STATE: taken, RUNNABLE 0000:1234"),
    ],
)
def test_what_kvm_answers_is_recorded(id: str, script: dict[str, list[str]], observed: str) -> None:
    result = judged(id, Script([TIMEOUT], accept=_accept, bsp=False, **script))
    assert (result.verdict, result.observed) == ("info", observed)


READY = word(svm.PORT_READY)
ENDED = word(svm.PORT_VALUE, TURNS, at_540=TURNS)
LATE = word(svm.PORT_LEFT, 2 * TURNS, at_540=2 * TURNS)
RESET = word(svm.PORT_RESET, do=init)


@pytest.mark.parametrize(
    ("name", "steps", "observed"),
    [
        ("latched", [ENDED], f"{TURNS} turns, INIT pending"),
        ("latched", [RESET], "INIT, INIT not pending"),
        ("taken-at-stgi", [ENDED, RESET], "INIT before the next instruction"),
        ("taken-at-stgi", [ENDED, word(svm.PORT_RESET, at_540=TURNS + 5)], "INIT 5 turns behind STGI"),
        ("taken-at-stgi", [ENDED, LATE, RESET], f"no INIT within {TURNS} turns behind STGI"),
        ("taken-at-stgi", [ENDED, TIMEOUT, RESET], f"no INIT within {TURNS} turns behind STGI"),
        ("intercepted-at-vmrun", [word(svm.PORT_EXIT, 0x63)], "#VMEXIT(63h)"),
        ("intercepted-at-vmrun", [word(svm.PORT_EXIT, 0x60)], "#VMEXIT(60h)"),
        ("intercepted-at-vmrun", [word(svm.PORT_NESTED)], "the nested guest goes on"),
        ("taken-at-vmrun", [RESET], "INIT"),
        ("taken-at-vmrun", [word(svm.PORT_NESTED)], "the nested guest goes on"),
        ("taken-at-vmrun", [TIMEOUT], "no exit, INIT pending"),
    ],
)
def test_by_guest_code(name: str, steps: list[Step], observed: str) -> None:
    id = f"init.gif-clear.guest.{name}"
    result = judged(id, Script([READY, *steps]))
    assert (result.observed, result.verdict) == (observed, "pass" if observed == CHECKS[id].expected else "fail")


def test_a_late_init_says_when_it_came() -> None:
    result = judged("init.gif-clear.guest.taken-at-stgi", Script([READY, ENDED, LATE, RESET]))
    assert "next KVM_RUN, behind an OUT: INIT" in result.reason


@pytest.mark.parametrize("id", IDS)
def test_a_kvm_without_svm_is_no_pass(id: str) -> None:
    with pytest.raises(Untestable, match="no SVM"):
        CHECKS[id].observe(subject(Script(has=False)))


def test_what_does_not_come_to_be_is_no_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """GIF that stays set; an exception where the loop's end was to come."""
    monkeypatch.setattr(Script, "set_nested_state", lambda vcpu, state: None)
    with pytest.raises(Stopped, match="shows it set"):
        CHECKS["init.gif-clear.host.latched"].observe(subject(Script()))
    with pytest.raises(Stopped, match="exception 6"):
        CHECKS["init.gif-clear.guest.taken-at-stgi"].observe(subject(Script([READY, word(svm.PORT_FAULT, 6 << 24)])))


@pytest.mark.parametrize("id", [check.id for check in gif.CHECKS if check.view == "host"])
def test_the_vcpu_is_given_back_with_gif_set_and_nothing_pending(id: str) -> None:
    vcpu = Script([TIMEOUT], accept=_accept, bsp=False)
    CHECKS[id].observe(subject(vcpu))
    assert (vcpu.flags, vcpu.sregs.efer & svm.EFER_SVME, vcpu.mp_state) == (GIF, 0, 0)
    assert not vcpu.events.smi.latched_init
