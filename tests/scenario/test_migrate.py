# SPDX-License-Identifier: GPL-2.0-only
"""A migration as ops: all is read, then there is a new VM, then what was read is written, in the order that is asked for."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from kvmtest.scenario import step as s
from kvmtest.scenario.lower import lower
from kvmtest.scenario.migrate import Part
from kvmtest.scenario.orders import ORDERS, Order
from kvmtest.scenario.program import VM, Alike, Compare, Cpuid, Finish, Ioctl, Join, Look, Op, Put, Rebuild, Start
from kvmtest.scenario.triggers import TRIGGERS, To
from kvmtest.state import saved
from kvmtest.uapi import kvm as uapi
from tests.scenario.test_lower import _Bound

_REQUESTS = {name: (put, kind) for name, (put, kind) in saved._PUT.items()}
_MSRS = saved._msrs(["msr.tsc", "msr.star"])


class Bound(_Bound):
    """vCPUs of which everything can be saved."""

    def __init__(self, *left_out: str) -> None:
        self.left_out = left_out

    def saved(self, who: int, order: Order) -> dict[str, Sequence[Part]]:
        if who == VM:
            return saved.of_vm("full")
        found = {name: (saved.Part(1000 + n, put, kind, bytes(9000)),) for n, (name, (put, kind)) in enumerate(_REQUESTS.items())}
        found |= {"sregs2": found["sregs"], "fpu": found["regs"], "msrs": _MSRS}
        found |= {name: saved._msrs([name]) for name in order.apart if name.startswith("msr.")}
        return {name: parts for name, parts in found.items() if name not in self.left_out}

    def cpuid(self, who: int) -> Cpuid:
        return Cpuid(who, ())


def _ops(*steps: s.Step, bound: Bound | None = None) -> list[Op]:
    return [op for _, op in lower(s.Scenario("init", "msi", "made-up", steps, ("a manual",)), bound or Bound()).ops]


def _halves(ops: list[Op]) -> tuple[list[Op], list[Op]]:
    at = next(number for number, op in enumerate(ops) if isinstance(op, Rebuild))
    return ops[:at], ops[at + 1 :]


@pytest.mark.parametrize("order", ORDERS)
def test_what_is_read_before_is_written_after_in_order(order: str) -> None:
    before, after = _halves(_ops(s.Migrate(order)))
    read = {(op.on, op.arg) for op in before if isinstance(op, Ioctl)}
    done = [(op.on, op.arg) for op in after if isinstance(op, Ioctl) and isinstance(op.arg, str)]
    # Devices are read once more.
    written = [one for one in done if not str(one[1]).endswith("_now")]
    assert set(written) == read and len(written) == len(set(written))
    of_one = [str(arg) for on, arg in written if on == 1]
    known = [f"saved_{name.replace('.', '_')}1" for name in (*ORDERS[order].restore, *ORDERS[order].added)]
    assert of_one == [name for name in known if name in of_one]
    assert {op.on for op in after if isinstance(op, Ioctl)} == {VM, 1}


@pytest.mark.parametrize("order", ORDERS)
def test_each_order_writes_every_section_that_kvm_has(order: str) -> None:
    of = ORDERS[order]
    every = {*of.restore, *of.added, *of.before, *of.after}
    # CR8, EFER and the segments are in either structure.
    every |= {"sregs"} if "sregs2" in every else {"sregs2"}
    missing = {*saved._PUT, "sregs2", "msrs", "clock", "irqchip", *of.apart} - every
    assert missing == ({"nested"} if {"svm", "vmx"} <= set(of.lacks) else set())
    assert of.restore[0] == "cpuid" and of.source


def test_the_target_is_looked_at_before_and_after_and_what_counts_is_reported() -> None:
    before, after = _halves(_ops(s.Migrate()))
    assert [op for op in before if isinstance(op, Look)] == [Look(1)] == [op for op in after if isinstance(op, Look)]
    counted = [op.place.name for op in before if isinstance(op, Compare) and not op.otherwise.verdict]
    assert counted == ["msr.tsc", "lapic.timer_current"]


def test_another_vcpu_is_looked_at_where_something_was_done_to_it() -> None:
    ops = _ops(s.Set((("rax", 1),), "other"), s.Migrate())
    assert [op.vcpu for op in ops if isinstance(op, Look)] == [1, 0, 1, 0]


def test_what_no_ioctl_reads_is_written_again() -> None:
    routed = TRIGGERS["gsi-msi"].steps(s.Send("init", "gsi-msi"), To(1, 0, False))
    debug = s.Call(uapi.KVM_SET_GUEST_DEBUG, bytes(uapi.kvm_guest_debug(1)), kind="kvm_guest_debug")
    later = debug._replace(arg=bytes(uapi.kvm_guest_debug(3)))
    before, after = _halves(_ops(*routed, debug, later, s.Migrate()))
    again = [op for op in after if isinstance(op, Ioctl) and op.request in (uapi.KVM_SET_GSI_ROUTING, uapi.KVM_SET_GUEST_DEBUG)]
    assert len(again) == 2 and set(again) <= set(before)
    assert again[1] == [op for op in before if isinstance(op, Ioctl) and op.request == uapi.KVM_SET_GUEST_DEBUG][1]


def test_a_running_vcpu_stops_for_it_and_an_exits_io_is_completed() -> None:
    ops = _ops(s.Start(), s.Migrate())
    kinds = [op for op in ops if isinstance(op, (Start, Join, Finish, Rebuild))]
    assert [type(op) for op in kinds] == [Start, Join, Finish, Rebuild, Start]
    assert not [op for op in _ops(s.Migrate()) if isinstance(op, Finish)]
    ran = _ops(s.Load("spine"), s.Until(s.Word("spine.RESET")), s.Migrate())
    assert [op.vcpu for op in ran if isinstance(op, Finish)] == [1]


def test_the_clock_is_written_without_the_flags_that_it_was_read_with() -> None:
    _, after = _halves(_ops(s.Migrate()))
    at = next(number for number, op in enumerate(after) if isinstance(op, Ioctl) and op.request == uapi.KVM_SET_CLOCK)
    put = after[at - 1]
    assert isinstance(put, Put) and (put.place.name, put.value) == ("flags", 0)


def test_devices_are_held_against_what_was_saved_of_them() -> None:
    _, after = _halves(_ops(s.Migrate()))
    chips = [f"saved_irqchip{number}" for number in ("", "_2", "_3")]
    assert [op for op in after if isinstance(op, Alike)] == [Alike(chip, f"{chip}_now") for chip in chips]
    # The clock comes last: both values are reported.
    assert [type(op) for op in after[-4:]] == [Ioctl, Compare, Compare, Look]
    assert [op.place.buffer for op in after[-3:-1] if isinstance(op, Compare)] == ["saved_clock", "saved_clock_now"]


def test_a_refusal_is_a_departure_that_names_the_ioctl_and_the_msrs() -> None:
    _, after = _halves(_ops(s.Migrate()))
    tests = [op.otherwise for op in after if isinstance(op, Compare) and op.place.name != "clock"]
    assert {one.verdict for one in tests} == {"fail"}
    assert {"KVM_SET_SREGS", "KVM_SET_MSRS tsc star"} <= {one.why for one in tests}


def test_a_vcpu_that_nothing_was_done_to_is_as_created() -> None:
    """In a VM that is used again it is as an earlier case left it, which need not be a state that KVM accepts."""
    alone, both = (_ops(*before, s.Migrate("kvm")) for before in ((), (s.Set((("mp_state", 0),), "other"),)))
    for ops, ids in ((alone, {1}), (both, {0, 1})):
        assert {op.on for op in _halves(ops)[1] if isinstance(op, Ioctl)} - {VM} == ids
