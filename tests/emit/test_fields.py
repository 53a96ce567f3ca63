# SPDX-License-Identifier: GPL-2.0-only
"""Fields by their places: each name leads to its own bytes."""

from __future__ import annotations

import ctypes
import functools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmtest.emit.fields import LAPIC_REGS, Member, member, members
from kvmtest.scenario.places import SECTIONS
from kvmtest.uapi import kvm as uapi
from kvmtest.x86 import lapic

_ALL = {struct for *_, struct in SECTIONS.values()} | {uapi.kvm_msi, uapi.kvm_enable_cap}
_STRUCTS = sorted(_ALL, key=lambda one: one.__name__)
#: Structures whose fields have names; a page of registers has macros instead.
_NAMED = [struct for struct in _STRUCTS if struct not in (uapi.kvm_lapic_state, uapi.kvm_xsave)]


def _follow(struct: object, path: str) -> object:
    """Return the field at ``path`` in an instance of a structure, as C would access it."""
    steps = re.findall(r"\w+", path)
    return functools.reduce(lambda at, step: at[int(step)] if step.isdigit() else getattr(at, step), steps, struct)


@pytest.mark.parametrize("struct", _NAMED, ids=lambda struct: struct.__name__)
def test_a_path_is_what_ctypes_has_there(struct: type[ctypes.Structure]) -> None:
    size = ctypes.sizeof(struct)
    found = members(struct.__name__, size)
    assert found
    for one in found:
        assert member(struct.__name__, size, one.offset, one.size)
        ones = bytearray(size)
        ones[one.offset : one.offset + one.size] = b"\xff" * one.size
        value = _follow(struct.from_buffer_copy(ones), one.path)
        assert isinstance(value, int) and value & (1 << 8 * one.size) - 1 == (1 << 8 * one.size) - 1, one
        zeros = struct.from_buffer_copy(bytes(byte ^ 0xFF for byte in ones))
        assert _follow(zeros, one.path) == 0, one


@pytest.mark.parametrize("struct", _STRUCTS, ids=lambda struct: struct.__name__)
@given(data=st.data())
def test_what_is_found_is_just_that(struct: type[ctypes.Structure], data: st.DataObject) -> None:
    size = ctypes.sizeof(struct)
    offset, bytes_ = data.draw(st.integers(0, size)), data.draw(st.sampled_from((1, 2, 4, 8)))
    found = member(struct.__name__, size, offset, bytes_)
    assert found is None or (found.offset, found.size) == (offset, bytes_)


def test_an_anonymous_union_has_no_name_and_padding_is_no_field() -> None:
    paths = [one.path for one in members("kvm_vcpu_events", ctypes.sizeof(uapi.kvm_vcpu_events))]
    assert "exception.injected" in paths and "flags" in paths
    assert not [path for path in paths if "pad" in path or "reserved" in path]


def test_entries_follow_as_long_as_there_are_bytes() -> None:
    size = ctypes.sizeof(uapi.kvm_irq_routing) + 2 * ctypes.sizeof(uapi.kvm_irq_routing_entry)
    paths = {one.path for one in members("kvm_irq_routing", size)}
    assert {"nr", "entries[0].gsi", "entries[1].gsi"} <= paths and "entries[2].gsi" not in paths


def test_the_local_apics_page_and_xsave() -> None:
    svr = next(reg for reg in lapic.LAPIC if reg.name == "svr")
    assert member("kvm_lapic_state", 0x400, svr.offset, 4) == Member("APIC_SPIV", svr.offset, 4)
    assert {reg.name for reg in lapic.LAPIC} <= LAPIC_REGS.keys()
    assert member("kvm_xsave", 4096, 24, 4) == Member("region[6]", 24, 4)
    assert member("kvm_xsave", 4096, 24, 8) is None


def test_what_is_no_structure_has_no_fields() -> None:
    assert members("u64", 8) == () and member("s64", 8, 0, 8) is None
