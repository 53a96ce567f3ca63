# SPDX-License-Identifier: GPL-2.0-only
"""Findings: one per cause, whatever the items; every departure is in one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmtest.judge.findings import Finding, findings
from kvmtest.judge.symptom import symptoms
from kvmtest.model.case import Case
from kvmtest.model.record import Block, Observation, Record
from kvmtest.model.value import Expected
from kvmtest.model.verdict import VERDICTS, Verdict
from kvmtest.report.finding import details, title
from tests.report.samples import LAB, OBSERVATIONS

HOST, GUEST, BOTH = (("init", "msi", view) for view in ("host", "guest", "views"))


def _record(
    item: str, planted: int | None, expected: int, observed: int | str | None, verdict: str = "fail", **more: str
) -> Record:
    return Record(
        item, Verdict(verdict), planted, Expected((expected,)), observed, more.get("reason", ""), ("SDM",), more.get("by")
    )


def _good(*items: str) -> list[Record]:
    return [_record(item, 5, 0, 0, "pass") for item in items]


def _seen(records: Iterable[Record], where: tuple[str, str, str] = HOST, **params: str) -> Observation:
    event, trigger, _ = where
    case = Case(f"{event}.{trigger}/{','.join(params.values())}", tuple(params.items()))
    return Observation(case, *where, (Block(tuple(records)),))


def test_what_is_not_kept_is_said_of_what_was_written() -> None:
    whole, bits = [_record(item, None, 1, 0) for item in ("cr2", "cr3")], [_record("cr0", None, 0x11, 0x10)]
    for records, says in ((whole[:1], "cr2"), (whole, "cr2, cr3"), (bits, "bits 0x1 of cr0")):
        (found,) = findings([_seen(records, ("none", "plant", "host"))])
        assert title(found) == f"KVM accepts what is written to {says} and does not keep it"


def test_the_cause_of_a_plant_that_is_lost_is_shown_where_it_is_listed() -> None:
    for verdict, by, because in (("fail", None, None), ("known", "a_function()", "KVM drops it [a_function()]")):
        record = Record("cr2", Verdict(verdict), None, Expected((1,)), 0, "KVM drops it", ("SDM",), by)
        (found,) = findings([_seen([record], ("none", "plant", "host"))])
        assert dict(details(found, LAB)).get("because") == because


def _reported(found: Sequence[Finding]) -> list[tuple[str, tuple[str, ...], int]]:
    return [(one.symptom, one.items, one.cases) for one in found]


@pytest.mark.parametrize(
    ("record", "view", "symptom", "says"),
    [
        (_record("cr3", 0x5000, 0, 0x5000), "host", "kept", "cr3 keeps the planted value after INIT"),
        (_record("cr3", 0x5000, 0x10, 0), "host", "zeroed", "cr3 is zeroed after INIT"),
        (_record("rdx", 0x5000, 0x600, 0x601), "host", "bits", "rdx has bits 0x1 wrong after INIT"),
        (_record("msr.tsc", 0x5000, 0x600, 0x601), "host", "value", "msr.tsc is wrong after INIT"),
        (_record("cr3", None, 0, 0x5000), "views", "disagree", "cr3 reads otherwise in the guest than by ioctl after INIT"),
        (_record("lost", None, 0, 6), "host", "value", "lost is 0x6 after INIT"),
        (_record("taken", None, 0, "no exit"), "guest", "behaves", "init.msi.guest.taken: no exit"),
        (_record("cr3", 5, 0, 5, "known", by="03a6e84069d1"), "host", "deviation", "cr3 is 0x5 after INIT"),
        (
            _record("cr3", 5, 0, 0, "fixed", by="03a6e84069d1"),
            "host",
            "deviation",
            "cr3 is right after INIT, though a deviation is listed",
        ),
        (_record("cr3", 5, 0, None, "error", reason="EFAULT\nmore"), "host", "reason", "init.msi.host: EFAULT"),
        # The judged bits decide: the others are kept or zero as they like.
        (
            Record("cr0", Verdict.FAIL, 0x11, Expected((0x10,), 0xF), 0x21),
            "host",
            "kept",
            "cr0 keeps the planted value after INIT",
        ),
        (Record("cr0", Verdict.FAIL, 0x11, Expected((0x12,), 0xF), 0x20), "host", "zeroed", "cr0 is zeroed after INIT"),
    ],
)
def test_each_symptom(record: Record, view: str, symptom: str, says: str) -> None:
    (found,) = findings([_seen([record], ("init", "msi", view), target="ap")])
    assert (found.symptom, title(found)) == (symptom, says)


def test_what_is_said_of_several_items_is_true_of_each() -> None:
    of = {"verdict": "known", "by": "03a6e84069d1"}
    (two,) = findings([_seen([_record("cr2", 5, 0, 5, **of), _record("cr3", 5, 0, 0x10, **of)], target="ap")])
    (one,) = findings([_seen([_record("cr2", 5, 0, 5, **of)], target="ap")])
    assert title(two) == "cr2, cr3 are not as expected after INIT"
    said = "planted 0x5, expected 0x0, observed 0x5"
    assert [dict(details(finding, LAB))["values"] for finding in (one, two)] == [said, f"cr2: {said}"]


def test_a_lost_init_is_one_finding_whatever_could_not_be_read() -> None:
    seen = []
    for number, rip in enumerate(("f000:fff0", "1000:0", "7c0:abc")):
        why = f"no INIT is pending on vcpu {number} after 1 s (cs:rip {rip} cs.base {number:#x})"
        items = [_record(f"r{i}", None, 0, None, "error", reason=why) for i in range(160)]
        seen.append(_seen([*items, Record("ssp", Verdict.SKIP, reason="not here")], target="ap", plant="abc"[number]))
    (found,) = findings(seen)
    assert (found.cases, len(found.items), found.effect) == (3, 160, "dead")


def test_two_bugs_in_different_bits_of_one_register_are_two() -> None:
    first, second = _record("cr0", None, 0x10, 0x11), _record("cr0", None, 0x10, 0x12)
    found = findings([_seen([first], target="ap"), _seen([second], target="bsp")])
    assert sorted(one.bits for one in found) == [1, 2]
    # If both always come together they are one.
    (both,) = findings([_seen([_record("cr0", None, 0x10, 0x13)], target=target) for target in ("ap", "bsp")])
    assert both.bits == 3 and both.cases == 2


def test_one_extent_is_one_cause_whatever_the_items() -> None:
    kept = [_record(item, 5, 0, 5) for item in ("cr2", "cr3", "dr0")]
    (found,) = findings(
        [_seen(kept, target="ap", state=state) for state in ("in-hlt", "in-loop")] + [_seen(_good("cr2", "cr3", "dr0"))]
    )
    assert _reported([found]) == [("kept", ("cr2", "cr3", "dr0"), 2)]


def test_another_extent_is_another_cause() -> None:
    cr2, cr3 = _record("cr2", 5, 0, 5), _record("cr3", 5, 0, 5)
    everywhere = [_seen([cr2, cr3], target="ap", state="in-hlt"), _seen([cr2, *_good("cr3")], target="ap", state="in-loop")]
    assert _reported(findings(everywhere)) == [("kept", ("cr2",), 2), ("kept", ("cr3",), 1)]
    # As is another event, another symptom, another verdict.
    other = [
        _seen([cr2]),
        _seen([cr2], ("reset", "create", "host")),
        _seen([cr2._replace(item="cr4", planted=1, observed=0, expected=Expected((1,)))]),
    ]
    assert len(findings(other)) == 3


def test_a_function_with_several_open_departures_is_not_one_cause() -> None:
    one, other = "kvm_vcpu_reset()", "kvm_lapic_reset()"
    count = _record("msr.smi_count", 5, 5, 0, "known", by=one)
    fault = _record("events.triple_fault_pending", 1, 0, 1, "known", by=one)
    found = findings([_seen([count, *_good("events.triple_fault_pending")], target="ap"), _seen([count, fault], target="bsp")])
    assert sorted(finding.items for finding in found) == [("events.triple_fault_pending",), ("msr.smi_count",)]
    # A departure that KVM admits is not one of them, wherever it shows.
    icr2 = _record("lapic.icr2", 5, 0, 5, "known", by=other)
    lint0 = _record("lapic.lvt_lint0", 5, 0x10000, 0x700, "known", by=other)
    assert [(finding.items, finding.open) for finding in findings([_seen([icr2, lint0])])] == [
        (("lapic.icr2",), True), (("lapic.lvt_lint0",), False),
    ]  # fmt: skip


def test_a_plant_and_what_a_view_cannot_show_make_no_other_cause() -> None:
    """They decide only where a departure can be seen."""
    one, two = _record("cr2", 5, 0, 5), _record("dr0", 5, 0, 5)
    unproven = _record("dr0", 0, 0, 0, "skip", reason="nothing was planted")
    plants = [_seen([one, two], target="ap", plant="a"), _seen([one, unproven], target="ap", plant="b")]
    assert _reported(findings(plants)) == [("kept", ("cr2", "dr0"), 2)]
    views = [_seen([one, two], target="ap"), _seen([one], GUEST, target="ap")]
    assert _reported(findings(views)) == [("kept", ("cr2", "dr0"), 2)]


def test_the_guest_that_does_not_run_comes_first_then_what_it_sees() -> None:
    dead = _record("cr2", None, 0, None, "error", reason="no exit within 1 s")
    seen = [
        _seen([_record("cr2", 5, 0, 5, "known", by="03a6e84069d1")]),
        _seen([_record("dr6", 5, 0, 5), *_good("cr2")], target="bsp"),
        _seen([_record("dr7", 5, 0, 5), *_good("cr2")], GUEST, target="bsp"),
        _seen([dead], GUEST, target="ap"),
    ]
    assert [(one.effect, one.verdict) for one in findings(seen)] == [
        ("dead", Verdict.ERROR),
        ("guest", Verdict.FAIL),
        ("host", Verdict.FAIL),
        ("host", Verdict.KNOWN),
    ]


def test_where_says_it_in_words() -> None:
    bad, good = [_record("cr2", 5, 0, 5)], _good("cr2")
    params = [(t, v, m) for t in ("msi", "latched", "irqfd") for v in ("intel", "amd") for m in ("xapic", "x2apic")]

    def where(departs: Iterable[tuple[str, str, str]]) -> str:
        wanted = set(departs)
        seen = [
            _seen(bad if p in wanted else good, ("init", p[0], "host"), target="ap", vendor=p[1], apic_mode=p[2]) for p in params
        ]
        (found,) = findings(seen)
        return found.where

    assert where(params) == "all 3 triggers"
    assert where(p for p in params if p[1] == "intel") == "all 3 triggers, guests of vendor intel"
    assert where(p for p in params if p[0] == "msi" and p[2] == "xapic") == "trigger msi, mode xapic"
    assert where([params[0], params[-1]]).endswith("in 2 of 8 cases")


def test_where_has_the_singular_of_one_and_counts_many() -> None:
    bad, good = [_record("cr2", 5, 0, 5)], _good("cr2")

    def where(shown: int, of: int, name: str) -> str:
        seen = [_seen(bad if number < shown else good, target="ap", **{name: f"x{number}"}) for number in range(of)]
        (found,) = findings(seen)
        return found.where

    assert where(2, 3, "apic_mode") == "not mode x2"
    assert where(3, 5, "apic_mode") == "not modes x3 and x4"
    assert where(7, 20, "sequence") == "7 of 20 sequences"
    assert where(12, 20, "sequence") == "12 of 20 sequences"


def test_where_names_what_has_a_parameter_where_others_have_none() -> None:
    bad, good = [_record("cr2", 5, 0, 5)], _good("cr2")
    (found,) = findings([_seen(bad, target="ap", how="r-init"), _seen(bad, target="ap", how="x"), _seen(good, target="ap")])
    assert found.where == "r-init and x"


_VALUES = st.sampled_from([0, 1, 2, 3, 5])
_RECORDS = st.lists(
    st.builds(
        lambda item, verdict, planted, expected, observed, by: _record(
            item,
            planted,
            expected,
            None if verdict in ("error", "skip") else observed,
            verdict,
            reason="why",
            by="03a6e84069d1" if verdict in ("known", "fixed") and by else None,  # type: ignore[arg-type]
        ),
        st.sampled_from(["cr0", "cr2", "msr.tsc"]),
        st.sampled_from(VERDICTS),
        _VALUES,
        _VALUES,
        _VALUES,
        st.booleans(),
    ),
    max_size=3,
    unique_by=lambda record: record.item,
)
_SEEN = st.lists(
    st.builds(
        lambda records, view, trigger, target, plant: _seen(records, ("init", trigger, view), target=target, plant=plant),
        _RECORDS,
        st.sampled_from(["host", "guest", "views"]),
        st.sampled_from(["msi", "latched"]),
        st.sampled_from(["ap", "bsp"]),
        st.sampled_from("abc"),
    ),
    max_size=8,
)


def _matches(found: Finding, seen: Observation, record: Record) -> bool:
    here = record.item in found.items and seen.view in found.views and seen.trigger in found.triggers
    return here and (found.event, found.verdict) == (seen.event, record.verdict) and any(
        symptom.kind == found.symptom and (symptom.kind != "bits" or found.bits >> symptom.bit & 1)
        for symptom in symptoms(record, seen.view)
    )  # fmt: skip


@given(_SEEN)
def test_everything_that_departs_is_in_a_finding_and_no_finding_is_without(seen: list[Observation]) -> None:
    found = findings(seen)
    departs = [(one, record) for one in seen for record in one.records if record.verdict.attention]
    for one, record in departs:
        assert any(_matches(finding, one, record) for finding in found)
    for finding in found:
        assert _matches(finding, finding.example.of, finding.example.record) and finding.example.of in seen
        assert 1 <= finding.cases <= finding.judged <= len(seen)
        for item in finding.items:
            assert any(record.item == item and _matches(finding, one, record) for one, record in departs)


@given(_SEEN)
def test_what_departs_in_one_way_is_in_one_finding(seen: list[Observation]) -> None:
    """Of observations that show one item each; wrong bits may have several causes in one value."""
    single = [one._replace(blocks=(Block((record,)),)) for one in seen for record in one.records]
    departs = [one for one in single for record in one.records if record.verdict.attention]
    whole = [one for one in departs if all(s.kind != "bits" for record in one.records for s in symptoms(record, one.view))]
    assert sum(finding.cases for finding in findings(single) if finding.symptom != "bits") == len(whole)


@given(st.lists(OBSERVATIONS, max_size=5))
def test_whatever_files_hold_has_findings_that_can_be_reported(seen: list[Observation]) -> None:
    found = findings(seen)
    assert bool(found) == any(record.verdict.attention for one in seen for record in one.records)
    for finding in found:
        assert title(finding).isprintable()
