# SPDX-License-Identifier: GPL-2.0-only
"""`kvmtest explain` shows of items and cases what the tables and the planter have."""

from __future__ import annotations

import re

import pytest

from kvmtest import explain, spec
from kvmtest.engine import plan
from kvmtest.engine.machine import Target
from kvmtest.spec.deviations import DEVIATIONS
from kvmtest.spec.rule import EVENTS, VENDORS
from kvmtest.state.values import PLANTS
from kvmtest.x86 import msr


def said(name: str, field: str) -> str:
    """Return the text of ``field`` in the explanation of ``name``, unwrapped."""
    text = re.sub(r"\n {14}", " ", "\n".join(explain.explain(name)))
    return "\n".join(re.findall(rf"^  {field} +(.*)$", text, re.M))


def test_a_value_that_was_kept_is_said_in_plain_english() -> None:
    assert said("cr3", "deviation").startswith("after INIT, cr3 still holds its planted value, on every backend, before 5.15")
    assert "in the guest where the host shows another value" in said("lapic.ppr", "deviation")
    assert "items still hold their planted values" in said("265e43530cb2", "deviation")
    assert not re.search(r"reads what was planted|what is not an event,", "".join(said(d.item, "deviation") for d in DEVIATIONS))


@pytest.mark.parametrize("plant", PLANTS)
def test_what_is_said_to_be_planted_is_planted(plant: str, targets: dict[str, Target]) -> None:
    made = targets["ap"].plant(plant, "xapic")
    reported = 0
    for item, value in made.asked.items():
        words = explain._planted(item)
        if found := re.search(rf"\b{plant}=(0x[0-9a-f]+|\d+)\b", words):
            reported += 1
            # This CPU's MXCSR_MASK takes bits out.
            assert int(found[1], 0) == value or item == "mxcsr", item
        elif item in ("cr4", "efer"):
            given = [int(bit) for bit in re.search(rf"{plant}: ([\d ]*)", words)[1].split()]  # type: ignore[index]
            needed = {"cr4": 1 << 5, "efer": 0x500}[item] if plant == "a" else 0
            assert not (value & ~needed) & ~sum(1 << bit for bit in given), item
        else:
            assert item in ("apic_base", "xcr0", "mp_state"), f"{item} is planted, and explained as {words!r}"
    assert reported > 200


def test_an_msr_that_kvm_set_sregs_plants_is_said_to_be() -> None:
    assert said("msr.fs_base", "planted") == f"as fs.base: {said('fs.base', 'planted')}"
    assert {known.name for known in msr.MSRS if known.sregs} == {"fs_base", "gs_base", "efer", "apic_base"}
    assert said("msr.kvm_wall_clock", "planted").startswith("never: KVM's paravirtual interface")


def test_the_function_of_kvm_is_named_where_it_is_known_and_else_none() -> None:
    assert "vmx_vcpu_reset() or init_vmcb()" in said("msr.fs_base", "in KVM")
    assert said("cr3", "in KVM") == "kvm_vcpu_reset() in arch/x86/kvm/x86.c"
    assert "kvm_apic_accept_events()" in said("events.smi_latched_init", "in KVM")
    assert not said("msr.pat", "in KVM") and not said("events.triple_fault_pending", "in KVM")


def test_every_rule_has_words_and_no_name_of_a_formula() -> None:
    rules = [(event, entry.rule(event, vendor)) for entry in spec.ENTRIES.values() for event in EVENTS for vendor in VENDORS]
    for event, rule in dict.fromkeys(rules):
        words = explain._said(event, rule)
        assert words and (rule.kind != "formula" or words != rule.value)


#: The last case of each kind and event.
_EACH = {(bool(case.scenario), case.event): case.name for case in plan.plan()}


@pytest.mark.parametrize("name", _EACH.values())
def test_a_case_of_each_kind_is_explained(name: str) -> None:
    lines = list(explain.explain(name))
    assert lines[0] == name and lines[-1].startswith("  run         kvmtest run ")
    scenario = explain.one_case(name).scenario
    steps = [line for line in lines if re.match(r" {2,4}\d+\. ", line)]
    assert len(steps) == (len(scenario.steps) if scenario else 0)
    assert said(name, "kind" if scenario is None else "(?:judged|recorded)")


def test_a_scenario_says_setup_needs_steps_what_is_judged_and_where_it_stands() -> None:
    name = "init.msi/bsp,intel,after-rsm"
    assert said(name, "set-up") == "a VM with KVM's irqchip, 2 vCPUs, Intel's CPUID"
    assert said(name, "needs") == "smm: KVM_CAP_X86_SMM"
    assert "init.msi.guest.pending, in step 11\n" in said(name, "judged") and "init.msi.host.*, in step 14" in said(
        name, "judged"
    )
    assert said(name, "cites").startswith("SDM vol. 3")
    assert "    9. Send INIT to the BSP: KVM_SIGNAL_MSI, data 500H" in list(explain.explain(name))


def test_a_glob_an_id_and_a_case_name_one_case() -> None:
    for name in ("init.msi/*intel,after-rsm", "init.msi.guest.pending/bsp,intel,after-rsm"):
        assert next(explain.explain(name)) == "init.msi/bsp,intel,after-rsm"
    both = list(explain.explain("init.msi.host.cr3/ap,intel,xapic,plant-a"))
    assert both[0] == "cr3" and "init.msi/ap,intel,xapic,plant-a" in both


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("init.msi/*,after-rsm", "'init.msi/*,after-rsm' is 2 cases; name one of them: init.msi/bsp,intel,after-rsm, "),
        ("init.msi/bsp,nobody", "nothing matches 'init.msi/bsp,nobody'"),
        ("init.msi/{a", "'init.msi/{a' has a { without }"),
        ("cr9", "no item, case or listed commit 'cr9'; did you mean r9"),
    ],
)
def test_what_names_no_case_is_one_line(name: str, says: str) -> None:
    with pytest.raises(explain.UnknownName) as error:
        list(explain.explain(name))
    assert str(error.value).startswith(says) and "\n" not in str(error.value)


def test_a_behaviour_names_a_case_that_shows_it() -> None:
    for name in ("init.msi.guest.pending", "pending"):
        assert "init.msi/bsp,intel,after-rsm, and " in said(name, "shown by")
