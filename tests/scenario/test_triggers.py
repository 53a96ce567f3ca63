# SPDX-License-Identifier: GPL-2.0-only
"""Each trigger reaches the vCPU it is for, and no other; one that reaches nobody ends its scenario in an error."""

from __future__ import annotations

import pytest

from kvmtest import guests
from kvmtest.engine.machine import Machine, Machines
from kvmtest.judge.evidence import Played
from kvmtest.scenario import step as s
from kvmtest.scenario import triggers
from kvmtest.scenario.needs import NEEDS
from kvmtest.scenario.setup import Setup
from kvmtest.scenario.states import STATES
from kvmtest.scenario.triggers import TRIGGERS, To
from kvmtest.state.inside import GUEST_PLANTS, PlantRefused
from kvmtest.state.layout import SEGMENTS
from kvmtest.state.values import values
from kvmtest.uapi.kvm import KVM_CAP_X86_SMM
from tests.playing import steps

INIT_RECEIVED, RUNNABLE = 2, 0
INITS = sorted(name for name, one in TRIGGERS.items() if "init" in one.events)
#: Items that show events sent to a vCPU that does not run.
PENDING = {"nmi": ("events.nmi_pending", 1), "smi": ("events.smi_pending", 1), "interrupt": ("lapic.irr2", 1 << 21)}
VECTORS = {"sipi": 0x9F, "interrupt": 0x55}


def _machine(machines: Machines, trigger: str) -> Machine:
    return machines.kept(Setup(TRIGGERS[trigger].irqchip, "intel"))


def _plant(trigger: str) -> str:
    return TRIGGERS[trigger].plants[0] if TRIGGERS[trigger].plants else "a"


def _sent(machine: Machine, trigger: str, event: str, mode: str, *before: s.Step, timeout_s: float = 1.0) -> Played:
    # Whoever has a logical id has one that is its own.
    planted = (s.Plant("b", mode, "other"), s.Plant(_plant(trigger), mode), s.Set((("mp_state", RUNNABLE),)))
    try:
        return steps(machine, *planted, *before, s.Send(event, trigger, vector=VECTORS.get(event, 0)), timeout_s=timeout_s)
    except PlantRefused as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("name", TRIGGERS)
def test_a_trigger_says_what_there_is(name: str) -> None:
    one = TRIGGERS[name]
    assert one.events and one.modes and one.irqchip in ("split", "full")
    assert set(one.needs) <= NEEDS.keys() and set(one.states) <= STATES.keys() and set(one.plants) <= {"a", *GUEST_PLANTS}
    for event in one.events:
        for mode in one.modes:
            for bsp in (True, False):
                sent = one.steps(s.Send(event, name), To(1, 0, bsp, mode, _plant(name)))
                assert sent and all(isinstance(step, tuple) for step in sent)


@pytest.mark.parametrize(("trigger", "mode"), [(name, mode) for name in INITS for mode in TRIGGERS[name].modes])
def test_init_reaches_its_target_only_and_is_taken(trigger: str, mode: str, machines: Machines) -> None:
    machine = _machine(machines, trigger)
    bsp, ap = (machine.target(name).vcpu for name in ("bsp", "ap"))
    seen = _sent(machine, trigger, "init", mode)
    assert seen.end is None, seen.end
    runs = TRIGGERS[trigger].runs
    assert (bsp.get_vcpu_events().smi.latched_init, ap.get_vcpu_events().smi.latched_init) == (0, 0 if runs else 1)
    assert bsp.get_mp_state() != INIT_RECEIVED and ap.get_mp_state() == INIT_RECEIVED
    assert ap.get_vcpu_events().smi.latched_init == 0
    assert (ap.get_regs().rip, ap.get_sregs().cs.base) == (0xFFF0, 0xFFFF0000)


@pytest.mark.parametrize("trigger", [name for name in INITS if not TRIGGERS[name].runs and name != "latched"])
def test_who_has_no_local_apic_on_is_not_reached(trigger: str, machines: Machines) -> None:
    """The target's local APIC is off."""
    off = s.Set((("apic_base", 0xFEE00000),))
    end = _sent(_machine(machines, trigger), trigger, "init", TRIGGERS[trigger].modes[0], off, timeout_s=0.2).end
    assert end and end.verdict == "error"
    assert "no INIT is pending on vcpu 1" in end.why or "reached no vCPU with APIC id 1" in end.why


@pytest.mark.parametrize("bsp", [True, False], ids=["bsp", "ap"])
def test_a_vcpu_that_sends_itself_no_init_is_an_error(bsp: bool, machines: Machines) -> None:
    """A fixed interrupt to itself, in a local APIC that accepts none: it goes on after it."""
    machine = _machine(machines, "self")
    sent = TRIGGERS["self"].steps(s.Send("init", "self"), To(0 if bsp else 1, 1 if bsp else 0, bsp))
    other = tuple(s.Set((("rax", 1 << 14 | 0x55), ("rdx", 0))) if isinstance(one, s.Set) else one for one in sent)
    target = "bsp" if bsp else "ap"
    try:
        end = steps(machine, s.Plant("guest-long"), *other, target=target, timeout_s=0.2).end
    except PlantRefused as error:
        pytest.skip(str(error))
    assert end and end.verdict == "error"
    assert ("did not restart" if bsp else "does not wait for a SIPI") in end.why


@pytest.mark.parametrize("trigger", [name for name, one in TRIGGERS.items() if "sipi" in one.events])
def test_sipi_starts_its_target_at_the_vector(trigger: str, machines: Machines) -> None:
    machine = _machine(machines, trigger)
    seen = _sent(machine, trigger, "sipi", "xapic", s.Send("init"), s.Settle())
    ap = machine.target("ap").vcpu
    assert seen.end is None and ap.get_mp_state() == RUNNABLE
    assert (ap.get_sregs().cs.selector, ap.get_regs().rip) == (0x9F00, 0)


@pytest.mark.parametrize(
    ("trigger", "event"), [(name, event) for name, one in TRIGGERS.items() for event in one.events if event in PENDING]
)
def test_other_events_are_pending_on_their_target_only(trigger: str, event: str, machines: Machines) -> None:
    if event == "smi" and not machines.kvm.check_extension(KVM_CAP_X86_SMM):
        pytest.skip(NEEDS["smm"][0].why)
    machine = _machine(machines, trigger)
    item, value = PENDING[event]
    nothing = s.Set((("events.nmi_pending", 0), ("events.nmi_masked", 0), ("events.nmi_injected", 0)), check=False)
    none_yet = s.Require(s.Is(item, 0, value), "it is there before it was sent")
    seen = _sent(machine, trigger, event, "xapic", nothing, s.Set((("lapic.irr2", 0),), check=False), none_yet)
    assert seen.end is None, seen.end
    states = [target.reader.read().get(target.layout, item) for target in (machine.target("ap"), machine.target("bsp"))]
    planted = values("b").get(item) or 0
    assert states[0] is not None and states[0] & value and states[1] == planted


def test_what_is_no_event_writes_the_activity_state_alone(machines: Machines) -> None:
    machine = _machine(machines, "mp-state")
    seen = _sent(machine, "mp-state", "none", "xapic")
    ap = machine.target("ap")
    assert seen.end is None and ap.vcpu.get_mp_state() == INIT_RECEIVED
    assert ap.reader.read().get(ap.layout, "rbx") == values("a")["rbx"]


def test_a_guest_that_does_not_shut_down_is_an_error(machines: Machines) -> None:
    """It reads a port instead."""
    end = _sent(_machine(machines, "triple-fault"), "triple-fault", "shutdown", "xapic", s.Resume("in")).end
    assert end and end.verdict == "error" and "does not shut down: KVM_EXIT_IO" in end.why


@pytest.mark.parametrize(
    ("code", "late"), [(b"\xeb\xfe", True), (b"\xe6\x10", False), (b"\xf4", True)], ids=["spins", "another port", "halts"]
)
def test_a_sender_that_sends_nothing_is_an_error(
    code: bytes, late: bool, machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = guests.load
    monkeypatch.setattr(guests, "load", lambda name: code.ljust(0x1000, b"\xf4") if name == "sender" else real(name))
    end = _sent(_machine(machines, "icr-xapic"), "icr-xapic", "init", "xapic", timeout_s=0.1).end
    assert end and (end.verdict, end.late) == ("error", late) and "did not write its ICR" in end.why


def test_a_sender_has_each_part_of_a_segment_that_vm_entry_checks() -> None:
    """Other steps may have left a selector of the LDT in TR (SDM vol. 3, Checks on Guest Segment Registers)."""
    written = {item for step in triggers.sender(0, True, 0, 1, "xapic") if isinstance(step, s.Set) for item, _ in step.items}
    parts = ("selector", "base", "limit", "type", "s", "present", "g", "unusable")
    assert {f"{segment}.{part}" for segment in SEGMENTS if segment != "ldt" for part in parts} <= written


def test_a_logical_destination_is_one_bit_of_the_id() -> None:
    planted = values("a")["lapic.ldr"] >> 24
    flat, cluster, x2apic = (triggers._logical_id(To(17, 0, False, mode, "a")) for mode in ("xapic-flat", "xapic", "x2apic"))
    assert flat & planted == flat and flat.bit_count() == 1
    assert cluster & planted == cluster and cluster >> 4 == planted >> 4 and (cluster & 0xF).bit_count() == 1
    assert x2apic == 1 << 16 | 1 << 1
