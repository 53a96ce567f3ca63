# SPDX-License-Identifier: GPL-2.0-only
"""Memory that KVM writes, on the real /dev/kvm: where nothing ends it, each page shows as written, and its MSR as kept."""

from __future__ import annotations

import pytest

from kvmtest.engine import plan
from kvmtest.engine.machine import Machines
from kvmtest.model.record import Result
from kvmtest.model.verdict import Verdict
from kvmtest.scenario import step as s
from kvmtest.scenario.catalogue import SCENARIOS
from kvmtest.scenario.catalogue.writing import ENABLE
from tests.cases import ran

RESETS = [one for name, one in SCENARIOS.items() if name.startswith("reset.vmm-reset/") and one.needs and "halted" not in name]


def _shown(scenario: s.Scenario, machines: Machines) -> list[Result]:
    (case,) = plan.of_file(scenario)
    results = ran(case, machines)
    if {result.verdict for result in results} == {Verdict.SKIP}:
        pytest.skip(results[0].reason)
    return results


def _without(scenario: s.Scenario, *items: str) -> s.Scenario:
    """``scenario`` whose VMM leaves the MSRs ``items`` as they are."""
    event = next(number for number, step in enumerate(scenario.steps) if isinstance(step, s.Event))
    disables = scenario.steps[event + 1]
    assert isinstance(disables, s.Set)
    left = s.Set(tuple(pair for pair in disables.items if pair[0] not in items))
    return scenario._replace(steps=(*scenario.steps[: event + 1], left, *scenario.steps[event + 2 :]))


@pytest.mark.parametrize("scenario", RESETS, ids=[one.sequence for one in RESETS])
def test_memory_is_left_alone_once_it_is_disabled(machines: Machines, scenario: s.Scenario) -> None:
    assert [result.verdict for result in _shown(scenario, machines)] == [Verdict.PASS]


@pytest.mark.parametrize(
    ("sequence", "item", "first"),
    [
        ("written-pages", "msr.kvm_steal_time", 0x8000),
        ("written-pages", "msr.kvm_system_time_new", 0x8040),
        ("eoi-by-memory", "msr.kvm_pv_eoi_en", 0x8000),
        ("hyperv-synic", "msr.hv_stimer1_config", 0x9300),
        ("hyperv-reference-tsc", "msr.hv_reference_tsc", 0x9000),
        ("hyperv-vp-assist", "msr.hv_vp_assist_page", 0x9000),
    ],
)
def test_an_msr_that_is_forgotten_shows_in_its_memory(machines: Machines, sequence: str, item: str, first: int) -> None:
    (result,) = _shown(_without(SCENARIOS[f"reset.vmm-reset/{sequence}"], item), machines)
    assert (result.item, result.verdict) == ("memory", Verdict.FAIL)
    said, _, at = (result.observed or "").rpartition(" ")
    assert "other bytes, the first at" in said and first <= int(at, 16) < first + 0x40


def test_msrs_that_a_kvm_keeps_over_init_show(machines: Machines) -> None:
    scenario = SCENARIOS["init.msi/written-pages"]
    at = next(number for number, step in enumerate(scenario.steps) if isinstance(step, s.Settle))
    enables = next(step for step in scenario.steps if isinstance(step, s.Set))
    # The VMM writes again what KVM has cleared.
    kept = scenario._replace(steps=(*scenario.steps[: at + 1], enables, *scenario.steps[at + 1 :]))
    failing = {result.item for result in _shown(kept, machines) if result.verdict is Verdict.FAIL}
    assert {"memory", *(item for item, value in enables.items if value & ENABLE)} <= failing
