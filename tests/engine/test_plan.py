# SPDX-License-Identifier: GPL-2.0-only
"""The plan: stable names, selection, and plants that show every bit both ways."""

from __future__ import annotations

import re

import pytest

from kvmtest import schemas
from kvmtest.engine import plan
from kvmtest.model.select import SelectorError, takes
from kvmtest.state.values import PLANTS, values

ID = re.compile(r"^[a-z0-9-]+\.[a-z0-9-]+\.[a-z]+\.[a-z0-9_.-]+$")


def test_case_names_are_unique_and_ids_have_the_contract_form() -> None:
    cases = plan.plan()
    names = [(case.name, case.view) for case in cases]
    assert len(set(names)) == len(names)
    # One name is one set of parameters, in whichever view.
    params = {(case.name, *sorted(case.params.items())) for case in cases}
    assert len(params) == len({case.name for case in cases})
    assert all(ID.match(name) for name in plan.ids(cases))


def test_the_plan_covers_every_way_in() -> None:
    cases = plan.plan()
    resets = {(c.setup.irqchip, c.setup.vendor, c.target) for c in cases if c.event == "reset" and c.view == "host"}
    assert len(resets) == 3 * 3 * 2
    assert {c.setup.boot_id for c in cases} == {0, 1}
    inits = {(c.trigger, c.target, c.apic_mode, c.setup.vendor, c.plant) for c in cases if c.event == "init"}
    for trigger in ("latched", "msi"):
        for mode in ("xapic", "x2apic"):
            assert sum(i[0] == trigger and i[2] == mode for i in inits) >= 2 * 2 * 3
    assert {c.vector for c in cases if c.event == "sipi"} >= {0x00, 0x01, 0x9F, 0xFF}


def test_selectors_are_globs_or_prefixes() -> None:
    cases = plan.plan()
    assert {c.event for c in plan.select(cases, ("init.msi.guest.cr3",))} == {"init"}
    assert {c.event for c in plan.select(cases, ("reset", "sipi.msi.host"))} == {"reset", "sipi"}
    assert takes(("init.*.cr?",), "init.msi.host.cr3")
    assert not takes(("init.*.cr?",), "init.msi.host.efer")
    assert plan.select(cases, ()) == cases


def test_a_selector_takes_only_the_cases_that_can_match() -> None:
    cases = plan.plan()
    assert {c.sequence for c in plan.select(cases, ("sipi.icr-x2apic.host.lost",))} == {"stress"}
    assert {c.sequence for c in plan.select(cases, ("reset.create.host.msr.vmx_misc/*unquirked",))} == {"feature-msrs-unquirked"}


@pytest.mark.parametrize(
    "selector",
    ["init", "init.ms*", "i?it.msi.guest", "[i]nit.msi.host.cr3", "*.cr3", "none.mp-state.host.cr*", "sipi.msi.guest.rip"],
)
def test_a_selector_takes_the_cases_of_every_id_that_it_matches(selector: str) -> None:
    cases = plan.plan()
    names = {look for case in cases for look in plan.looks(case)}
    matching = {key for key in names if any(takes((selector,), f"{key[0]}.{name}") for name in key[1])}
    expected = [c for c in cases if any(look in matching for look in plan.looks(c))]
    assert plan.select(cases, (selector,)) == expected


def test_a_case_of_the_full_plan_can_be_selected_by_what_reports_call_it() -> None:
    names = {case.name for case in plan.plan()}
    full = plan.plan(full=True)
    assert names < {case.name for case in full} and plan.chosen((), full=True) == full
    alone = next(case for case in full if case.name not in names)
    assert plan.chosen((f"{alone.prefix}.cr3/{alone.words}",)) == [alone]
    assert plan.chosen(("sipi.*/*stress", alone.name)) == [*plan.chosen(("sipi.*/*stress",)), alone]
    # A selector that matches something in the plan selects nothing else.
    assert names.issuperset(case.name for case in plan.chosen(("init.gsi-msi",)))


def test_a_selector_that_matches_nothing_is_named() -> None:
    with pytest.raises(SelectorError, match="'init.msi.host.cr9'"):
        plan.select(plan.plan(), ("init.msi.host.cr3", "init.msi.host.cr9"))


def test_plants_show_every_bit_of_a_plain_register_as_0_and_as_1() -> None:
    a, b = values("a"), values("b")
    for item, size in [("rax", 64), ("r15", 64), ("dr0", 64), ("xmm3", 128), ("st7", 80), ("k1", 64), ("zmm31", 512)]:
        assert a[item] ^ b[item] == (1 << size) - 1, item


def test_plants_have_the_three_legal_cd_nw_pairs() -> None:
    assert {(values(p)["cr0"] >> 29 & 3) for p in PLANTS} == {0b00, 0b10, 0b11}


def test_ids_are_those_of_the_schema() -> None:
    defs = schemas.load("results")["$defs"]
    for name in plan.ids(plan.plan()):
        event, trigger, view, item = name.split(".", 3)
        assert event in defs["event"]["enum"] and view in defs["view"]["enum"]
        assert re.search(defs["trigger"]["pattern"], trigger) and re.search(defs["record"]["properties"]["item"]["pattern"], item)
