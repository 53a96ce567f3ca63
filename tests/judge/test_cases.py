# SPDX-License-Identifier: GPL-2.0-only
"""The judge of each kind of case, on evidence made up here."""

from __future__ import annotations

import pytest

from kvmtest.engine import plan
from kvmtest.judge.cases import RESTS_ON
from kvmtest.judge.evidence import Again, Ended, Evidence, Measured, Played, ResetSeen, ResetTry, Untried
from kvmtest.model.host import Host
from kvmtest.model.record import Result
from kvmtest.model.verdict import Verdict
from kvmtest.spec import deviations, effects
from kvmtest.spec.cite import KVM_API
from kvmtest.state.guest_view import Report
from kvmtest.state.layout import Layout
from kvmtest.state.sections import Snapshot
from kvmtest.state.vmm_reset import CONSTRAINTS
from tests.cases import CASES, NOBODY, judged, shown, the
from tests.judge.made import HOST, LAYOUT, NEW, SIZES, USED, basis, filled, lost

MSI = the("init.msi.host/ap,intel,xapic,plant-a")
BY_GUEST = the("init.msi.guest/ap,intel,xapic,plant-a")
BROADCAST = the("init.broadcast.host/ap,intel,8-vcpus,xapic,plant-a")
RESET = the("reset.vmm-reset.host/ap,full-irqchip,intel,xapic,plant-a")
RESET_BY_GUEST = the("reset.vmm-reset.guest/bsp,full-irqchip,intel,xapic,plant-a")
STRESS = next(case for case in CASES.values() if case.sequence == "stress")
LOST = "sipi.icr-x2apic.host.lost"


def _by_item(results: list[Result], view: str = "host") -> dict[str, Result]:
    return {result.item: result for result in results if result.view == view}


# Cases that could not be tried


@pytest.mark.parametrize("verdict", ["skip", "error"])
@pytest.mark.parametrize("case", [MSI, BY_GUEST, BROADCAST, RESET, RESET_BY_GUEST], ids=lambda case: case.prefix)
def test_what_could_not_be_tried_is_said_of_every_item_in_every_view(case: plan.Case, verdict: str) -> None:
    results = judged(case, HOST, Untried(verdict, "made up"), plants=True)
    wanted = [(prefix.rpartition(".")[2], item) for prefix, names in plan.looks(case) for item in names]
    assert sorted((r.view, r.item) for r in results) == sorted(wanted)
    assert {(r.verdict, r.reason, r.planted, r.expected, r.observed) for r in results} == {(verdict, "made up", None, None, None)}
    assert all(result.cite for result in results)


def test_a_measurement_that_could_not_be_made_has_each_result_with_its_citations() -> None:
    assert STRESS.scenario
    for seen in (Untried("error", "made up"), Played((), Ended(0, "error", "made up"))):
        results = judged(STRESS, HOST, seen)
        assert [r.item for r in results] == ["lost", "doubled", "astray"]
        assert {(r.verdict, r.reason) for r in results} == {("error", "made up")}
        assert {r.cite for r in results} == {STRESS.scenario.cite}


# Behaviours


def _counted(lost: int, host: Host = HOST) -> Result:
    counts = {"lost": (lost, "round 3"), "doubled": (0, ""), "astray": (0, "")}
    found, *others = judged(STRESS, host, Played(((0, Measured(counts)),)))
    assert found.id == LOST and [(r.item, r.verdict) for r in others] == [("doubled", "pass"), ("astray", "pass")]
    return found


def test_what_was_counted_is_compared_with_what_is_expected() -> None:
    assert (_counted(0).verdict, _counted(0).expected, _counted(0).reason) == ("pass", "0x0", "round 3")
    assert (_counted(2).verdict, _counted(2).observed, _counted(2).reason) == ("fail", "0x2", "round 3")
    assert effects.lost("sipi", "lost") and effects.lost("sipi", "astray") and not effects.lost("reset", "lost")


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch) -> None:
    deviation = deviations.Deviation(LOST, "sipi", "0x2", "f()", "it is so", "open", backends="vmx")
    monkeypatch.setitem(deviations._BY_ITEM, (LOST, "sipi"), (deviation,))


@pytest.mark.parametrize(
    ("lost", "verdict", "reason"), [(2, "known", "it is so; round 3"), (1, "fail", "round 3"), (0, "fixed", "it is so; round 3")]
)
def test_a_behaviour_may_be_as_a_deviation_says(listed: None, lost: int, verdict: str, reason: str) -> None:
    result = _counted(lost)
    assert (result.verdict, result.reason) == (verdict, reason)
    assert result.deviation == ("f()" if verdict in ("known", "fixed") else None)


def test_a_deviation_of_another_backend_says_nothing_of_a_behaviour(listed: None) -> None:
    assert _counted(2, NOBODY).verdict == "fail" and _counted(0, NOBODY).verdict == "pass"


# A second try


@pytest.mark.parametrize("case", [MSI, BY_GUEST], ids=lambda case: case.view)
def test_what_passes_at_a_second_try_is_info_and_the_rest_stays(case: plan.Case) -> None:
    report = Report({"rbx": 0, "rcx": 7, "cr0": 0x10}, {"dr0": "it cannot"}, "it stopped") if case is BY_GUEST else None
    seen = shown(case, (USED, filled(0, rcx=7)), report=report)
    once, again = (judged(case, HOST, what, basis(case)) for what in (seen, Again(seen, "no exit at the first try")))
    assert [(r.view, r.item) for r in once] == [(r.view, r.item) for r in again]
    verdicts = {result.verdict for result in once}
    assert verdicts >= {Verdict.PASS, Verdict.FAIL, Verdict.SKIP} and (case is MSI or Verdict.ERROR in verdicts)
    for first, second in zip(once, again, strict=True):
        if first.verdict is not Verdict.PASS:
            assert second.record == first.record
            continue
        reason = "; ".join(filter(None, (first.reason, "no exit at the first try")))
        assert second.record == first.record._replace(verdict=Verdict.INFO, reason=reason)


# Broadcasts


ICR = 0xC4500
SENT = filled(0x33, **{"lapic_icr": ICR, "lapic_icr2": 0})


def _broadcast(before: Snapshot = SENT, after: Snapshot = SENT, *targets: Snapshot) -> dict[str, Result]:
    pairs = [(USED, target) for target in targets or (NEW, NEW)]
    seen = shown(BROADCAST, *pairs, sender=(before, after))
    return _by_item(judged(BROADCAST, HOST, seen, *(basis(BROADCAST, number + 1) for number in range(len(pairs)))))


@pytest.mark.parametrize(
    ("values", "changed"),
    [
        ({}, ""),
        ({"rbx": 1}, "rbx"),
        ({"rbx": 1, "dr7": 1}, "rbx, dr7"),
        # Changed by sending.
        ({"rip": 5}, ""),
        ({"lapic_icr": 5, "lapic_icr2": 6}, ""),
    ],
)
def test_a_sender_that_is_another_after_sending_fails(values: dict[str, int], changed: str) -> None:
    results = _broadcast(SENT, filled(0x33, **{"lapic_icr": ICR, "lapic_icr2": 0} | values))
    reported = results["delivered"]
    assert (reported.verdict, reported.observed) == (("fail", f"{changed} changed") if changed else ("pass", "nothing changed"))
    assert results["rbx"].verdict == "pass" and not results["rbx"].reason


@pytest.mark.parametrize("section", sorted(SIZES))
def test_a_sender_that_could_not_be_read_is_an_error_and_not_untouched(section: str) -> None:
    for before, after in ((lost(SENT, section), SENT), (SENT, lost(SENT, section)), (lost(SENT, section),) * 2):
        results = _broadcast(before, after)
        reported = results["delivered"]
        assert (reported.verdict, reported.observed) == ("error", None)
        assert reported.reason == "cannot determine if anything changed: EFAULT"
        assert results["rbx"].verdict == "pass"


def test_one_target_is_judged_by_itself() -> None:
    results = _broadcast(SENT, SENT, NEW, filled(0, rbx=5), NEW)
    assert (results["rbx"].verdict, results["rbx"].observed, results["rbx"].reason) == ("fail", "0x5", "vcpus 2 of 3")
    assert results["rcx"].verdict == "pass"
    results = _broadcast(SENT, SENT, NEW, NEW, lost(NEW, "regs"))
    assert (results["rbx"].verdict, results["rbx"].reason) == ("error", "vcpus 3 of 3: EFAULT")


# Resets by ioctls


def _reset(
    *afters: Snapshot, refused: dict[str, str] | None = None, read_only: dict[str, str] | None = None
) -> dict[str, Result]:
    orders = (("sregs", "msrs"), ("msrs", "sregs"), ("events", "regs"))
    shown = zip(orders, afters, strict=False)
    tries = tuple(ResetTry(order, refused or {}, Evidence(USED, after)) for order, after in shown)
    return _by_item(judged(RESET, HOST, ResetSeen(None, read_only or {}, tries), basis(RESET)))


def test_a_vcpu_that_was_reset_must_be_as_it_was_when_new() -> None:
    good, bad = _reset(NEW, NEW), _reset(NEW, filled(0, rbx=5))
    assert (good["rbx"].verdict, good["rbx"].expected, good["rbx"].cite[-1]) == ("pass", "0x0", KVM_API)
    assert (bad["rbx"].verdict, bad["rbx"].observed, bad["rbx"].reason) == ("fail", "0x5", "orders msrs>sregs of 2")
    assert bad["rcx"].verdict == "pass"
    assert _reset(filled(0, rbx=5))["rbx"].reason == ""


def test_what_kvm_refused_is_said_of_what_fails_and_of_nothing_else() -> None:
    left = filled(0, rbx=5, dr7=5, msr_star=5)
    results = _reset(left, refused={"debugregs": "EINVAL", "regs": "EPERM", "msr.star": "it keeps STAR"})
    # Of a section that was refused nothing is known but the errno; of an item, that it kept its value.
    assert (results["dr7"].verdict, results["dr7"].reason) == ("error", "EINVAL")
    assert (results["rbx"].verdict, results["rbx"].reason) == ("error", "EPERM")
    assert (results["msr.star"].verdict, results["msr.star"].reason) == ("fail", "it keeps STAR")
    assert results["rcx"].verdict == results["dr0"].verdict == "pass"
    only = _reset(left, read_only={"msr.star": "read-only"})["msr.star"]
    assert (only.verdict, only.reason) == ("fail", "read-only")


def test_what_rests_on_a_section_that_kvm_refused_is_no_fail() -> None:
    left = filled(0, lapic_svr=5, msr_star=5)
    results = _reset(left, refused={"sregs": "EINVAL"})
    assert (results["lapic.svr"].verdict, results["lapic.svr"].reason) == ("error", "EINVAL")
    assert results["msr.star"].verdict == _reset(left)["lapic.svr"].verdict == "fail"
    at_reset = {(one.first, one.second) for one in CONSTRAINTS if one.at_reset}
    assert at_reset <= {(one, section) for section, others in RESTS_ON.items() for one in others}


def test_cpuid_that_follows_a_section_that_this_kvm_does_not_show_is_a_skip() -> None:
    placed = ((0xD, 0),)
    for missing, verdict in ({"xcrs": "no XCRs here"}, "skip"), ({}, "fail"):
        layout = Layout(LAYOUT.msrs, {}, LAYOUT.missing_sections | missing, placed)
        size = max(layout.fields[i].offset + layout.fields[i].size for i in layout.by_section["cpuid"])
        item = "cpuid.d.ebx"
        field = layout.fields[item]
        states = []
        for value in (576, 832, 832):
            contents = bytearray(size)
            field.put(contents, value)
            sections = {name: bytes(SIZES[name]) for name in SIZES if name not in missing}
            states.append(Snapshot(sections | {"cpuid": bytes(contents)}, {}))
        new, used, after = states
        mine = basis(RESET)._replace(layout=layout, baseline=new)
        seen = ResetSeen(None, {}, (ResetTry(("cpuid",), {}, Evidence(used, after)),))
        result = _by_item(judged(RESET, HOST, seen, mine))[item]
        assert result.verdict == verdict and result.reason == missing.get("xcrs", "")


def _after_reset(new: Report, report: Report) -> dict[str, Result]:
    mine = basis(RESET_BY_GUEST)
    mine = mine._replace(ctx=mine.ctx._replace(is_bsp=True))
    seen = ResetSeen(new, {}, (ResetTry(("regs",), {}, Evidence(USED, NEW, report)),))
    return _by_item(judged(RESET_BY_GUEST, HOST, seen, mine), "guest")


def test_guest_code_must_tell_what_it_reported_on_a_new_vcpu() -> None:
    new, same = Report({"rbx": 0, "rcx": 3}, {}, ""), Report({"rbx": 0, "rcx": 3}, {}, "")
    assert {_after_reset(new, same)[item].verdict for item in ("rbx", "rcx")} == {"pass"}
    other = _after_reset(new, Report({"rbx": 0, "rcx": 4}, {}, ""))
    assert (other["rcx"].verdict, other["rcx"].expected, other["rbx"].verdict) == ("fail", "0x3", "pass")


@pytest.mark.parametrize("later", [Report({"rbx": 0}, {}, ""), Report({}, {"rbx": "exception 13"}, "")], ids=["value", "none"])
def test_without_what_a_new_vcpu_reported_nothing_is_judged_whatever_comes_later(later: Report) -> None:
    silent = _after_reset(Report({"rcx": 3}, {}, "it stopped"), later)["rbx"]
    assert (silent.verdict, silent.observed, silent.reason) == ("error", None, "it stopped")
    cannot = _after_reset(Report({"rcx": 3}, {"rbx": "exception 6"}, ""), later)["rbx"]
    assert (cannot.verdict, cannot.observed, cannot.reason) == ("skip", None, "exception 6")
