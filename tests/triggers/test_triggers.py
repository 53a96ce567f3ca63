# SPDX-License-Identifier: GPL-2.0-only
"""Each trigger reaches the vCPU it is for, and no other."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from kvmtest import triggers
from kvmtest.engine import host
from kvmtest.engine.machine import Machine, Machines
from kvmtest.engine.plan import Setup
from kvmtest.kvm import Kvm, Vcpu
from kvmtest.triggers import latched, logical, mp_state, msi
from kvmtest.triggers.error import TriggerError
from kvmtest.x86 import lapic

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
    if trigger.endswith("/logical"):
        # Whoever has a logical id has one that is its own.
        mode = "x2apic" if "x2apic" in trigger else "xapic"
        made.target("bsp").plant("a", mode).write(bsp)
        made.target("ap").plant("b", mode).write(ap)
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


@pytest.fixture
def ap(kvm: Kvm) -> Iterator[Vcpu]:
    machines = Machines(kvm, host.detect())
    yield machines.kept(Setup("full", "intel")).target("ap").vcpu
    machines.close()


def _logical(vcpu: Vcpu, ldr: int, dfr: int) -> int:
    state = vcpu.get_lapic()
    lapic.put(state.regs, "ldr", ldr)
    lapic.put(state.regs, "dfr", dfr)
    vcpu.set_lapic(state)
    return logical.destination(vcpu)


def test_a_logical_destination_is_one_bit_of_the_id(ap: Vcpu) -> None:
    assert _logical(ap, 0xAA000000, 0xFFFFFFFF) == 0x02
    assert _logical(ap, 0xAC000000, 0x0FFFFFFF) == 0xA4
    sregs = ap.get_sregs()
    sregs.apic_base |= 1 << 10
    ap.set_sregs(sregs)
    assert logical.destination(ap) == 1 << 1


@pytest.mark.parametrize(
    ("ldr", "dfr", "says"),
    [(0, 0xFFFFFFFF, "no logical"), (0xA0000000, 0x0FFFFFFF, "no logical"), (0x01000000, 0x7FFFFFFF, "neither")],
)
def test_who_has_no_logical_id_cannot_be_reached(ldr: int, dfr: int, says: str, ap: Vcpu) -> None:
    with pytest.raises(TriggerError, match=says):
        _logical(ap, ldr, dfr)


@pytest.mark.parametrize("trigger", sorted(triggers.SIPI))
def test_sipi_starts_its_target_at_the_vector(trigger: str, ap: Vcpu) -> None:
    msi.init(ap)
    assert ap.get_mp_state() == INIT_RECEIVED
    triggers.SIPI[trigger](ap, 0x9F)
    assert ap.get_mp_state() == RUNNABLE
    assert (ap.get_sregs().cs.selector, ap.get_regs().rip) == (0x9F00, 0)


def test_an_mp_state_that_kvm_does_not_keep_is_an_error(ap: Vcpu, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ap, "set_mp_state", lambda state: None)
    with pytest.raises(TriggerError, match=r"INIT_RECEIVED\) left vcpu 1"):
        mp_state.init_received(ap)
