# SPDX-License-Identifier: GPL-2.0-only
"""Requirements on a reproducer of a migration, and of one section that is written alone."""

from __future__ import annotations

import pytest

from kvmtest.emit.moving import Refused
from kvmtest.emit.repro import NoRepro
from kvmtest.engine import showing
from kvmtest.engine.machine import Machines
from kvmtest.judge.evidence import Basis, Ended, Played
from kvmtest.judge.item import Context
from kvmtest.model.host import Host
from kvmtest.model.record import Observation, Record, Result
from kvmtest.model.value import Expected
from kvmtest.model.verdict import Verdict
from kvmtest.scenario import step as s
from kvmtest.scenario.setup import Setup
from kvmtest.state.layout import Layout
from kvmtest.state.sections import Snapshot

_RAX = Record("rax", Verdict.FAIL, None, Expected((5,)), 6)


def _result(record: Record) -> Result:
    return Result(Observation("none.migrate/bsp", "none", "migrate", "host", ()), record)


@pytest.fixture(name="basis")
def _basis(machines: Machines) -> Basis:
    machine = machines.kept(Setup("full", "intel"))
    target = machine.target("bsp")
    ctx = Context("none.migrate", "none.migrate/bsp", Host("", "", "", "", ""), "intel", True, 0)
    return Basis(ctx, target.layout, target.baseline, target.plant("a", "xapic"))


def _seen(basis: Basis, **items: int) -> Snapshot:
    seen = basis.baseline
    assert seen
    for item, value in items.items():
        seen = seen.put(basis.layout, item, value)
    return seen


def _counts(layout: Layout) -> list[int]:
    return [0 for item in ("msr.tsc", "lapic.timer_current") if item in layout.fields]


def test_what_a_migration_lost_is_expected_as_it_was(basis: Basis) -> None:
    values = [*_counts(basis.layout), _seen(basis, rax=5, rbx=7), _seen(basis, rax=6, rbx=7)]
    (found,) = showing.moved(3, [_result(_RAX)], (basis,), values)
    assert found[0] == 0 and found[1].items == (("rax", (5,), None),) and found[1].planted == (("rax", 5),)
    # Of what passes nothing has to be proven before, and what another vCPU lost is not this one's.
    kept = _RAX._replace(item="rbx", verdict=Verdict.PASS)
    ((_, wanted),) = showing.moved(3, [_result(kept), _result(kept._replace(item="clock"))], (basis,), values)
    assert wanted.items == (("rbx", (7,), None),) and not wanted.planted
    assert not list(showing.moved(3, [_result(kept._replace(verdict=Verdict.FAIL))], (basis,), values))


def test_what_counts_has_no_value(basis: Basis) -> None:
    with pytest.raises(NoRepro, match="is a counter"):
        list(showing.moved(3, [_result(_RAX._replace(item="msr.tsc"))], (basis,), []))


def test_what_was_refused_is_the_last_that_was_reported() -> None:
    played = Played(((2, 9), (3, 1), (3, 0), (3, -22)), Ended(3, "fail", "KVM_SET_REGS"))
    assert showing.refused(played, 3, [_result(_RAX._replace(item="refused"))]) == Refused(3, 3, -22)
    assert showing.refused(played, 3, [_result(_RAX)]) is None
    assert showing.refused(played._replace(end=None), 3, [_result(_RAX._replace(item="refused"))]) is None
    # If nothing departs, results without a vCPU are left out.
    assert showing.refused(played, 3, [_result(Record("clock", Verdict.PASS, None, Expected(("on",)), "on"))]) is None
    with pytest.raises(NoRepro, match="byte by byte"):
        showing.refused(played, 3, [_result(_RAX._replace(item="clock"))])


def test_of_one_section_alone_what_was_written_and_what_was_to_stay(basis: Basis) -> None:
    scenario = s.Scenario("none", "set-regs", "x", (s.Observe(), s.Plant("new", only=("regs",)), s.Expect(s.Written("regs"))), ())
    before = _seen(basis, rax=5, cr2=7)
    played = Played(((0, before), (2, _seen(basis, rax=5, cr2=8))), None)
    wanted = showing.changed(scenario, 2, played, basis)
    assert wanted and {("rax", (0,), None), ("cr2", (7,), None)} <= set(wanted.items) and wanted.planted == (("cr2", 7),)
    good = Played(((0, before), (2, _seen(basis, rax=0, cr2=7))), None)
    with pytest.raises(NoRepro, match="nothing changed"):
        showing.changed(scenario, 2, good, basis)
    wanted = showing.changed(scenario, 2, good, basis, departs=False)
    assert wanted and {("rax", (0,), None), ("cr2", (7,), None)} <= set(wanted.items) and not wanted.planted
