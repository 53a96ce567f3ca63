# SPDX-License-Identifier: GPL-2.0-only
"""Leaving out: what stays is needed, each part of it; nothing that is pinned goes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kvmtest.emit.keep import keeping_guest, setting
from kvmtest.emit.reduce import reduced, subset, used
from kvmtest.emit.repro import Check, Repro
from kvmtest.scenario import program as p
from kvmtest.uapi import kvm as uapi
from tests.emit.made import VM, repro

_ALL = (1 << 64) - 1
_RAX, _RBX = p.Place("regs1", 0, 8), p.Place("regs1", 8, 8)
_GET, _SET = p.Ioctl(1, uapi.KVM_GET_REGS, "regs1"), p.Ioctl(1, uapi.KVM_SET_REGS, "regs1")
_MP = p.Ioctl(1, uapi.KVM_GET_MP_STATE, "mp_state1")
_LAPIC = p.Ioctl(1, uapi.KVM_GET_LAPIC, "lapic1")


@given(st.integers(0, 60), st.sets(st.integers(0, 59)))
def test_what_is_needed_stays_and_nothing_else(count: int, needed: set[int]) -> None:
    needed = {one for one in needed if one < count}
    assert subset(range(count), lambda parts: needed <= set(parts)) == sorted(needed)


@given(st.sets(st.frozensets(st.integers(0, 12), max_size=4), min_size=1))
def test_none_can_be_left_out(ways: set[frozenset[int]]) -> None:
    """Of several ways to show it one is found, whole and alone, though leaving out is not monotone then."""

    def shows(parts: list[int]) -> bool:
        return any(way <= set(parts) for way in ways)

    left = subset(range(13), shows)
    assert shows(left)
    assert not any(shows([one for one in left if one != gone]) for gone in left)
    assert frozenset(left) in ways


def _made() -> Repro:
    body = (_LAPIC, _GET, p.Put(_RAX, 0b1011), p.Put(_RBX, 7), _SET, _MP, _GET)
    check = Check("rax", _RAX, (0,), _ALL)
    return repro(*body)._replace(checks=(check,))


def _ops(made: Repro) -> list[p.Op]:
    return [op for _, op in made.body.ops]


def test_ops_and_bits_go_as_long_as_it_shows() -> None:
    """It shows where bit 1 of RAX is written and the vCPU is there."""

    def shows(made: Repro, before: int, after: int) -> bool:
        there = _ops(made)
        written = [op.value for op in there if isinstance(op, p.Put) and op.place == _RAX]
        return p.Create(1) in [op for _, op in made.vm.ops] and _SET in there and any(value & 2 for value in written)

    found = used(reduced(_made(), shows))
    assert _ops(found) == [_GET, p.Put(_RAX, 2), _SET, _GET]
    assert [op for _, op in found.vm.ops] == [p.Create(1)]
    assert set(found.vm.buffers | found.body.buffers) == {"regs1"}


def test_of_a_whole_guest_memory_cpuid_and_registers_stay() -> None:
    made = keeping_guest(repro(p.Write(0x100, b"\x90"), *(op for _, op in _made().body.ops)))
    left = reduced(made, lambda *_: True)
    assert _ops(left) == [op for op in _ops(made) if op not in (_LAPIC, _MP)]
    assert [op for _, op in left.vm.ops] == [op for op in VM if isinstance(op, p.Cpuid)]


def test_of_a_setting_its_steps_and_its_mode_stay() -> None:
    sregs = [p.Ioctl(1, request, "sregs1") for request in (uapi.KVM_GET_SREGS, uapi.KVM_SET_SREGS)]
    cr0, cr3 = (p.Put(p.Place("sregs1", getattr(uapi.kvm_sregs, name).offset, 8), 1) for name in ("cr0", "cr3"))
    made = repro(sregs[0], cr3, cr0, sregs[1], *(op for _, op in _made().body.ops))
    left = reduced(setting(made, {5}), lambda *_: True)
    # Step 5 is the read of RAX; the last op stays anyway.
    assert _ops(left) == [sregs[0], cr0, sregs[1], _GET, _GET]
    # Which bits of CR4 there are is CPUID's.
    assert [type(op) for _, op in left.vm.ops] == [p.Cpuid]
    assert [step for step, _ in left.body.ops][-2:] == [5, 10]


def test_of_a_mode_its_bits_stay_alone() -> None:
    """On another kernel the others may be reserved: EFER.LME and CR0.PG stay, EFER.SVME and CR0.WP go."""
    sregs = [p.Ioctl(1, request, "sregs1") for request in (uapi.KVM_GET_SREGS, uapi.KVM_SET_SREGS)]
    places = [p.Place("sregs1", getattr(uapi.kvm_sregs, name).offset, 8) for name in ("cr0", "efer")]
    puts = [p.Put(place, value) for place, value in zip(places, (0x80010001, 0x1500), strict=True)]
    made = repro(sregs[0], *puts, sregs[1], _GET)
    left = reduced(setting(made, set()), lambda *_: True)
    assert _ops(left) == [sregs[0], p.Put(places[0], 0x80000001), p.Put(places[1], 0x500), sregs[1], _GET]
    # The others stay if they matter, and so does a value that a step of the case itself writes.
    assert reduced(setting(made, set()), lambda tried, *_: tried.body.ops[1:3] == made.body.ops[1:3]).body.ops == made.body.ops
    assert reduced(setting(made, {1, 2}), lambda *_: True).body.ops == made.body.ops


def test_what_is_pinned_stays_and_so_does_what_it_rests_on() -> None:
    made = _made()
    found = reduced(made._replace(pinned=frozenset({4, 5})), lambda *_: True)
    # KVM_SET_REGS says nothing without what it writes having been read.
    assert _ops(found) == [_GET, _SET, _MP, _GET]


def test_a_write_goes_with_the_read_it_rests_on() -> None:
    seen = []

    def shows(made: Repro, before: int, after: int) -> bool:
        seen.append(_ops(made))
        return True

    reduced(_made(), shows)
    assert all(_SET not in ops or ops.index(_GET) < ops.index(_SET) for ops in seen)


def test_nothing_is_left_out_where_it_does_not_show() -> None:
    assert reduced(_made(), lambda *_: False) == _made()


def test_the_leaf_that_what_is_expected_rests_on_stays() -> None:
    made = _made()._replace(cpuid=frozenset({(0, "ebx"), (0, "ecx")}))
    (op,) = (op for _, op in reduced(made, lambda *_: True).vm.ops)
    assert isinstance(op, p.Cpuid) and {change[:2] for change in op.changes} == {(0, "ebx"), (0, "ecx")}
    assert VM[-1] != op


def test_a_value_that_is_kept_is_reported_with_what_took_its_place() -> None:
    """As the caller knows it: what is observed is what is written."""
    now = 0b1011

    def shows(made: Repro, before: int, after: int) -> bool:
        nonlocal now
        value = next((op.value for op in _ops(made) if isinstance(op, p.Put) and op.place == _RAX), 0)
        if value in (now, after if now == before else now) and value & 8:
            now = value
            return True
        return False

    found = reduced(_made(), shows)
    assert p.Put(_RAX, 8) in _ops(found) and now == 8


def test_a_cpuid_that_is_given_again_stays_the_first_time_too() -> None:
    given = next(op for op in VM if isinstance(op, p.Cpuid))
    again = given._replace(result="result")
    last = p.Compare(p.Place("result", 0, 8, "result"), (0,), p.Otherwise("fail", ""))
    made = reduced(repro(_GET, again, last), lambda made, before, after: again in _ops(made))
    assert _ops(made) == [again, last] and given in [op for _, op in made.vm.ops]
