# SPDX-License-Identifier: GPL-2.0-only
"""The cache: what it knows again is what the judge would say, item by item."""

from __future__ import annotations

import ctypes

from hypothesis import given, settings
from hypothesis import strategies as st

from kvmtest import spec
from kvmtest.judge.cache import Cache
from kvmtest.judge.item import Context, Seen, ask_views, compare_views, judge
from kvmtest.model.host import Host
from kvmtest.model.record import Record
from kvmtest.spec.untouched import COUNTERS
from kvmtest.state.guest_view import Report, items, shown
from kvmtest.state.layout import Layout
from kvmtest.state.sections import Snapshot
from kvmtest.uapi.kvm import kvm_debugregs, kvm_lapic_state, kvm_mp_state, kvm_regs, kvm_sregs, kvm_vcpu_events, kvm_xcrs
from kvmtest.x86.cpuid import FOLLOWS
from tests.sample import at_most

HOST = Host("6.1.0-1-amd64", "svm", "AuthenticAMD", "test", {})
CONTEXT = Context("init.msi.host", "init.msi/ap,intel,xapic,plant-a", HOST, "intel", False, 1, signature=0x506E3)
GUEST = CONTEXT._replace(prefix="init.msi.guest")
#: TSC, PAT, SYSENTER_CS, STAR, SMI count.
MSRS = (0x10, 0x34, 0x174, 0x277, 0xC0000081)
LAYOUT = Layout(MSRS, {}, {"ssp": "not here", "nested": "not here either"})
SIZES = {
    "regs": ctypes.sizeof(kvm_regs),
    "sregs": ctypes.sizeof(kvm_sregs),
    "debugregs": ctypes.sizeof(kvm_debugregs),
    "mp_state": ctypes.sizeof(kvm_mp_state),
    "events": ctypes.sizeof(kvm_vcpu_events),
    "xcrs": ctypes.sizeof(kvm_xcrs),
    "lapic": ctypes.sizeof(kvm_lapic_state),
    "xsave": 4096,
    "msrs": 16 * len(MSRS),
}


class Plant:
    """A plant that asked for some values, and was refused others."""

    asked = {"rbx": 0x55, "cr3": 0x5000, "msr.pat": 7, "msr.star": 3}
    refused = {"msr.sysenter_cs": "KVM_SET_MSRS refused it"}

    def reason(self, item: str) -> str:
        return f"{item} is not planted"


class _Drawn(Snapshot):
    """A snapshot that Hypothesis can print."""

    def __repr__(self) -> str:
        return f"<{len(self.sections)} sections>"


@st.composite
def snapshots(draw: st.DrawFn) -> Snapshot:
    """Sections of few distinct contents, so that some come again; one may be missing or cut short."""
    sections = {}
    for name, size in SIZES.items():
        word = draw(st.sampled_from((b"\0", b"\x55", b"\x10")))
        contents = bytearray(word * size)
        if draw(st.booleans()):
            contents[draw(st.integers(0, size - 1))] ^= 1 << draw(st.integers(0, 7))
        sections[name] = bytes(contents)
    unreadable: dict[str, str] = {}
    lost = draw(st.none() | st.sampled_from(tuple(SIZES)))
    if lost and draw(st.booleans()):
        del sections[lost]
        unreadable = dict.fromkeys(LAYOUT.by_section[lost], "EIO")
    elif lost:
        sections[lost] = sections[lost][: draw(st.integers(0, SIZES[lost]))]
    return _Drawn(sections, unreadable)


def _shown(record: Record) -> Record:
    """A record as the cache has it: of counters that are right no value."""
    if record.item in COUNTERS and record.verdict in ("pass", "info"):
        return record._replace(planted=None, expected=None, observed=None)
    return record


def _why(item: str, snapshot: Snapshot, value: int | None) -> str:
    return snapshot.why(LAYOUT, item) if value is None else ""


def _refused(item: str, planted: int | None) -> str:
    plant = Plant()
    if why := LAYOUT.missing.get(item) or LAYOUT.missing_sections.get(FOLLOWS.get(item, "")):
        return why
    if item in plant.refused:
        return plant.refused[item]
    if item not in plant.asked:
        return plant.reason(item)
    asked = plant.asked[item]
    kept = "None" if planted is None else f"{planted:#x}"
    return "" if planted == asked else f"{asked:#x} was planted, but KVM_GET_* returned {kept} before the event"


def _by_host(item: str, created: Snapshot, before: Snapshot, after: Snapshot) -> Record:
    if item not in LAYOUT.fields:
        return judge(item, CONTEXT, Seen(None, None, None, unreadable=LAYOUT.missing.get(item, "no ioctl shows it")))
    planted, observed = before.get(LAYOUT, item), after.get(LAYOUT, item)
    failed = _why(item, after, observed) or _why(item, before, planted)
    return judge(item, CONTEXT, Seen(planted, created.get(LAYOUT, item), observed, _refused(item, planted), failed=failed))


CACHE = Cache()


@settings(deadline=None, max_examples=at_most(40))
@given(snapshots(), snapshots(), snapshots())
def test_a_section_that_comes_again_has_the_records_of_its_items(created: Snapshot, before: Snapshot, after: Snapshot) -> None:
    found = CACHE.tables(CONTEXT, LAYOUT).host(CONTEXT, created, Plant(), before, after)
    records = {record.item: record for block in found for record in block.records}
    assert records.keys() == {*LAYOUT.fields, *(item for item in spec.ENTRIES if item not in spec.SYNTHETIC)}
    assert records == {item: _shown(_by_host(item, created, before, after)) for item in records}
    again = CACHE.tables(CONTEXT, LAYOUT).host(CONTEXT, created, Plant(), before, after)
    assert all(one is other for one, other in zip(found, again, strict=True))


@settings(deadline=None, max_examples=at_most(60))
@given(snapshots(), snapshots(), snapshots(), st.sampled_from(("init.msi.host", "sipi.msi.host", "none.fuzz.host")))
def test_in_brief_all_that_departs_has_its_record(created: Snapshot, before: Snapshot, after: Snapshot, prefix: str) -> None:
    ctx = CONTEXT._replace(prefix=prefix, vector=5)
    tables = CACHE.tables(ctx, LAYOUT)
    whole, brief = (tables.host(ctx, created, Plant(), before, after, brief=brief) for brief in (False, True))
    departs = {record for block in whole for record in block.records if record.verdict.departs}
    assert {record for block in brief for record in block.records if record.verdict.departs} == departs


def test_in_brief_what_cannot_depart_has_none() -> None:
    state = Snapshot({name: bytes(size) for name, size in SIZES.items()}, {})
    ctx = CONTEXT._replace(prefix="none.fuzz.host")
    whole, brief = (CACHE.tables(ctx, LAYOUT).host(ctx, state, None, state, state, brief=brief) for brief in (False, True))
    items = [{record.item for block in seen for record in block.records} for seen in (whole, brief)]
    assert {"rax", "lapic.svr", "msr.pat", "dr7"} <= items[0] - items[1]


@settings(deadline=None, max_examples=at_most(10))
@given(snapshots(), snapshots(), st.integers(0, 255), st.integers(0, 255))
def test_each_vector_has_its_own_segment(before: Snapshot, after: Snapshot, one: int, other: int) -> None:
    for vector in (one, other):
        ctx = CONTEXT._replace(prefix="sipi.msi.host", vector=vector)
        found = CACHE.tables(ctx, LAYOUT).host(ctx, before, None, before, after)
        cs = {record.item: record for block in found for record in block.records}["cs.base"]
        assert cs.expected is None or cs.expected.values == (vector << 12,)


def test_what_is_forgotten_is_judged_again() -> None:
    cache, state = Cache(), Snapshot({name: bytes(size) for name, size in SIZES.items()}, {})
    first = cache.tables(CONTEXT, LAYOUT).host(CONTEXT, state, Plant(), state, state)
    cache.forget()
    assert [block.records for block in cache.tables(CONTEXT, LAYOUT).host(CONTEXT, state, Plant(), state, state)] == [
        block.records for block in first
    ]


ITEMS = items("xapic", None, "init")


@settings(deadline=None, max_examples=at_most(25))
@given(
    snapshots(),
    snapshots(),
    snapshots() | st.none(),
    st.dictionaries(st.sampled_from(ITEMS), st.sampled_from((0, 0x55, 0x10))),
    st.lists(st.sampled_from(ITEMS)),
    st.sampled_from(("", "the guest stopped")),
)
def test_a_report_that_comes_again(
    created: Snapshot, before: Snapshot, after: Snapshot | None, reported: dict[str, int], absent: list[str], problem: str
) -> None:
    missing = {item: "no such instruction" for item in absent if item not in reported}
    report = Report(reported, missing, problem)
    one, two = CACHE.tables(GUEST, LAYOUT).guest(GUEST, ITEMS, created, Plant(), before, after, report)
    both = GUEST._replace(prefix="init.msi.views")
    for record in (record for block in one for record in block.records):
        item = record.item
        planted = before.get(LAYOUT, item)
        lost = before.why(LAYOUT, item) if planted is None and item in LAYOUT.fields else ""
        silent = item not in reported and item not in missing
        failed = (report.problem or "the guest did not report it") if silent else "" if item in missing else lost
        values = (shown(item, planted), shown(item, created.get(LAYOUT, item)), reported.get(item))
        seen = Seen(*values, _refused(item, planted), missing.get(item, ""), failed)
        assert record == _shown(judge(item, GUEST, seen)), item
    for record in (record for block in two for record in block.records):
        item = record.item
        host = shown(item, after.get(LAYOUT, item)) if after else None
        unread = "the vCPU ran on before the host could read it" if after is None else LAYOUT.missing.get(item, "")
        lost = after.why(LAYOUT, item) if after and host is None and item in LAYOUT.fields else ""
        problem, why = ("", "") if item in reported else (report.problem, missing.get(item, ""))
        assert record == compare_views(ask_views(item, both), host, reported.get(item), problem, why, unread, lost), item
    assert {record.item for block in one for record in block.records} == set(ITEMS)


def test_a_vcpu_is_judged_by_its_own_id() -> None:
    zeroes = Snapshot({name: bytes(size) for name, size in SIZES.items()}, {})
    page = bytes(0x20) + (1 << 24).to_bytes(4, "little") + bytes(SIZES["lapic"] - 0x24)
    after = Snapshot(zeroes.sections | {"lapic": page}, {})
    found = []
    for number in (1, 2):
        ctx = CONTEXT._replace(prefix="reset.create.host", apic_id=number)
        blocks = CACHE.tables(ctx, LAYOUT).host(ctx, None, None, None, after)
        found.append({record.item: record for block in blocks for record in block.records}["lapic.id"])
    assert [(record.verdict, record.observed) for record in found] == [("pass", 1 << 24), ("fail", 1 << 24)]
