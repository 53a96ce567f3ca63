# SPDX-License-Identifier: GPL-2.0-only
"""Writing state back: refusals, boundary values, one section alone, two in either order, and the TSC; each can fail."""

from __future__ import annotations

import errno
from itertools import combinations
from typing import Any

import pytest

from kvmtest.engine.bind import BoundCase
from kvmtest.engine.machine import Machines
from kvmtest.engine.plan import Case, plan
from kvmtest.judge import alone as judge_alone
from kvmtest.judge.cache import Cache
from kvmtest.judge.cases import judge
from kvmtest.judge.evidence import Basis, Ended, Played
from kvmtest.model.host import Host
from kvmtest.model.record import Record
from kvmtest.model.verdict import Verdict
from kvmtest.scenario import check
from kvmtest.scenario import program as p
from kvmtest.scenario import step as s
from kvmtest.scenario.catalogue import SCENARIOS, alone, bounds, refused, restored, tsc
from kvmtest.scenario.covering import covering
from kvmtest.scenario.lower import lower
from kvmtest.scenario.places import fields
from kvmtest.spec.alone import follows
from kvmtest.state.sections import Snapshot
from kvmtest.state.vmm_reset import CONSTRAINTS, SECTIONS
from tests.cases import NOBODY

_ALL = tuple(one for topic in (alone, bounds, refused, restored, tsc) for one in topic.SCENARIOS)
#: One that has the commits which the catalogue lists.
_NEW = NOBODY._replace(kernel="7.2.0")
#: TSC writes that kernels before 6.7 drop, since the value is near to the VM's TSC, and that they accept.
_DROPPED, _TAKEN = -(1 << 29), 1000


def _case(name: str) -> Case:
    return next(case for case in plan() if case.name == name and not case.migrated)


def _bound(machines: Machines, name: str, host: Host = NOBODY) -> tuple[Case, BoundCase]:
    case = _case(name)
    return case, BoundCase(case, machines.kept(case.setup), host)


def _records(case: Case, bases: tuple[Basis, ...], seen: Played, host: Host = NOBODY) -> dict[str, Record]:
    observed = judge(Cache(), case.look(), host, bases, seen)
    return {record.item: record for one in observed for block in one.blocks for record in block.records}


def _last(seen: Played, value: Any) -> Played:
    """``seen`` with another value evidence at last."""
    return seen._replace(evidence=(*seen.evidence[:-1], (seen.evidence[-1][0], value)))


@pytest.mark.parametrize("scenario", _ALL, ids=lambda one: f"{one.trigger}/{one.sequence}")
def test_each_is_a_scenario(scenario: s.Scenario) -> None:
    check.check(scenario)
    assert SCENARIOS[f"{scenario.event}.{scenario.trigger}/{scenario.sequence}"] is scenario


def test_what_is_refused_may_change_nothing_and_names_fields_that_are_there() -> None:
    for row in refused.ROWS:
        assert row.cite and all(item in fields() for item, _ in row.items), row
    for scenario in refused.SCENARIOS:
        wanted = [step.condition for step in scenario.steps if isinstance(step, s.Expect)]
        assert isinstance(wanted[0], s.Answer)
        if scenario.trigger == "set-msrs":
            assert wanted[-1] == s.Same() and set(wanted[:-1]) == {s.Answer(0)}, scenario.sequence
        elif scenario.trigger not in ("set-boot-cpu-id", "create-vcpu"):
            assert wanted == [s.Answer(-errno.EINVAL), s.Same()], scenario.sequence


def test_each_field_has_three_values_that_are_no_larger_than_it() -> None:
    for of in bounds.FIELDS:
        for item, values in of.values.items():
            size = fields()[item][2]
            assert list(values) == sorted(values) and 0 <= values[0] and values[2] < 1 << 8 * size, item


def test_pairs_in_either_order_are_all_that_no_constraint_forbids() -> None:
    forbidden = {frozenset((one.first, one.second)) for one in CONSTRAINTS if one.at_reset}
    wanted = {frozenset(pair) for pair in combinations([one for one in SECTIONS if one != "nested"], 2)} - forbidden
    tried = set()
    for one in alone.SCENARIOS:
        pairs = [step.only for step in one.steps if isinstance(step, s.Plant) and len(step.only) == 2]
        if pairs:
            assert pairs[0] == pairs[1][::-1]
            tried.add(frozenset(pairs[0]))
    assert tried == wanted and frozenset(("sregs", "lapic")) in forbidden


def test_each_section_is_written_alone_out_of_each_plant_and_mode() -> None:
    tried = [one.sequence for one in alone.SCENARIOS if one.sequence.startswith("alone-from-")]
    assert len(tried) < 70 and len(alone.SCENARIOS) < 140
    for plant in ("a", "b", "c"):
        for mode in ("xapic", "x2apic", "disabled", "relocated"):
            assert any(f"from-{plant}-{mode}" in one for one in tried)
    assert covering([(0, 0), (0, 1)], ((0, 1),)) == [(0, 0), (0, 1)]


def test_what_follows_is_not_of_the_section() -> None:
    known = fields()
    for section in SECTIONS:
        for one in follows(section):
            assert one.why and (one.free or known.get(one.item, ("",))[0] != section), one


@pytest.mark.parametrize("values, verdict", [((_TAKEN,), Verdict.PASS), ((_DROPPED,), Verdict.FAIL), ((1 << 50,), Verdict.FAIL)])
def test_a_tsc_that_is_not_taken_fails(machines: Machines, values: tuple[int, ...], verdict: Verdict) -> None:
    case, bound = _bound(machines, "none.set-msrs/ap,intel,tsc-now")
    number = len(case.scenario.steps) - 1 if case.scenario else 0
    ended = Ended(number, "fail", "", False) if verdict is Verdict.FAIL else None
    seen = Played(((number, values[0]),), ended)
    record = _records(case, bound.bases, seen)["msr.tsc"]
    assert record.verdict is verdict


@pytest.mark.parametrize("kernel, verdict", [("6.1.0", Verdict.KNOWN), ("7.2.0", Verdict.FAIL)])
def test_a_dropped_tsc_is_known_of_kernels_before_the_commit(machines: Machines, kernel: str, verdict: Verdict) -> None:
    host = NOBODY._replace(kernel=kernel, backend="svm")
    case, bound = _bound(machines, "none.set-msrs/ap,intel,tsc-first-and-near", host)
    assert case.scenario
    number = len(case.scenario.steps) - 1
    record = _records(case, bound.bases, Played(((number, _DROPPED),), Ended(number, "fail", "", False)), host)["msr.tsc"]
    assert (record.verdict, record.observed) == (verdict, "less than what was written")


@pytest.mark.parametrize("name", ["none.set-sregs/ap,intel,cr0-pg-without-pe", "none.set-debugregs/ap,intel,flags-1"])
def test_what_is_refused_fails_where_it_is_accepted_or_has_an_effect(machines: Machines, name: str) -> None:
    case, bound = _bound(machines, name, _NEW)
    seen = bound.observe()
    good = _records(case, bound.bases, seen, _NEW)
    assert good["refused"].verdict is good["delivered"].verdict is Verdict.PASS
    answered = next(number for number, value in enumerate(seen.evidence) if value[1] == -errno.EINVAL)
    step = seen.evidence[answered][0]
    taken = Played((*seen.evidence[:answered], (step, 0)), Ended(step, "fail", "", False))
    assert _records(case, bound.bases, taken, _NEW)["refused"].verdict is Verdict.FAIL
    other = Played((*seen.evidence[:answered], (step, -errno.EXDEV)), Ended(step, "fail", "", False))
    assert _records(case, bound.bases, other, _NEW)["refused"].observed == "EXDEV"
    after = seen.evidence[-1][1]
    changed = after.put(bound.bases[0].layout, "rbx", 0x77)
    assert _records(case, bound.bases, _last(seen, changed), _NEW)["delivered"].verdict is Verdict.FAIL


@pytest.mark.parametrize(
    "section, item, follow",
    [
        ("regs", "rax", "cr0"), ("sregs", "cr0", "rax"), ("debugregs", "dr0", "cr3"), ("xsave", "mxcsr", "dr7"),
        ("events", "events.nmi_masked", "rip"),
    ],  # fmt: skip
)
def test_one_section_alone_fails_by_each_side(machines: Machines, section: str, item: str, follow: str) -> None:
    trigger = {"events": "vcpu-events"}.get(section, f"set-{section}")
    name = next(c.name for c in plan() if c.trigger == trigger and c.sequence.startswith("alone-from-a-"))
    case, bound = _bound(machines, name)
    seen = bound.observe()
    layout, after = bound.bases[0].layout, seen.evidence[-1][1]
    assert isinstance(after, Snapshot)
    assert _records(case, bound.bases, seen)["delivered"].observed == judge_alone.AS_ASKED
    for one in (item, follow):
        value = after.get(layout, one)
        assert value is not None
        wrong = _records(case, bound.bases, _last(seen, after.put(layout, one, value ^ 1)))["delivered"]
        assert wrong.verdict is Verdict.FAIL and f"{one} = {value ^ 1:#x}" in str(wrong.observed)


def test_what_x2apic_mode_derives_is_judged_in_that_mode(machines: Machines) -> None:
    there = (c for c in plan() if c.trigger == "set-lapic" and c.sequence.startswith("alone-from-"))
    case = next(c for c in there if c.sequence.endswith("x2apic"))
    bound = BoundCase(case, machines.kept(case.setup), NOBODY)
    seen = bound.observe()
    layout, after = bound.bases[0].layout, seen.evidence[-1][1]
    wrong = _records(case, bound.bases, _last(seen, after.put(layout, "lapic.ldr", 0x50020)))["delivered"]
    assert wrong.verdict is Verdict.FAIL and wrong.observed == "lapic.ldr = 0x50020"


def test_an_either_order_that_ends_otherwise_fails(machines: Machines) -> None:
    name = next(c.name for c in plan() if c.sequence.startswith("either-side-of-") and not c.migrated)
    case, bound = _bound(machines, name)
    seen = bound.observe()
    layout, after = bound.bases[0].layout, seen.evidence[-1][1]
    assert _records(case, bound.bases, seen)["delivered"].verdict is Verdict.PASS
    wrong = _records(case, bound.bases, _last(seen, after.put(layout, "rsp", 0x123)))["delivered"]
    assert wrong.verdict is Verdict.FAIL and wrong.observed == "rsp changed"


def test_an_address_that_is_translated_as_before_fails(machines: Machines) -> None:
    case, bound = _bound(machines, "none.set-sregs/ap,intel,into-64-bit-mode-and-back")
    seen = bound.observe()
    assert _records(case, bound.bases, seen)["memory"].verdict is Verdict.PASS
    at = next(number for number, (_, value) in enumerate(seen.evidence) if value == 0x20000)
    step = seen.evidence[at][0]
    ended = Played((*seen.evidence[:at], (step, 0x80000)), Ended(step, "fail", "", False))
    wrong = _records(case, bound.bases, ended)["memory"]
    assert wrong.verdict is Verdict.FAIL and wrong.observed == "the page at the address itself"


def test_an_msr_that_is_accepted_fails_by_its_value(machines: Machines) -> None:
    case, bound = _bound(machines, "none.set-msrs/ap,intel,addresses-not-canonical", _NEW)
    seen = bound.observe()
    assert _records(case, bound.bases, seen, _NEW)["refused"].verdict is Verdict.PASS
    at = next(number for number, (_, value) in enumerate(seen.evidence) if value == 0)
    step = seen.evidence[at][0]
    ended = Played((*seen.evidence[:at], (step, 1)), Ended(step, "fail", "", False))
    wrong = _records(case, bound.bases, ended, _NEW)["refused"]
    assert wrong.verdict is Verdict.FAIL and wrong.observed == "0x8000000000000000 in lstar accepted"


def test_boot_ids_are_asked_of_a_vm_without_vcpus(machines: Machines) -> None:
    case, bound = _bound(machines, "none.set-boot-cpu-id/ap,intel,id-1")
    assert [op.on for _, op in bound.program.ops if isinstance(op, p.Ioctl)] == [p.NEW_VM]
    for _ in range(2):  # each time another VM
        assert _records(case, bound.bases, bound.observe())["refused"].verdict is Verdict.PASS


def test_a_count_writes_what_is_there_and_more(machines: Machines) -> None:
    case, bound = _bound(machines, "none.set-msrs/ap,intel,tsc-now")
    sums = [op for _, op in bound.program.ops if isinstance(op, p.Sum)]
    assert [op.value for op in sums] == [1 << 40, 0, 0, 0] and sums[0].place.buffer == "written_msr_tsc1_16"
    assert case.scenario and lower(case.scenario, bound) == bound.program
