# SPDX-License-Identifier: GPL-2.0-only
"""The place of a migration in a scenario: where all state can be saved, and saving disturbs nothing that is awaited."""

from __future__ import annotations

import pytest

from kvmtest.engine import plan
from kvmtest.scenario import step as s
from kvmtest.scenario.catalogue import SCENARIOS
from kvmtest.scenario.items import Item, scenario
from kvmtest.scenario.migrated import MIGRATIONS, migrated

MSI = Item("init", "msi", "ap", "xapic", "guest-long")


def _place(item: Item, how: str) -> tuple[s.Step | None, s.Step | None]:
    """The steps around the migration."""
    found = migrated(scenario(item), how)
    assert found
    at = next(number for number, step in enumerate(found.steps) if isinstance(step, s.Migrate))
    return (found.steps[at - 1] if at else None, found.steps[at + 1] if at + 1 < len(found.steps) else None)


@pytest.mark.parametrize("how", MIGRATIONS)
def test_a_plain_case_is_migrated_right_before_or_after_its_event(how: str) -> None:
    before, after = _place(MSI, how)
    assert isinstance(after if how.startswith("before") else before, s.Send)


def test_a_vcpu_in_kvm_run_is_migrated_before_the_event_or_when_it_has_come_out() -> None:
    running = MSI._replace(state="in-loop")
    assert isinstance(_place(running, "before-kvm")[1], s.Send)
    _, after = _place(running, "after-kvm")
    assert isinstance(after, s.Require)


def test_an_answer_that_is_owed_comes_first() -> None:
    reading = MSI._replace(state="in-port-read")
    assert migrated(scenario(reading), "before-kvm") is None
    assert isinstance(_place(reading, "after-kvm")[0], s.Complete)


def test_an_init_that_is_waited_for_is_not_taken_by_saving() -> None:
    before, _ = _place(MSI._replace(state="in-shutdown"), "after-kvm")
    assert isinstance(before, s.Until)
    assert migrated(scenario(MSI._replace(state="in-shutdown")), "before-kvm") is None


def test_an_init_that_is_held_is_migrated() -> None:
    before, after = _place(MSI._replace(state="in-smm", plant="a"), "after-kvm")
    assert isinstance(before, s.Send) and after == s.Expect(s.Is("events.smi_latched_init", 1), "pending")


@pytest.mark.parametrize(("state", "orders"), [("in-svm-l2", 3), ("in-vmx-root", 2), ("in-smm", 4)])
def test_a_vmm_that_cannot_restore_a_state_is_not_asked_to(state: str, orders: int) -> None:
    of = scenario(MSI._replace(state=state, plant="a"))
    assert sum(migrated(of, how) is not None for how in MIGRATIONS) == 2 * orders


def test_nothing_is_migrated_where_answers_are_looked_at_or_nothing_happens() -> None:
    for name, of in SCENARIOS.items():
        for how in ("before-kvm", "after-kvm"):
            found = migrated(of, how)
            for step, following in zip(found.steps, found.steps[1:], strict=False) if found else ():
                if isinstance(step, s.Migrate):
                    assert not isinstance(getattr(following, "condition", None), s.Answer), name
    assert migrated(SCENARIOS["sipi.icr-x2apic/stress"], "after-kvm") is None


def test_the_plan_has_each_state_and_each_trigger_of_a_guest_with_each_moment() -> None:
    cases = [case for case in plan.plan() if case.migrated]
    assert len(plan.plan()) < 1500
    moments = {(case.state, case.migrated.partition("-")[0]) for case in cases if not case.sequence}
    full = {(c.state, c.migrated.partition("-")[0]) for c in plan.plan(full=True) if c.migrated and not c.sequence}
    assert moments == full and {case.migrated for case in cases} == set(MIGRATIONS)
    reported = [case for case in plan.plan(full=True) if case.migrated and case.sequence and case.view == "guest"]
    some = [case for case in cases if case.sequence]
    for pair in (
        lambda case: (case.trigger, case.migrated.partition("-")[0]),
        lambda case: (case.event, case.migrated.partition("-")[0]),
        lambda case: (case.event, case.migrated.partition("-")[2]),
        lambda case: (case.setup.vendor, case.migrated.partition("-")[2]),
    ):
        assert set(map(pair, some)) == set(map(pair, reported))
    assert len(cases) <= 150



def test_a_migrated_case_is_selected_by_its_name() -> None:
    case = next(case for case in plan.plan() if case.migrated)
    assert case.words.endswith(f"migrated-{case.migrated}") and case.params["migrated"] == case.migrated
    assert plan.chosen((case.name,)) == [case]
    assert {one.migrated != "" for one in plan.chosen(("*/*,migrated-after-qemu",))} == {True}
