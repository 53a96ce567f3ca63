# SPDX-License-Identifier: GPL-2.0-only
"""The program of a case as ops that hide nothing, and a vCPU that is written back to RESET."""

from __future__ import annotations

import pytest

from kvmtest.emit.repro import MAY_FAIL, NoRepro, Repro, body
from kvmtest.emit.reset import of_reset
from kvmtest.emit.wanted import Wanted, Witness
from kvmtest.engine.machine import Target
from kvmtest.engine.reproduce import _Source
from kvmtest.guests import spine
from kvmtest.scenario import program as p
from kvmtest.uapi import kvm as uapi

_ALL = (1 << 64) - 1
_LOOKS = ((0, p.Look(1)), (1, p.Ioctl(p.VM, uapi.KVM_CREATE_IRQCHIP)), (2, p.Look(1)))
_CR3 = ("cr3", (0,), None)


def _body(target: Target, wanted: Wanted, *ops: tuple[int, p.Op], buffers: dict[str, p.Buffer] | None = None) -> Repro:
    return body(p.Program(buffers or {}, ops), {1: _Source(target)}, wanted, 1, 7)


def _requests(made: Repro) -> list[int]:
    return [op.request for _, op in made.body.ops if isinstance(op, p.Ioctl)]


def test_a_look_is_the_ioctls_up_to_what_is_checked(targets: dict[str, Target]) -> None:
    made = _body(targets["ap"], Wanted(2, (_CR3,)), *_LOOKS)
    assert not [op for _, op in made.body.ops if isinstance(op, p.Look)]
    assert _requests(made)[-1] == uapi.KVM_GET_SREGS and _requests(made)[0] == uapi.KVM_GET_MP_STATE
    (check,) = made.checks
    assert (check.item, check.values, check.mask) == ("cr3", (0,), _ALL)
    assert check.place.buffer in made.body.buffers


def test_what_the_event_finds_and_leaves_is_pinned(targets: dict[str, Target]) -> None:
    wanted = Wanted(2, (_CR3,), (("cr3", 0x5000),), Witness("mp_state", uapi.KVM_MP_STATE_INIT_RECEIVED))
    made = _body(targets["ap"], wanted, *_LOOKS)
    compares = {at: op for at, (_, op) in enumerate(made.body.ops) if isinstance(op, p.Compare)}
    assert compares.keys() <= made.pinned
    values = [(op.values, op.otherwise.verdict, op.unlike) for op in compares.values()]
    assert ((0x5000,), "skip", False) in values and ((uapi.KVM_MP_STATE_INIT_RECEIVED,), "skip", False) in values


def test_a_section_is_read_and_only_what_differs_is_written(targets: dict[str, Target]) -> None:
    old = targets["ap"].baseline.sections["regs"]
    new = old[:8] + (0x77).to_bytes(8, "little") + old[16:]
    ioctl, buffers = p.Ioctl(1, uapi.KVM_SET_REGS, "plant_regs1"), {"plant_regs1": p.Buffer("kvm_regs", new)}
    made = _body(targets["ap"], Wanted(3, (_CR3,)), (0, ioctl), (3, p.Look(1)), buffers=buffers)
    (put,) = [op for _, op in made.body.ops if isinstance(op, p.Put)]
    assert (put.place.offset, put.place.size, put.value) == (8, 8, 0x77)
    assert _requests(made)[:2] == [uapi.KVM_GET_REGS, uapi.KVM_SET_REGS]


def test_written_whole_a_section_has_all_its_fields(targets: dict[str, Target]) -> None:
    """An ioctl before it may have changed one that a new vCPU has so, too."""
    old = targets["ap"].baseline.sections["regs"]
    program = p.Program(
        {"plant_regs1": p.Buffer("kvm_regs", old)}, ((0, p.Ioctl(1, uapi.KVM_SET_REGS, "plant_regs1")), (3, p.Look(1)))
    )
    for whole in (False, True):
        made = body(program, {1: _Source(targets["ap"])}, Wanted(3, (_CR3,)), 1, 7, whole=whole)
        assert sum(isinstance(op, p.Put) for _, op in made.body.ops) == 18 * whole


def test_what_a_guest_is_to_find_is_read_before_it_runs(targets: dict[str, Target]) -> None:
    wanted = Wanted(3, (("cr3", (0x5000,), None),), (("cr3", 0x5000),), guest=True)
    made = _body(targets["ap"], wanted, *_LOOKS, (3, p.Install(1)), (3, p.Report(1)))
    proven = [at for at, (_, op) in enumerate(made.body.ops) if isinstance(op, p.Compare) and op.values == (0x5000,)]
    runs = [at for at, (_, op) in enumerate(made.body.ops) if isinstance(op, p.Enter)]
    assert len(proven) == 1 and set(proven) <= made.pinned and made.body.ops[proven[0]][0] == 2 and proven[0] < runs[0]


def test_a_guest_that_is_to_run_has_to_tell_where_it_began(targets: dict[str, Target]) -> None:
    made = _body(targets["ap"], Wanted(3, guest=True), *_LOOKS, (3, p.Install(1)), (3, p.Report(1)))
    (last,) = [op for _, op in made.body.ops if isinstance(op, p.Enter)]
    assert made.body.ops[-1][1] is last and not made.checks and last.otherwise.verdict == "fail"
    assert last.came.number == spine.PORT_ENTRY and set(last.came.past) == set(spine.ports())


def test_what_was_written_before_is_written_whole(targets: dict[str, Target]) -> None:
    """Values of a new vCPU may have been overwritten."""
    old = targets["ap"].baseline.sections["regs"]
    buffers = {"plant_regs1": p.Buffer("kvm_regs", b"\x77" + old[1:]), "plant_regs1_2": p.Buffer("kvm_regs", old)}
    ops = ((number, p.Ioctl(1, uapi.KVM_SET_REGS, name)) for number, name in enumerate(buffers))
    made = _body(targets["ap"], Wanted(3, (_CR3,)), *ops, (3, p.Look(1)), buffers=buffers)
    puts = [[op for step, op in made.body.ops if step == number and isinstance(op, p.Put)] for number in range(2)]
    assert len(puts[0]) == 1 and {op.place.offset for op in puts[1]} == set(range(0, 144, 8)) and puts[1][0].value == old[0]


def test_a_structure_of_the_scenario_is_written_as_it_is(targets: dict[str, Target]) -> None:
    ioctl, kept = p.Ioctl(1, uapi.KVM_SET_VCPU_EVENTS, "kvm_vcpu_events"), p.Buffer("kvm_vcpu_events", bytes(64))
    made = _body(targets["ap"], Wanted(3, (_CR3,)), (0, ioctl), (3, p.Look(1)), buffers={"kvm_vcpu_events": kept})
    assert made.body.ops[0] == (0, ioctl) and made.body.buffers["kvm_vcpu_events"] == kept


def test_msrs_are_written_one_by_one(targets: dict[str, Target]) -> None:
    entries = b"".join(part.to_bytes(8, "little") for part in (2, 0x174, 5, 0x175, 6))
    ioctl = p.Ioctl(1, uapi.KVM_SET_MSRS, "kept")
    made = _body(targets["ap"], Wanted(3, (_CR3,)), (0, ioctl), (3, p.Look(1)), buffers={"kept": p.Buffer("kvm_msrs", entries)})
    names = [str(op.arg) for _, op in made.body.ops if isinstance(op, p.Ioctl) and op.request == ioctl.request]
    written = [made.body.buffers[name].contents[8:] for name in names]
    assert written == [entries[8:24], entries[24:]]


def test_a_program_that_nothing_decides_is_none(targets: dict[str, Target]) -> None:
    """It would pass whatever happens."""
    with pytest.raises(NoRepro, match="no single op"):
        _body(targets["ap"], Wanted(2), *_LOOKS)
    with pytest.raises(NoRepro, match="no ioctl of this KVM reads delivered"):
        _body(targets["ap"], Wanted(2, (("delivered", (0,), None),)), *_LOOKS)
    with pytest.raises(NoRepro, match="not a list of ops"):
        _body(targets["ap"], Wanted(2), (0, p.Do("arrivals", p.DEFAULT_ROUNDS)))
    compare = p.Compare(p.Place("reported", 0, 8), (1,), p.Otherwise("error", "why"))
    made = _body(targets["ap"], Wanted(0), (0, compare), buffers={"reported": p.Buffer("u64", bytes(8))})
    (last,) = [op for _, op in made.body.ops]
    assert isinstance(last, p.Compare) and last.otherwise.verdict == "fail"


def test_reset_writes_back_what_it_read_of_the_new_vcpu(targets: dict[str, Target]) -> None:
    order = ("mp_state", "regs", "sregs", "msrs")
    made = of_reset(p.Program({}, ()), _Source(targets["ap"]), order, Wanted(0, (_CR3,)), 1, 7)
    ops = [op for _, op in made.body.ops if isinstance(op, p.Ioctl)]
    for name, get, put in (("sregs", uapi.KVM_GET_SREGS, uapi.KVM_SET_SREGS), ("regs", uapi.KVM_GET_REGS, uapi.KVM_SET_REGS)):
        assert ops.index(p.Ioctl(1, get, f"new_{name}")) < ops.index(p.Ioctl(1, put, f"new_{name}"))
    back = [at for at, (_, op) in enumerate(made.body.ops) if op == p.Ioctl(1, uapi.KVM_SET_SREGS, "new_sregs")]
    assert set(back) <= made.pinned
    assert all(op.result == MAY_FAIL for op in ops if op.request == uapi.KVM_SET_MSRS)
    with pytest.raises(NoRepro):
        of_reset(p.Program({}, ()), _Source(targets["ap"]), order, Wanted(0, (("delivered", (0,), None),)), 1, 7)
