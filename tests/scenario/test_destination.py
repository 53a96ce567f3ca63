# SPDX-License-Identifier: GPL-2.0-only
"""Acceptance of messages: examples of the manuals, and properties of every destination."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmtest.scenario.destination import ALL, Address, Local, after_init, derived, matches, receivers

FLAT = {id: Local(id, 1 << id) for id in range(4)}
CLUSTER = {id: Local(id, (id >> 1) << 4 | 1 << (id & 1), "cluster") for id in range(4)}
X2APIC = {id: Local(id, derived(id), "x2apic") for id in (0, 1, 15, 16, 35)}

bytes_ = st.integers(0, 0xFE)
flats, clusters = (st.builds(Local, bytes_, bytes_, st.just(model)) for model in ("flat", "cluster"))
wides = st.integers(0, (1 << 32) - 2)
x2apics = st.builds(lambda id: Local(id, derived(id), "x2apic"), st.integers(0, (1 << 20) - 1))


def _reached(locals_: dict[int, Local], address: Address, delivery: str = "init", sender: int | None = None) -> tuple[int, ...]:
    return receivers(locals_, address, delivery, sender)[0]


@pytest.mark.parametrize(
    ("locals_", "address", "found"),
    [
        (FLAT, Address(2), (2,)),
        (FLAT, Address(9), ()),
        (FLAT, Address(0x0A, logical=True), (1, 3)),
        (FLAT, Address(0x40, logical=True), ()),
        (FLAT, Address(0xFF), (0, 1, 2, 3)),
        (FLAT, Address(0xFF, logical=True), (0, 1, 2, 3)),
        (CLUSTER, Address(0x13, logical=True), (2, 3)),
        (CLUSTER, Address(0x12, logical=True), (3,)),
        (CLUSTER, Address(0x23, logical=True), ()),
        (CLUSTER, Address(0xFF, logical=True), (0, 1, 2, 3)),
        (X2APIC, Address(0x8003, logical=True, wide=True), (0, 1, 15)),
        (X2APIC, Address(2 << 16 | 1 << 3, logical=True, wide=True), (35,)),
        (X2APIC, Address(0xFF, logical=True, wide=True), (0, 1)),
        (X2APIC, Address(0xFFFFFFFF, wide=True), (0, 1, 15, 16, 35)),
        (X2APIC, Address(0xFF), (0, 1, 15, 16, 35)),
        (X2APIC, Address(0xFF, wide=True), ()),
    ],
)
def test_examples(locals_: dict[int, Local], address: Address, found: tuple[int, ...]) -> None:
    assert _reached(locals_, address) == found


@pytest.mark.parametrize(("shorthand", "found"), [("self", (1,)), ("all", (0, 1, 2, 3)), ("others", (0, 2, 3))])
def test_a_shorthand_needs_no_destination(shorthand: str, found: tuple[int, ...]) -> None:
    assert _reached(FLAT, Address(0x55, shorthand=shorthand), "fixed", 1) == found
    off = FLAT | {2: FLAT[2]._replace(model="off")}
    assert _reached(off, Address(shorthand=shorthand), "fixed", 1) == tuple(id for id in found if id != 2)


def test_only_interrupts_need_a_local_apic_that_software_has_enabled() -> None:
    locals_ = FLAT | {1: FLAT[1]._replace(software=False)}
    for delivery, found in (("init", (1,)), ("sipi", (1,)), ("nmi", (1,)), ("smi", (1,)), ("fixed", ()), ("lowest", ())):
        assert _reached(locals_, Address(2, logical=True), delivery) == found


def test_one_of_those_with_the_lowest_priority_gets_it() -> None:
    assert receivers(FLAT, Address(0x0A, logical=True), "lowest") == ((1, 3), True)
    assert receivers(FLAT, Address(0x0A, logical=True), "fixed") == ((1, 3), False)
    assert receivers(FLAT, Address(0x42, logical=True), "lowest") == ((1,), False)


@given(st.one_of(flats, clusters, x2apics), st.booleans(), st.booleans())
def test_all_ones_is_everybody(local: Local, logical: bool, wide: bool) -> None:
    assert matches(local, Address(ALL[wide], logical, wide=wide))
    assert not matches(local._replace(model="off"), Address(ALL[wide], logical, wide=wide))


@given(flats, bytes_, bytes_)
def test_a_flat_destination_is_all_of_its_bits(local: Local, one: int, other: int) -> None:
    if one | other != 0xFF:
        both = matches(local, Address(one, True)) or matches(local, Address(other, True))
        assert matches(local, Address(one | other, True)) == both


@given(clusters, bytes_)
def test_a_cluster_is_a_flat_model_of_its_own(local: Local, destination: int) -> None:
    flat = Local(local.id, local.logical & 0xF)
    assert matches(local, Address(destination, True)) == (
        destination >> 4 == local.logical >> 4 and matches(flat, Address(destination & 0xF, True))
    )


@given(x2apics, wides)
def test_a_derived_logical_id_names_the_same_vcpu_as_its_id(local: Local, other: int) -> None:
    assert matches(local, Address(derived(local.id), True, wide=True))
    id = other & 0xFFFFF
    assert matches(local, Address(derived(id), True, wide=True)) == matches(local, Address(id, wide=True))


@given(st.one_of(flats, clusters, x2apics), bytes_)
def test_init_leaves_the_id_and_in_xapic_mode_no_logical_one(local: Local, destination: int) -> None:
    after, wide = after_init(local), local.model == "x2apic"
    assert matches(after, Address(local.id, wide=wide)) and not after.software
    logical = Address(destination, True, wide=wide)
    assert matches(after, logical) == (wide and matches(local, logical))
