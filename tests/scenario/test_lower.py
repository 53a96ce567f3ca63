# SPDX-License-Identifier: GPL-2.0-only
"""Every scenario of the catalogue lowers to a program of plain data, and says what it shows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pytest

from kvmtest.guests import behaviour
from kvmtest.scenario import looks
from kvmtest.scenario import step as s
from kvmtest.scenario.catalogue import SCENARIOS
from kvmtest.scenario.lower import lower
from kvmtest.scenario.migrate import Part
from kvmtest.scenario.needs import NEEDS
from kvmtest.scenario.orders import Order
from kvmtest.scenario.program import (
    DEFAULT_ROUNDS,
    VM,
    Compare,
    Cpuid,
    Enter,
    Ioctl,
    Join,
    Op,
    Place,
    Program,
    Put,
    Region,
    Start,
    Write,
)


class _Plant:
    def writes(self, id: int) -> Iterable[tuple[str, int, bytes]]:
        yield "regs", 1, bytes(8)

    def before(self) -> tuple[tuple[int, int, int, bytes], ...]:
        return ()

    def entry(self) -> None:
        return None


class _Bound:
    target, other, stress_rounds = 1, 0, DEFAULT_ROUNDS
    each: tuple[int, ...] = (1,)

    def plant(self, who: int, name: str, apic_mode: str) -> _Plant:
        return _Plant()

    def cpuid(self, who: int) -> Cpuid:
        return Cpuid(who, ())

    def saved(self, who: int, order: Order) -> dict[str, Sequence[Part]]:
        return {}


def _plain(value: object) -> bool:
    if isinstance(value, tuple):
        return all(map(_plain, value))
    return value is None or isinstance(value, (int, str, bytes))


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_scenario_lowers_to_plain_data(name: str) -> None:
    scenario = SCENARIOS[name]
    program = lower(scenario, _Bound())
    assert all(_plain(tuple(op)) for _, op in program.ops)
    used = {place.buffer for _, op in program.ops for place in op if isinstance(place, Place)}
    assert used | {op.arg for _, op in program.ops if isinstance(op, Ioctl) and isinstance(op.arg, str)} <= program.buffers.keys()
    started: set[int] = set()
    for _, op in program.ops:
        if isinstance(op, Start):
            started.add(op.vcpu)
        elif isinstance(op, Join):
            started.remove(op.vcpu)
        elif isinstance(op, Enter):
            assert op.vcpu not in started
    assert not started, "a vCPU is left running"


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_scenario_shows_something_once(name: str) -> None:
    shown = looks.looks(SCENARIOS[name])
    assert shown
    tables = [one[1:] for one in shown if one.item == looks.TABLE]
    assert len(set(tables)) == len(tables)
    assert SCENARIOS[name].cite
    assert set(SCENARIOS[name].needs) <= NEEDS.keys()


def _lowered(*steps: s.Step) -> Program:
    return lower(s.Scenario("init", "msi", "made-up", steps, ("a manual",)), _Bound())


def test_items_of_one_section_are_written_by_one_ioctl_and_read_back() -> None:
    program = _lowered(s.Set((("rip", 0x1234), ("rsp", 0x10))))
    kinds = [type(op) for _, op in program.ops]
    assert kinds == [Ioctl, Put, Put, Ioctl, Ioctl, Compare, Compare]


def test_several_words_are_several_exits_of_which_each_may_end_it() -> None:
    words = s.Words((s.Word("EXIT", 3), s.Word("VALUE", 0x1000, mask=~0xFFF)))
    program = _lowered(s.Load("svm"), s.Expect(words), s.Until(words))
    entered = [op for _, op in program.ops if isinstance(op, Enter)]
    assert [op.otherwise.verdict for op in entered] == ["fail", "fail", "error", "error"]
    assert [(op.came.value, op.came.mask) for op in entered[:2]] == [(3, (1 << 32) - 1), (0x1000, ~0xFFF)]


def test_what_kvm_refuses_is_a_skip_where_that_has_a_reason() -> None:
    kept, refused = (_lowered(s.Load("vmx"), s.Set((("rip", "CODE+AT_ENTRY"),), why=why)).ops for why in ("", "a reason"))
    assert next(op.value for _, op in kept if isinstance(op, Put)) == 0x1020
    tests = [[op.otherwise for _, op in ops if isinstance(op, Compare)] for ops in (kept, refused)]
    assert [one.verdict for one in tests[0]] == ["error"]
    assert [tuple(one) for one in tests[1]] == [("skip", "a reason")] * 2


def test_a_message_goes_to_the_vm_and_has_to_reach_one_vcpu() -> None:
    program = _lowered(s.Send("init"))
    (_, ioctl), (_, test) = program.ops
    assert isinstance(ioctl, Ioctl)
    assert isinstance(test, Compare)
    assert (ioctl.on, test.values) == (VM, (1,))


def test_the_page_of_a_vector_beyond_ram_brings_memory_with_it() -> None:
    ops = [op for _, op in _lowered(s.Load("behaviour"), s.Page(0x20), s.Page(0xA0)).ops if isinstance(op, (Region, Write))][-3:]
    assert [type(op) for op in ops] == [Write, Region, Write]
    low, memory, high = ops
    assert isinstance(memory, Region) and memory.gpa <= 0xA0000 < memory.gpa + memory.size
    assert isinstance(low, Write) and isinstance(high, Write)
    assert (low.gpa, high.gpa) == (0x20000, 0xA0000) and low.data == high.data


def test_a_word_may_come_after_others() -> None:
    program = _lowered(s.Load("behaviour"), s.Expect(s.Word("RESET", past=("VALUE",))))
    (enter,) = [op for _, op in program.ops if isinstance(op, Enter)]
    assert (enter.came.number, enter.came.past) == (behaviour.PORT_RESET, (behaviour.PORT_VALUE,))


def test_the_same_cpuid_is_what_the_setup_gave_and_another_one_differs_in_its_signature() -> None:
    """The answer is kept, which a KVM that refuses it shows."""

    class Bound(_Bound):
        def cpuid(self, who: int) -> Cpuid:
            return Cpuid(who, ((0, "ebx", 1, 1),))

    def given(*steps: s.Step) -> list[Op]:
        made = s.Scenario("none", "set-cpuid2", "x", (*steps, s.Expect(s.Answer(0))), ())
        return [op for _, op in lower(made, Bound()).ops]

    same, compared = given(s.Cpuid(who=1))
    assert same == Cpuid(1, ((0, "ebx", 1, 1),), result="result")
    assert isinstance(compared, Compare) and compared.otherwise.verdict == "fail"
    assert given(s.Cpuid(0x600, 1))[0] == Cpuid(1, ((0, "ebx", 1, 1), (1, "eax", 0xFFFFFFFF, 0x600)), result="result")
