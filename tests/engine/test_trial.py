# SPDX-License-Identifier: GPL-2.0-only
"""Trials of reproducers: what they show, on a VM that each makes itself."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmtest.emit.repro import Check, Leaf, Repro
from kvmtest.engine.trial import HANGS, Outcome, Trials, Tried, holds, observed
from kvmtest.kvm import Kvm
from kvmtest.scenario import program as p
from kvmtest.uapi import kvm as uapi
from tests.emit.made import msr_check, repro

_WORDS = st.integers(0, (1 << 64) - 1)


@given(_WORDS, _WORDS, _WORDS)
def test_a_check_holds_in_its_bits(value: int, wanted: int, mask: int) -> None:
    check = Check("rax", p.Place("regs1", 0, 8), (wanted,), mask)
    assert holds(check, value) == (value & mask == wanted & mask)
    assert holds(check._replace(values=(wanted, value)), value)


def test_what_is_observed_is_at_its_place() -> None:
    data = {"regs1": bytes(range(1, 145))}
    assert observed(Check("rbx", p.Place("regs1", 8, 4), (0,), 1), data) == 0x0C0B0A09
    assert observed(Check("rip", p.Place("regs1", 0, 1), (0,), 1, ahead=3), data) == 1 - 3


@pytest.mark.parametrize(("bv", "value"), [(0b11, 0x55), (0b10, 7)])
def test_a_component_that_is_not_there_has_its_initial_value(bv: int, value: int) -> None:
    area = bytearray(576)
    area[32], area[512] = 0x55, bv
    assert observed(Check("st0", p.Place("xsave1", 32, 10), (0,), 1, 0, 7), {"xsave1": bytes(area)}) == value


def test_a_leaf_is_found_by_its_number() -> None:
    words = [2, 0, *(word for leaf in ((1, 0), (4, 2)) for word in (*leaf, 0, 11, 12, 13, 14, 0, 0, 0))]
    data = {"cpuid1": b"".join(word.to_bytes(4, "little") for word in words)}
    assert observed(Check("cpuid", Leaf("cpuid1", 4, 2, "ecx"), (0,), 1), data) == 13
    assert observed(Check("cpuid", Leaf("cpuid1", 4, 3, "ecx"), (0,), 1), data) is None


def test_what_is_known_is_not_run_again() -> None:
    ran, reported = iter((HANGS._replace(why="of its own"),)), list[Outcome | None]()
    tried = Tried((HANGS,), reported.append)
    assert [tried.outcome(lambda: next(ran)).why for _ in range(2)] == [HANGS.why, "of its own"]
    assert [one and one.why for one in reported] == [None, "of its own"]


def _run(kvm: Kvm, made: Repro) -> tuple[str, tuple[object, ...]]:
    found = Trials(kvm).run(made)
    return found.verdict, found.observed


def test_a_new_vm_has_what_is_written_to_it(kvm: Kvm) -> None:
    made = msr_check(0x5A)
    (_, put), (_, get) = made.body.ops
    again = put._replace(arg="msr_174")
    for listed, ops in ((True, (put, get, p.Rebuild(), again, get)), (False, (put, get, p.Rebuild(), get))):
        moved = made._replace(body=made.body._replace(ops=tuple(enumerate(ops))))
        assert _run(kvm, moved) == (("pass", (0x5A,)) if listed else ("fail", (0,)))
    # KVM lists IA32_SYSENTER_CS, and no MSR of that number.
    moved = made._replace(body=made.body._replace(ops=tuple(enumerate((put, get, p.Rebuild(), p.Listed(1, "msr_174"), get)))))
    assert _run(kvm, moved) == ("pass", (0x5A,))
    other = moved.body._replace(buffers=moved.body.buffers | {"other": p.Buffer("kvm_msrs", b"\x01" + bytes(7) + b"\xff" * 16)})
    ops = tuple((at, p.Listed(1, "other") if isinstance(op, p.Listed) else op) for at, op in other.ops)
    assert _run(kvm, moved._replace(body=other._replace(ops=ops))) == ("fail", (0,))


def test_verdicts(kvm: Kvm) -> None:
    assert _run(kvm, msr_check(0x5A)) == ("pass", (0x5A,))
    assert _run(kvm, msr_check(0x5B)) == ("fail", (0x5A,))
    get, there = p.Ioctl(1, uapi.KVM_GET_REGS, "regs1"), p.Compare(p.Place("regs1", 16, 8), (1,), p.Otherwise("skip", "why"))
    found = Trials(kvm).run(repro(get, there))
    assert (found.verdict, found.why) == ("skip", "why")
    fails = there._replace(otherwise=p.Otherwise("fail", ""))
    assert Trials(kvm).run(repro(get, fails)).verdict == "fail"
    assert Trials(kvm).run(repro(get, fails._replace(values=(0, 1, 0x600)))).verdict == "pass"


def test_what_goes_wrong_is_an_error(kvm: Kvm) -> None:
    made = msr_check(0x5A)
    # A vCPU that is there no more, and one that KVM refuses.
    without = made._replace(vm=made.vm._replace(ops=made.vm.ops[:1]))
    twice = made._replace(vm=made.vm._replace(ops=(*made.vm.ops, (9, p.Create(1)))))
    for broken in (without, twice):
        found = Trials(kvm).run(broken)
        assert found.verdict == "error" and found.why


def test_each_is_counted_and_leaves_no_trace(kvm: Kvm) -> None:
    trials = Trials(kvm)
    trials.run(msr_check(0x5A))
    trials.hasten()
    only_reads = msr_check(0)
    only_reads = only_reads._replace(body=only_reads.body._replace(ops=only_reads.body.ops[1:]))
    assert trials.run(only_reads).observed == (0,) and trials.count == 2
