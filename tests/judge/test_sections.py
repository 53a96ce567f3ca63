# SPDX-License-Identifier: GPL-2.0-only
"""State that was not read has no value, and is not judged: a section may end anywhere."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmtest.judge.cache import Cache
from kvmtest.judge.evidence import Basis
from kvmtest.judge.item import Context
from kvmtest.model.host import Host
from kvmtest.model.record import Result
from kvmtest.state import guest_view
from kvmtest.state.guest_view import Report
from kvmtest.state.layout import Layout
from kvmtest.state.sections import Snapshot
from kvmtest.x86 import xsave
from tests.cases import judged, shown, the

CASE = the("init.msi.host/ap,intel,xapic,plant-a")
HOST = Host("6.1.0", "vmx", "GenuineIntel", "test", {})
CTX = Context(CASE.prefix, CASE.name, HOST, "intel", False, 1, signature=0x506E3)
LAYOUT = Layout((0x10, 0x277, 0xC0000081), {2: 576, 9: 2688}, {}, ((0x1, 0), (0x7, 0), (0xD, 0), (0xD, 1)))
SECTIONS = {s: max(LAYOUT.fields[i].offset + LAYOUT.fields[i].size for i in items) for s, items in LAYOUT.by_section.items()}



def _whole(fill: int, components: int) -> dict[str, bytes]:
    sections = {name: bytes([fill]) * size for name, size in SECTIONS.items()}
    area = bytearray(sections["xsave"])
    area[xsave.XSTATE_BV_OFFSET : xsave.XSTATE_BV_OFFSET + 8] = components.to_bytes(8, "little")
    return sections | {"xsave": bytes(area)}


def _by_item(before: Snapshot, after: Snapshot) -> dict[str, Result]:
    basis = Basis(CTX, LAYOUT, Snapshot(_whole(0, 0), {}), None)
    return {result.item: result for result in judged(CASE, HOST, shown(CASE, (before, after)), basis)}


def _cut(sections: dict[str, bytes], section: str, at: int) -> Snapshot:
    return Snapshot(sections | {section: sections[section][:at]}, {})


@given(st.sampled_from(sorted(SECTIONS)), st.floats(0, 1, exclude_max=True), st.sampled_from((0, (1 << 64) - 1)), st.booleans())
def test_a_section_that_ends_early_shows_nothing_beyond_its_end(section: str, part: float, components: int, new: bool) -> None:
    """``new``: it is the snapshot after the event that is cut, else the one before it."""
    at = int(SECTIONS[section] * part)
    before, after = Snapshot(_whole(0x5A, components), {}), Snapshot(_whole(0, components), {})
    if new:
        after = _cut(after.sections, section, at)
    else:
        before = _cut(before.sections, section, at)
    results = _by_item(before, after)
    beyond = [i for i in LAYOUT.by_section[section] if LAYOUT.fields[i].offset + LAYOUT.fields[i].size > at]
    assert beyond
    for item in beyond:
        result = results[item]
        assert (result.observed if new else result.planted) is None, item
        assert result.verdict == "error" and f"beyond the {at} bytes" in result.reason, item


@pytest.mark.parametrize("item", sorted(LAYOUT.fields))
def test_a_field_is_read_where_all_of_it_is_there(item: str) -> None:
    field = LAYOUT.fields[item]
    # Which components an XSAVE area holds stands in its header.
    end = max(field.offset + field.size, 520 if field.component is not None else 0)
    whole = _whole(0xFF, (1 << 64) - 1)[field.section]
    assert field.get(whole[:end]) is not None and field.get(whole[: end - 1]) is None
    out = bytearray(field.offset + field.size - 1)
    field.put(out, -1)
    assert not any(out) and len(out) == field.offset + field.size - 1


def test_registers_beyond_what_kvm_get_lapic_fills_are_skipped_and_say_so() -> None:
    assert SECTIONS["lapic"] <= 0x400
    results = _by_item(Snapshot(_whole(0x5A, 0), {}), Snapshot(_whole(0, 0), {}))
    for item in ("lapic.efeat", "lapic.ecntl"):
        assert (results[item].verdict, results[item].observed) == ("skip", None)
        assert "KVM_GET_LAPIC does not show it" in results[item].reason


@pytest.mark.parametrize("lost", ["regs", "mp_state", "xsave", "msrs"])
def test_a_section_that_could_not_be_read_is_an_error_in_each_view(lost: str) -> None:
    why = "KVM_GET_SOMETHING: Invalid argument [EINVAL]"
    whole = Snapshot(_whole(0x5A, 3), {})
    rest = {name: contents for name, contents in _whole(0, 3).items() if name != lost}
    gone = Snapshot(rest, dict.fromkeys(LAYOUT.by_section[lost], why))
    never = Snapshot({name: contents for name, contents in whole.sections.items() if name != lost}, gone.unreadable)
    for before, after in ((whole, gone), (never, Snapshot(_whole(0, 3), {}))):
        results = _by_item(before, after)
        found = [results[item] for item in LAYOUT.by_section[lost]]
        assert {result.verdict for result in found} == {"error"} and all(result.reason.endswith(why) for result in found)
    reported = {item: 0 for item in guest_view.ITEMS if item in LAYOUT.by_section[lost]}
    case = CASE._replace(view="guest")
    seen = shown(case, (whole, gone), report=Report(reported, {}, ""))
    found = judged(case, HOST, seen, Basis(CTX._replace(prefix=case.prefix), LAYOUT, None, None))
    compared = [r for r in found if r.view == "views" and r.item in reported]
    # Of what the guest reported nothing can be compared, but where it is not the same register anyway.
    assert {(r.verdict, r.reason) for r in compared} == ({("error", why)} if compared else set())


def test_the_same_bytes_are_judged_anew_where_what_was_read_before_differs() -> None:
    """A broadcast judges one vCPU after the other: one that could not be read excuses no other."""
    tables, baseline = Cache().tables(CTX, LAYOUT), Snapshot(_whole(0, 0), {})
    whole, after = Snapshot(_whole(0x5A, 3), {}), Snapshot(_whole(0, 3), {})
    rest = {name: contents for name, contents in whole.sections.items() if name != "regs"}
    lost = Snapshot(rest, dict.fromkeys(LAYOUT.by_section["regs"], "made up"))
    seen = [tables.host(CTX, baseline, None, before, after) for before in (whole, lost, whole)]
    verdicts = [record.verdict for blocks in seen for block in blocks for record in block.records if record.item == "rbx"]
    assert verdicts == ["pass", "error", "pass"]
