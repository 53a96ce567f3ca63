# SPDX-License-Identifier: GPL-2.0-only
"""The hypervisor guests on this host's KVM, as far as they need no SVM."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from kvmtest.engine.machine import Machines
from kvmtest.engine.plan import Setup
from kvmtest.engine.runner import play
from kvmtest.guests import svm
from kvmtest.judge.evidence import Played
from kvmtest.scenario import step as s
from kvmtest.scenario.catalogue.common import SIPI_VECTOR
from kvmtest.scenario.hypervisor import enter
from kvmtest.scenario.lower import lower
from kvmtest.scenario.program import DEFAULT_ROUNDS
from kvmtest.state.plant import Plant

UD = 6
READY = s.Until(s.Word("READY"))


class _Bound:
    stress_rounds = DEFAULT_ROUNDS

    def __init__(self, target: int) -> None:
        self.target, self.other, self.each = target, 1 - target, (target,)

    def plant(self, who: int, name: str, apic_mode: str) -> Plant:
        raise NotImplementedError


@pytest.fixture
def played(machines: Machines) -> Callable[..., Played]:
    def made(target: str, topic: str, *steps: s.Step) -> Played:
        machine = machines.kept(Setup("full", "amd"))
        begin = enter("svm", (("TOPIC", topic),))
        scenario = s.Scenario("none", "enter", "", (*begin, *steps), ("a test",), target)
        return play(lower(scenario, _Bound(machine.target(target).vcpu.id)), machine, 1.0)

    return made


@pytest.mark.parametrize("target", ["bsp", "ap"])
def test_it_runs_in_64_bit_mode_and_says_where_init_and_sipi_lead(target: str, played: Callable[..., Played]) -> None:
    sipi = (s.Settle(), s.Send("sipi", vector=SIPI_VECTOR), s.Until(s.Word("SIPI", SIPI_VECTOR << 8)))
    restart = sipi if target == "ap" else (s.Until(s.Word("RESET")),)
    long = s.Require(s.Is("cs.l", 1), "the vCPU is not in 64-bit mode")
    assert played(target, "TOPIC_SPIN", READY, s.Complete(), long, s.Send("init"), *restart).end is None


def test_an_exception_says_its_vector(played: Callable[..., Played]) -> None:
    """CLGI without EFER.SVME."""
    seen = played("bsp", "TOPIC_GIF", READY)
    _, said = seen.evidence[-1]
    assert seen.end and (said.number, said.value >> 24) == (svm.PORT_FAULT, UD)
