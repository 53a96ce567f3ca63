# SPDX-License-Identifier: GPL-2.0-only
"""Scenarios in words: every kind of step, condition, trigger, plant, set-up and need has some."""

from __future__ import annotations

import re
from typing import Any, get_args

import pytest

from kvmtest.engine import plan
from kvmtest.scenario import setup_text, text
from kvmtest.scenario import step as s
from kvmtest.scenario.needs import NEEDS
from kvmtest.scenario.setup import SPARSE, Setup
from kvmtest.scenario.triggers import TRIGGERS, events
from kvmtest.state.inside import GUEST_PLANTS
from kvmtest.state.values import APIC_MODES, NEW, PLANTS, SIPI
from kvmtest.uapi.irq import kvm_msi
from kvmtest.uapi.kvm import KVM_CAP_X86_SMM, KVM_EXIT_SHUTDOWN, KVM_NMI, KVM_SIGNAL_MSI

_MSI = s.Call(KVM_SIGNAL_MSI, bytes(kvm_msi(0xFEE01000, 0, 0x500)), "vm", kind="kvm_msi")
#: Steps after the one that loads guests/smm.S, and what is said of the last.
_SAID = [
    ((s.Set((("rip", 0x1234), ("lapic.svr", 0x1FF))),), "Write rip = 0x1234, lapic.svr = 0x1ff (KVM_SET_REGS, KVM_SET_LAPIC)"),
    (
        (s.Set((("mp_state", 3),), 1, check=False),),
        "Write mp_state = KVM_MP_STATE_HALTED of vCPU 1 (KVM_SET_MP_STATE), which is not read back",
    ),
    (
        (s.Set((("pic_master.imr", 0xFF), ("ioapic.redirtbl0", 1)), "vm", check=False),),
        "Write pic_master.imr = 0xff, ioapic.redirtbl0 = 1 of the VM (KVM_SET_IRQCHIP), which is not read back",
    ),
    ((_MSI,), "KVM_SIGNAL_MSI on the VM: address_lo = 0xfee01000, data = 0x500"),
    ((s.Call(KVM_NMI),), "KVM_NMI on the AP"),
    ((s.Send("init"),), "Send INIT to the AP: KVM_SIGNAL_MSI, data 500H"),
    ((s.Send("sipi", vector=0x9F),), "Send SIPI to the AP: KVM_SIGNAL_MSI, data 69FH"),
    ((s.Until(s.Word("READY")),), "Run the AP until it writes to port F4H (READY)"),
    ((s.Start(), s.Until(s.Word("READY"))), "Wait until the AP, which is in KVM_RUN, writes to port F4H (READY)"),
    ((s.Until(s.Is("mp_state", 2)),), "Run the AP until mp_state = KVM_MP_STATE_INIT_RECEIVED"),
    ((s.Start(), s.Until(s.Moves("COUNT"))), "Wait until the guest's word COUNT changes"),
    ((s.Until(s.Is("mp_state", 3), "each", run=False),), "Wait until mp_state = KVM_MP_STATE_HALTED of each target"),
    ((s.Require(s.Changed(0x8008), "why", skip=True),), "Require that guest memory at 8008H is not 0; else skip: why"),
    ((s.SetBits("efer", 0x1000),), "Set the bits 0x1000 of efer (KVM_SET_SREGS)"),
    ((s.Expect(s.Is("events.smi_latched_init", 1)),), "Expect events.smi_latched_init = 1"),
    ((s.Expect(s.Reached("events.nmi_pending", 1, (1, 2), (0, 1, 2), one=True)),),
     "Expect events.nmi_pending = 1 on one of the vCPUs 1, 2, and on no other of vCPUs 0, 1, 2"),
    ((s.Expect(s.Reached("events.nmi_pending", 1, (), (0, 1))),), "Expect events.nmi_pending = 1 on none of vCPUs 0, 1"),
    ((s.Expect(s.Exit(KVM_EXIT_SHUTDOWN)),), "Expect that the AP next exits with KVM_EXIT_SHUTDOWN"),
    ((s.Expect(s.Answer(-22)),), "Expect that KVM refuses it with EINVAL"),
    ((s.Require(s.Is("efer", 0x500, 0x500), "not in 64-bit mode", skip=True),),
     "Require efer = 0x500 in the bits 0x500; else skip: not in 64-bit mode"),
    ((s.Observe(),), "Read the whole table by ioctls"),
    ((s.Send("init"), s.Observe()), "Read the whole table by ioctls; judged by the rules of INIT"),
    ((s.Plant("b", "x2apic"),),
     "Write every item by ioctls, plant b: real mode, just after protected mode; its local APIC is in x2APIC mode"),
]  # fmt: skip


@pytest.mark.parametrize(("steps", "said"), _SAID)
def test_a_step_in_words(steps: tuple[s.Step, ...], said: str) -> None:
    scenario = s.Scenario("init", "msi", "x", (s.Load("smm"), *steps), ())
    assert list(text.lines(scenario))[-1] == said


def test_every_kind_of_step_and_condition_has_words() -> None:
    reported = vars(text.Describer)["step"].dispatcher.registry
    assert not [kind.__name__ for kind in get_args(s.Step) if kind not in reported]
    given: dict[str, Any] = {"word": "COUNT", "item": "cr0", "reason": 8, "value": 0, "error": 22, "items": ("cr0",)}
    given |= {"gpa": 0, "data": b"", "section": "regs", "words": (s.Word("READY"),), "ids": (1,), "of": (0, 1)}
    given |= {"least": 0, "most": 9}
    for kind in get_args(s.Condition):
        given["name"] = "COUNT" if kind is s.Mmio else "READY"
        one = kind(*(given[name] for name in kind._fields if name not in kind._field_defaults))
        assert text.condition(one, "smm")
    with pytest.raises(TypeError):
        text.Describer().step(object())


def test_every_trigger_plant_mode_and_need_has_words() -> None:
    assert {event for trigger in TRIGGERS for event in events(trigger)} <= {*text.EVENTS}
    assert {*TRIGGERS} <= {*text.SENT} and {*APIC_MODES} == {*text.MODES}
    assert {*PLANTS, SIPI, NEW, *GUEST_PLANTS} == {*text.PLANTS}
    assert all(re.fullmatch(rf"{name}: \S.*", setup_text.need(name)) for name in NEEDS)


def test_every_field_of_a_setup_is_reported() -> None:
    other = Setup("none", "amd", 1, True, True, SPARSE, True, ((KVM_CAP_X86_SMM, 1),), (0, 7), "0", False, (0x1234,))
    assert all(new != old for new, old in zip(other, Setup(), strict=True))
    for name, value in other._asdict().items():
        assert setup_text.setup(Setup()._replace(**{name: value})) != setup_text.setup(Setup()), name


def test_every_case_of_the_plan_is_reported_without_an_object_in_it() -> None:
    scenarios = [case.scenario for case in plan.plan() if case.scenario]
    assert scenarios
    for scenario in scenarios:
        reported = list(text.lines(scenario))
        assert len(reported) == len(scenario.steps)
        assert not [line for line in reported if re.search(r"\w+\(\w+=|None|<|0x[0-9a-f]{40}", line)]


def test_what_a_word_means_is_said_without_the_place_of_its_value() -> None:
    said = text.condition(s.Word("EXIT", 3, "reason {}"), "vmx")
    assert "reason" in said and "{" not in said
