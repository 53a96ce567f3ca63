# SPDX-License-Identifier: GPL-2.0-only
"""Reproducers on /dev/kvm: the program in C says what the case said, and can say the opposite."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest

from kvmtest.emit import c, head
from kvmtest.emit.head import Shown
from kvmtest.emit.repro import Repro
from kvmtest.engine import host
from kvmtest.engine.bind import Unmet
from kvmtest.engine.machine import Machines, SetupError, Target
from kvmtest.engine.plan import plan, select
from kvmtest.engine.reproduce import NoRepro, first, reproduce
from kvmtest.engine.trial import Trials
from kvmtest.kvm import Kvm
from kvmtest.model.select import Selection
from kvmtest.scenario import program as p
from kvmtest.state.inside import PlantRefused
from kvmtest.uapi import kvm as uapi
from tests.emit.compiled import built, ended

#: With which the passing cases are drawn.
_SEED = 22
_LOST = "none.migrate.host.msr.osvw_id_length"
_DEPARTS, _KEPT = (f"init.msi.host.{item}/ap,intel,xapic,plant-a" for item in ("msr.fs_base", "cr3"))


def _first(kvm: Kvm, selector: str, *, departs: bool, minimise: bool = False) -> Shown:
    shown = first(kvm, host.detect(), select(plan(), (selector,)), Selection((selector,)), minimise=minimise)
    if shown.about.departs != departs:
        pytest.skip(f"{selector} {'does not depart' if departs else 'departs'} here")
    return shown


def _ended(shown: Shown, where: Path) -> tuple[int, str]:
    return ended(built(c.source(shown.repro, head.lines(shown.about, shown.repro, host.detect())), where))


def _changed(shown: Shown, repro: Repro) -> Shown:
    return shown._replace(repro=repro)


def _without(repro: Repro, request: int) -> Repro:
    ops = tuple(one for one in repro.body.ops if not (isinstance(one[1], p.Ioctl) and one[1].request == request))
    assert len(ops) < len(repro.body.ops)
    return repro._replace(body=repro.body._replace(ops=ops))


def test_a_departure_is_shown_by_a_small_program(kvm: Kvm, tmp_path: Path) -> None:
    shown = _first(kvm, _DEPARTS, departs=True, minimise=True)
    status, said = _ended(shown, tmp_path)
    assert status == 1 and re.search(r"^not ok 1 msr\.fs_base: expected 0, observed 0x", said, re.MULTILINE)
    assert said.startswith("KTAP version 1\n1..1\n")
    left = len(shown.repro.vm.ops) + len(shown.repro.body.ops)
    assert left < 20 < shown.ops and shown.tries > 10
    # A single bit that is planted is enough, and what is said to be seen is that one.
    written = [op.value for _, op in shown.repro.body.ops if isinstance(op, p.Put)]
    assert all(value.bit_count() <= 1 for value in written) and shown.about.observed in said.replace("observed", "")


def test_each_op_that_is_left_is_needed(kvm: Kvm) -> None:
    shown = _first(kvm, _DEPARTS, departs=True, minimise=True)
    trials = Trials(kvm)
    assert trials.run(shown.repro).verdict == "fail"
    body = shown.repro.body
    for at, (_, op) in enumerate(body.ops):
        # A read stays with the op that compares or writes its result.
        if isinstance(op, (p.Put, p.Ioctl)) and not (isinstance(op, p.Ioctl) and op.request >> 31):
            left = body._replace(ops=body.ops[:at] + body.ops[at + 1 :])
            assert trials.run(shown.repro._replace(body=left)).verdict != "fail", op


def test_without_the_event_it_is_skipped(kvm: Kvm, tmp_path: Path) -> None:
    for departs, selector in ((True, _DEPARTS), (False, _KEPT)):
        shown = _first(kvm, selector, departs=departs)
        status, said = _ended(_changed(shown, _without(shown.repro, uapi.KVM_SIGNAL_MSI)), tmp_path)
        assert status == 4 and "ok 1 # SKIP the event did not happen" in said


def test_it_fails_where_what_is_expected_is_not_there(kvm: Kvm, tmp_path: Path) -> None:
    shown = _first(kvm, _KEPT, departs=False)
    assert _ended(shown, tmp_path)[0] == 0
    (check,) = shown.repro.checks
    wrong = shown.repro._replace(checks=(check._replace(values=(check.values[0] ^ 0x1000,)),))
    status, said = _ended(_changed(shown, wrong), tmp_path)
    assert status == 1 and "\nnot ok 1 cr3: expected 0x1000, observed 0" in said
    # As the trial of it says, too.
    assert Trials(kvm).run(wrong).verdict == "fail"


def test_what_a_migration_loses_is_shown_by_a_new_vm(
    kvm: Kvm, targets: dict[str, Target], tmp_path: Path
) -> None:
    if (item := _LOST.split(".", 3)[3]) not in targets["ap"].layout.fields:
        pytest.skip(f"this KVM has no {item}")
    shown = _first(kvm, _LOST, departs=True, minimise=True)
    assert len(shown.repro.body.ops) < 12 and any(isinstance(op, p.Rebuild) for _, op in shown.repro.body.ops)
    status, said = _ended(shown, tmp_path)
    assert status == 1 and re.search(r"^not ok 1 msr\.osvw_id_length: expected 0x\w+, observed 0$", said, re.MULTILINE)
    # A VMM that saves it all the same loses nothing.
    ops = ((step, _written(op)) for step, op in shown.repro.body.ops)
    kept = shown.repro._replace(body=shown.repro.body._replace(ops=tuple(ops)))
    assert _ended(_changed(shown, kept), tmp_path)[0] == 0


def _written(op: p.Op) -> p.Op:
    return p.Ioctl(op.vcpu, uapi.KVM_SET_MSRS, op.buffer) if isinstance(op, p.Listed) else op


def _passing(kvm: Kvm, count: int) -> list[Shown]:
    """The reproducers of so many cases that pass here, drawn from the plan."""
    cases, machines, found = list(plan()), Machines(kvm, host.detect()), []
    random.Random(_SEED).shuffle(cases)
    for case in cases:
        try:
            shown = reproduce(case, machines, Selection(("*",)), minimise=False)
        except (NoRepro, Unmet, SetupError, PlantRefused):
            continue
        if not shown.about.departs:
            found.append(shown)
        if len(found) == count:
            break
    machines.close()
    if not found:
        pytest.skip("no case passes here")
    return found


def _pass(shown: Shown, where: Path) -> None:
    status, said = _ended(shown, where)
    assert status == 0, shown.about.name + said
    results = re.findall(r"^(not ok|ok) \d+", said, re.MULTILINE)
    assert set(results) == {"ok"} and f"\n1..{len(results)}\n" in said
    # Each of its checks can fail.
    checks = shown.repro.checks
    for check in {0: checks[:1], 1: checks[-1:]}[len(checks) % 2]:
        wrong = check._replace(values=tuple(value ^ check.mask & -check.mask for value in check.values))
        others = tuple(wrong if one is check else one for one in checks)
        status, said = _ended(_changed(shown, shown.repro._replace(checks=others)), where)
        assert status == 1 and re.search(rf"^not ok \d+ {re.escape(check.item)}[:[]", said, re.MULTILINE), said


def test_one_that_passes_passes_in_c(kvm: Kvm, tmp_path: Path) -> None:
    for shown in _passing(kvm, 1):
        _pass(shown, tmp_path)


@pytest.mark.nightly
def test_ten_that_pass_pass_in_c(kvm: Kvm, tmp_path: Path) -> None:
    for shown in _passing(kvm, 10):
        _pass(shown, tmp_path)
