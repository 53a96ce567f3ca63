# SPDX-License-Identifier: GPL-2.0-only
"""Each trigger reaches the vCPU it is for, and no other."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from kvmtest import triggers
from kvmtest.engine import host
from kvmtest.engine.machine import Machine, Machines
from kvmtest.engine.plan import Setup
from kvmtest.kvm import Kvm
from kvmtest.triggers import latched, msi
from kvmtest.triggers.error import TriggerError

INIT_RECEIVED, RUNNABLE = 2, 0


#: They run the vCPU's own code, and are tested with it.
BY_ITSELF = {"self", "triple-fault"}


@pytest.fixture(params=sorted(triggers.INIT.keys() - BY_ITSELF))
def machine(request: pytest.FixtureRequest, kvm: Kvm) -> Iterator[tuple[str, Machine]]:
    trigger: str = request.param
    machines = Machines(kvm, host.detect())
    yield trigger, machines.kept(Setup("split" if trigger == "split" else "full", "intel"))
    machines.close()


def test_init_is_pending_on_its_target_only_and_taken(machine: tuple[str, Machine]) -> None:
    trigger, made = machine
    bsp, ap = (made.target(name).vcpu for name in ("bsp", "ap"))
    for vcpu in (bsp, ap):
        vcpu.set_mp_state(RUNNABLE)
    triggers.INIT[trigger](ap)
    assert (bsp.get_vcpu_events().smi.latched_init, ap.get_vcpu_events().smi.latched_init) == (0, 1)
    assert (bsp.get_mp_state(), ap.get_mp_state()) == (RUNNABLE, INIT_RECEIVED)
    assert ap.get_vcpu_events().smi.latched_init == 0


def test_waiting_for_an_init_that_nobody_sent_ends(kvm: Kvm) -> None:
    machines = Machines(kvm, host.detect())
    vcpu = machines.kept(Setup("full", "intel")).target("ap").vcpu
    with pytest.raises(TriggerError, match="the test: no INIT is pending on vcpu 1"):
        latched.wait_for(vcpu, "the test", 0.01)
    machines.close()


def test_an_msi_to_nobody_is_known(kvm: Kvm) -> None:
    machines = Machines(kvm, host.detect())
    vcpu = machines.kept(Setup("full", "intel")).target("ap").vcpu
    vcpu.id = 77
    with pytest.raises(TriggerError, match="reached no vCPU with APIC id 77"):
        msi.init(vcpu)
    machines.close()
