# SPDX-License-Identifier: GPL-2.0-only
"""Checks of SMM: a vCPU that takes INIT there, loses it, or starts by a SIPI fails."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from kvmtest.checks import CHECKS, Stopped, Untestable, smm
from kvmtest.guests import smm as numbers
from kvmtest.model.record import Result
from tests.cases import judged_check
from tests.checks.scripted import SHUTDOWN, TIMEOUT, Script, Step, init, start, subject, word

IDS = [check.id for check in smm.CHECKS]
TURNS = smm._TURNS


def judged(id: str, vcpu: Script, backend: str = "svm") -> Result:
    return judged_check(CHECKS[id], CHECKS[id].observe(subject(vcpu, backend)))


def _accept(vcpu: Script, latches: bool = True) -> None:
    """Takes what is pending; ``latches``: not in SMM, where a SIPI is dropped."""
    if latches and vcpu.events.smi.smm:
        vcpu.sipi = None
        return
    if vcpu.events.smi.latched_init:
        init(vcpu)
    start(vcpu)


def _at_once(vcpu: Script) -> None:
    _accept(vcpu, latches=False)


def _keeps_sipi(vcpu: Script) -> None:
    if not vcpu.events.smi.smm:
        _at_once(vcpu)


def _loses(vcpu: Script) -> None:
    if vcpu.events.smi.smm:
        vcpu.events.smi.latched_init = 0
    _accept(vcpu)


@pytest.mark.parametrize(
    ("id", "accept", "observed"),
    [
        ("init.smm.host.latched", _accept, smm.HELD),
        ("init.smm.host.latched", _at_once, "not pending, INIT_RECEIVED f000:fff0"),
        ("init.smm.host.latched", _loses, "not pending, RUNNABLE, all as it was"),
        ("init.smm.host.taken-after", _accept, smm.TAKEN),
        ("init.smm.host.taken-after", _loses, "RUNNABLE 0000:1234"),
        ("sipi.smm.host.dropped", _accept, smm.TAKEN),
        ("sipi.smm.host.dropped", _keeps_sipi, "RUNNABLE 1000:0000"),
    ],
)
def test_by_ioctl(id: str, accept: Callable[[Script], None], observed: str) -> None:
    vcpu = Script(accept=accept, bsp=False)
    result = judged(id, vcpu)
    assert result.observed == observed
    assert result.verdict == ("pass" if observed == CHECKS[id].expected else "fail")
    assert not vcpu.events.smi.smm and not vcpu.mp_state


@pytest.mark.parametrize(
    ("id", "refuses", "observed"),
    [
        ("none.mp-state.host.init-received-in-smm", ["set_mp_state"], "EINVAL"),
        ("none.mp-state.host.init-received-in-smm", ["run"], "taken, KVM_RUN: EINVAL"),
        ("none.mp-state.host.init-received-in-smm", [], "taken, KVM_RUN: waits"),
        ("none.vcpu-events.host.smm-while-init-received", ["set_vcpu_events"], "EINVAL"),
        ("none.vcpu-events.host.smm-while-init-received", ["run"], "taken, KVM_RUN: EINVAL"),
        ("none.vcpu-events.host.smi-while-init-received", [], "taken, KVM_RUN: waits"),
    ],
)
def test_what_kvm_answers_is_recorded(id: str, refuses: list[str], observed: str) -> None:
    result = judged(id, Script([TIMEOUT], refuses=refuses, bsp=False))
    assert (result.verdict, result.observed) == ("info", observed)


def _smm(vcpu: Script) -> None:
    vcpu.events.smi.smm = 1


def _stays_in_smm(vcpu: Script) -> None:
    init(vcpu)
    vcpu.events.smi.smm = 1


BOOT = [word(numbers.PORT_RESET), word(numbers.PORT_READY), word(numbers.PORT_SMI, do=_smm)]
LOOP = word(numbers.PORT_VALUE, at_38808=TURNS)
LEFT, RESET = word(numbers.PORT_LEFT), word(numbers.PORT_RESET, do=init)
GOES_ON = "the handler goes on, INIT pending"


@pytest.mark.parametrize(
    ("name", "steps", "observed"),
    [
        ("latched", [LOOP], GOES_ON),
        ("latched", [RESET], "INIT in the handler"),
        ("latched", [word(numbers.PORT_VALUE, at_38808=3)], "the handler goes on after 3 turns"),
        ("latched", [word(numbers.PORT_VALUE, do=lambda v: setattr(v.events.smi, "latched_init", 0), at_38808=TURNS)],
         "the handler goes on, INIT not pending"),
        ("after-rsm", [LOOP, RESET], "INIT behind RSM, out of SMM"),
        ("after-rsm", [LOOP, LEFT], "the interrupted code goes on"),
        ("after-rsm", [LOOP, word(numbers.PORT_RESET, do=_stays_in_smm)], "INIT behind RSM, still in SMM"),
        ("after-rsm", [RESET], "INIT in the handler"),
        ("after-rsm-by-ipi", [LOOP, RESET], "INIT behind RSM, out of SMM"),
    ],
)  # fmt: skip
def test_with_a_handler(name: str, steps: list[Step], observed: str) -> None:
    id = f"init.smm.guest.{name}"
    result = judged(id, Script([*BOOT, *steps]))
    assert (result.observed, result.verdict) == (observed, "pass" if observed == CHECKS[id].expected else "fail")


def test_a_sipi_that_starts_a_vcpu_out_of_smm_fails() -> None:
    """It runs at once, or waits for another SIPI."""
    id = "sipi.smm.guest.dropped"
    result = judged(id, Script([*BOOT, LOOP, word(numbers.PORT_SIPI)]))
    assert result.verdict == "fail" and str(result.observed).startswith("runs: KVM_EXIT_IO")

    def behind_rsm(vcpu: Script) -> None:
        vcpu.events.smi.smm = 0
        _accept(vcpu)

    assert judged(id, Script([*BOOT, LOOP, TIMEOUT, word(numbers.PORT_SIPI)], accept=behind_rsm, bsp=False)).verdict == "fail"

    def drops(vcpu: Script) -> None:
        vcpu.sipi = None
        behind_rsm(vcpu)

    assert judged(id, Script([*BOOT, LOOP, TIMEOUT, word(numbers.PORT_SIPI)], accept=drops, bsp=False)).verdict == "pass"


@pytest.mark.parametrize(
    ("do", "backend", "observed", "verdict"),
    [
        (init, "svm", "not in SMM, RUNNABLE f000:fff0", "pass"),
        (_stays_in_smm, "svm", "in SMM, RUNNABLE f000:fff0", "fail"),
        (None, "vmx", "in SMM, RUNNABLE 0000:0000", "info"),
    ],
)
def test_a_shutdown(do: Callable[[Script], None] | None, backend: str, observed: str, verdict: str) -> None:
    result = judged("shutdown.smm.guest.leaves-smm", Script([*BOOT, LOOP, SHUTDOWN(do)]), backend)
    assert (result.observed, result.verdict) == (observed, verdict)


@pytest.mark.parametrize(
    ("step", "observed"),
    [(RESET, "restarted"), (TIMEOUT, "executes nothing, pending"), (SHUTDOWN(), "KVM_EXIT_SHUTDOWN, pending")],
)
def test_what_ends_a_shutdown_is_recorded(step: Step, observed: str) -> None:
    result = judged("init.smm.guest.out-of-shutdown", Script([*BOOT, LOOP, SHUTDOWN(), step]))
    assert (result.observed, result.verdict) == (observed, "info")


@pytest.mark.parametrize("id", IDS)
def test_a_kvm_without_smm_is_no_pass(id: str) -> None:
    with pytest.raises(Untestable, match="no SMM"):
        CHECKS[id].observe(subject(Script(has=False)))


def test_a_guest_that_is_not_in_smm_is_no_pass() -> None:
    with pytest.raises(Stopped, match="shows no SMM"):
        CHECKS["init.smm.guest.latched"].observe(subject(Script([*BOOT[:2], word(numbers.PORT_SMI), LOOP])))
    with pytest.raises(Stopped, match="where port 0xf8 comes next"):
        CHECKS["init.smm.guest.latched"].observe(subject(Script([*BOOT[:2], LEFT])))


def test_the_handler_is_what_the_source_has() -> None:
    handler = numbers.handler()
    assert len(handler) == numbers.HANDLER_SIZE
    assert handler.startswith(bytes((0x66, 0xE7, numbers.PORT_SMI))) and b"\x0f\xaa" in handler
