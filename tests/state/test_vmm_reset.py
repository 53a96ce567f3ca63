# SPDX-License-Identifier: GPL-2.0-only
"""The orders of a VMM's RESET are legal and cover each pair; an illegal one does leave another state."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmtest.engine import host
from kvmtest.engine.machine import Machines, Target
from kvmtest.engine.plan import Setup
from kvmtest.kvm import Kvm
from kvmtest.state.snapshot import Snapshot
from kvmtest.state.vmm_reset import CONSTRAINTS, SECTIONS, Reset, orders

AT_RESET = {(c.first, c.second) for c in CONSTRAINTS if c.at_reset}


@pytest.fixture
def ap(kvm: Kvm) -> Iterator[Target]:
    machines = Machines(kvm, host.detect())
    yield machines.kept(Setup("full", "intel")).target("ap")
    machines.close()


def test_constraints_name_sections_and_say_why() -> None:
    for c in CONSTRAINTS:
        assert {c.first, c.second} <= set(SECTIONS) and c.why and c.source
    assert len({(c.first, c.second) for c in CONSTRAINTS}) == len(CONSTRAINTS)


@given(st.sets(st.sampled_from(SECTIONS), min_size=1))
def test_every_pair_is_seen_in_each_way_that_is_legal(sections: set[str]) -> None:
    names = tuple(s for s in SECTIONS if s in sections)
    made = orders(names)
    seen = {(a, b) for order in made for i, a in enumerate(order) for b in order[i + 1 :]}
    assert all(sorted(order) == sorted(names) for order in made)
    assert not any((b, a) in seen for a, b in AT_RESET)
    # The order that the constraints ask for stays: nested, then sregs, then the LAPIC.
    legal = {(a, b) for a in names for b in names if a != b} - {(b, a) for a, b in AT_RESET} - {("lapic", "nested")}
    assert seen == legal
    assert len(made) <= 3


def _after(target: Target, order: tuple[str, ...], mode: str = "x2apic") -> Snapshot:
    reset = target.reset
    target.plant("a", mode).write(target.vcpu)
    reset.write(order)
    return target.reader.read()


def test_the_apic_mode_decides_how_the_lapic_is_taken(ap: Target) -> None:
    """LAPIC before SREGS, against the constraint: KVM makes an LDR as in x2APIC mode, and leaves it when that ends."""
    new = {item: ap.baseline.get(ap.layout, item) for item in ap.layout.by_section["lapic"]}
    for order in orders(ap.reset.sections):
        after = _after(ap, order)
        assert {item: after.get(ap.layout, item) for item in new} == new
    rest = [s for s in ap.reset.sections if s not in ("sregs", "lapic")]
    illegal = ("lapic", "sregs", *rest)
    assert (_after(ap, illegal).get(ap.layout, "lapic.ldr"), new["lapic.ldr"]) == (1 << ap.vcpu.id, 0)
    # In xAPIC mode before and after it makes no difference.
    assert _after(ap, illegal, "xapic").get(ap.layout, "lapic.ldr") == 0


def _with(target: Target, **values: int) -> Snapshot:
    sections = dict(target.baseline.sections)
    for item, value in values.items():
        field = target.layout.fields[item.replace("__", ".")]
        buf = bytearray(sections[field.section])
        field.put(buf, value)
        sections[field.section] = bytes(buf)
    return Snapshot(sections, {})


def test_what_kvm_refuses_is_reported(ap: Target) -> None:
    """A default memory type that does not exist, and paging without protected mode; what comes after them is written."""
    assert "msr.mtrr_def_type" not in ap.reset.read_only
    reset = Reset(ap.vcpu, ap.layout, _with(ap, msr__mtrr_def_type=0x7, msr__pat=0x0706050403020101, cr0=0x80000010, rbx=0x77))
    assert "0x2ff" in reset.read_only["msr.mtrr_def_type"]
    refused = reset.write(reset.sections)
    assert refused.keys() == {"sregs"} and "EINVAL" in refused["sregs"]
    assert ap.vcpu.get_regs().rbx == 0x77
