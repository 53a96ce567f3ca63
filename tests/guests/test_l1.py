# SPDX-License-Identifier: GPL-2.0-only
"""The hypervisor guests on this host's KVM, as far as they need no SVM."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from kvmtest.checks import Stopped, Subject
from kvmtest.checks.l1 import Hypervisor
from kvmtest.engine.machine import Machines
from kvmtest.engine.plan import Setup
from kvmtest.guests import l1, svm
from kvmtest.triggers import msi

UD = 6


@pytest.fixture
def subject(machines: Machines) -> Callable[[str], Subject]:
    def make(target: str) -> Subject:
        return Subject(machines.kept(Setup("full", "amd")).target(target).vcpu)

    return make


@pytest.mark.parametrize("target", ["bsp", "ap"])
def test_it_runs_in_64_bit_mode_and_says_where_init_and_sipi_lead(target: str, subject: Callable[[str], Subject]) -> None:
    vcpu = subject(target).vcpu
    stage = Hypervisor(subject(target), svm, svm.TOPIC_SPIN)
    stage.enter()
    assert stage.next() == (svm.PORT_READY, 0)
    vcpu.complete_io()
    assert vcpu.get_sregs().cs.l
    msi.init(vcpu)
    if target == "ap":
        vcpu.get_mp_state()
        msi.sipi(vcpu, l1.CODE >> 12)
    port, value = stage.next()
    assert (port, value) == ((l1.PORT_SIPI, l1.CODE >> 4) if target == "ap" else (l1.PORT_RESET, value))


def test_an_exception_says_its_vector(subject: Callable[[str], Subject]) -> None:
    """CLGI without EFER.SVME."""
    stage = Hypervisor(subject("bsp"), svm, svm.TOPIC_GIF)
    stage.enter()
    with pytest.raises(Stopped, match=f"exception {UD}, error code or RIP"):
        stage.next()
