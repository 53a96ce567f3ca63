# SPDX-License-Identifier: GPL-2.0-only
"""Scenarios are judged step by step: each condition by itself, up to the first departure."""

from __future__ import annotations

from typing import Any

import pytest

from kvmtest.engine.plan import plan, select
from kvmtest.judge.cache import Cache
from kvmtest.judge.evidence import Ended, Exited, Look, Played
from kvmtest.judge.scenario import played
from kvmtest.model.case import Case
from kvmtest.model.record import OUT_OF_TIME, Result
from kvmtest.model.verdict import Verdict
from kvmtest.scenario import memory
from kvmtest.scenario import step as s
from kvmtest.scenario.catalogue import SCENARIOS
from kvmtest.scenario.looks import looks
from kvmtest.spec import deviations
from kvmtest.state.guest_view import Report
from kvmtest.state.sections import Snapshot
from kvmtest.uapi.kvm import KVM_EXIT_SHUTDOWN
from tests.cases import judged, shown, the
from tests.judge.made import HOST, NEW, USED, basis, filled, lost

ITEM = the("init.msi.host/ap,intel,xapic,plant-a")
TOLD = the("init.msi.guest/ap,intel,xapic,plant-a")
SHUTDOWN = Exited("exit", KVM_EXIT_SHUTDOWN, None, "KVM_EXIT_SHUTDOWN")
QUIET = Exited("quiet", 0, None, "no exit")


def _said(value: int, name: str = "PORT_VALUE") -> Exited:
    return Exited("out", memory.number("smm", name), value, f"KVM_EXIT_IO out {value:#x}")


#: A condition, what it wants, and what it does not, and how the record shows that.
CONDITIONS: dict[str, tuple[s.Condition, Any, Any, Any]] = {
    "word": (s.Word("VALUE"), _said(7), SHUTDOWN, "KVM_EXIT_SHUTDOWN"),
    "another word": (s.Word("VALUE"), _said(7), _said(7, "PORT_READY"), "READY"),
    "a word's value": (s.Word("VALUE", 7), _said(7), _said(8), 8),
    "exit": (s.Exit(KVM_EXIT_SHUTDOWN, "shuts down"), SHUTDOWN, QUIET, s.Quiet().says),
    "quiet": (s.Quiet(), QUIET, SHUTDOWN, "KVM_EXIT_SHUTDOWN"),
    "item": (s.Is("events.smi_smm", 1), 1, 0, 0),
    "masked item": (s.Is("cr0", 0x80000011, 0xF), 1, 2, 2),
    "memory": (s.Holds("SMM_TURNS", 5), 5, 4, 4),
    "accepted": (s.Answer(0), 0, -22, "EINVAL"),
    "refused": (s.Answer(-22), -22, -16, "EBUSY"),
    "the same": (s.Same(), USED, filled(0x5A, rbx=1), "rbx changed"),
    "a PPR computed late": (s.Same(), filled(0x5A, lapic_ppr=0xF0), filled(0x5A, lapic_ppr=0xE0), "lapic.ppr changed"),
    "the same but for": (s.Same(("rbx",)), filled(0x5A, rbx=1), filled(0x5A, rbx=1, rcx=1), "rcx changed"),
}
FIRST, AFTER = s.Is("events.nmi_masked", 1), s.Is("events.nmi_pending", 0)


def _judged(
    steps: tuple[s.Step, ...], evidence: list[tuple[int, Any]], end: Ended | None = None, **more: Any
) -> dict[str, Result]:
    """The results in the host's view, by item."""
    scenario = s.Scenario("init", "msi", "made-up", steps, ("a manual",), **more)
    look = Look(Case("case"), "init", "msi", "host", "intel", "ap", (), scenario)
    seen = played(Cache(), look, HOST, (basis(ITEM),), Played(tuple(evidence), end))
    return {result.item: result for one in seen for result in one.results if result.view == "host"}


def test_in_brief_what_holds_has_no_values_and_what_departs_has_all() -> None:
    steps = (s.Expect(FIRST, "first"), s.Expect(AFTER, "after"))
    scenario = s.Scenario("init", "msi", "made-up", steps, ("a manual",))
    look = Look(Case("case"), "init", "msi", "host", "intel", "ap", (), scenario)
    (seen,) = played(Cache(brief=True), look, HOST, (basis(ITEM),), Played(((0, 1), (1, 1)), None))
    held, departs = seen.results
    assert (held.item, held.verdict, held.record.expected) == ("first", Verdict.PASS, None)
    assert (departs.item, departs.verdict, departs.observed) == ("after", Verdict.FAIL, "0x1")


def _around(condition: s.Condition) -> tuple[s.Step, ...]:
    before, after = s.Expect(FIRST, "first"), s.Expect(AFTER, "after")
    return (s.Load("smm"), s.Observe(), s.Send("init"), before, s.Expect(condition, "exits"), after, s.Observe())


def _evidence(value: Any) -> list[tuple[int, Any]]:
    return [(1, USED), (3, 1), (4, value), (5, 0), (6, NEW)]


@pytest.mark.parametrize("name", CONDITIONS)
def test_what_is_as_expected_passes_and_the_table_is_judged(name: str) -> None:
    condition, good, _, _ = CONDITIONS[name]
    results = _judged(_around(condition), _evidence(good))
    assert {results[item].verdict for item in ("first", "exits", "after", "rbx")} == {"pass"}
    assert results["exits"].record.expected and results["exits"].cite == ("a manual",)


@pytest.mark.parametrize("name", CONDITIONS)
def test_one_change_fails_its_record_and_what_comes_after_it_is_not_judged(name: str) -> None:
    condition, good, bad, observed = CONDITIONS[name]
    right, wrong = (_judged(_around(condition), _evidence(value)) for value in (good, bad))
    assert wrong.keys() == {"first", "exits"} and wrong["first"].record == right["first"].record
    assert (wrong["exits"].verdict, wrong["exits"].record.observed) == ("fail", observed)
    expected = wrong["exits"].record.expected
    assert expected and observed not in expected.values


def test_what_the_manuals_leave_open_is_recorded_and_no_departure() -> None:
    condition, good, bad, _ = CONDITIONS["exit"]
    for value in (good, bad):
        results = _judged(_around(condition), _evidence(value), undefined="nobody says")
        evidence = results["exits"]
        assert (evidence.verdict, evidence.expected) == ("info", None) and "nobody says" in evidence.reason


def test_one_register_that_differs_is_one_record_of_the_table() -> None:
    condition, good, _, _ = CONDITIONS["item"]
    evidence = _evidence(good)
    right, wrong = (_judged(_around(condition), [*evidence[:-1], (6, after)]) for after in (NEW, filled(0, rbx=5)))
    assert {item for item in right if right[item].record != wrong[item].record} == {"rbx"}
    assert (wrong["rbx"].verdict, wrong["rbx"].observed) == ("fail", "0x5")


def test_one_value_that_the_guest_reads_otherwise_is_one_record_in_both_views() -> None:
    reports = (Report({"rbx": value, "rcx": 0}, {}, "") for value in (0, 1))
    right, wrong = (
        {(r.view, r.item): r.record for r in judged(TOLD, HOST, shown(TOLD, (USED, NEW), report=report), basis(TOLD))}
        for report in reports
    )
    assert {place for place in right if right[place] != wrong[place]} == {("guest", "rbx"), ("views", "rbx")}
    assert wrong["guest", "rbx"].verdict == wrong["views", "rbx"].verdict == "fail"


@pytest.mark.parametrize(
    ("before", "after", "why"),
    [
        (USED, USED._replace(sections=USED.sections | {"events": NEW.sections["events"]}), "left no trace"),
        (USED, filled(0, events_smi_latched_init=1), "is still pending"),
        (USED, lost(NEW, "mp_state"), "cannot determine if the INIT was accepted: EFAULT"),
        (USED, lost(NEW, "events"), "cannot determine if the INIT was accepted: EFAULT"),
    ],
    ids=["no trace", "pending", "no activity state", "no events"],
)
def test_an_init_that_is_not_proven_is_an_error_of_every_item(before: Snapshot, after: Snapshot, why: str) -> None:
    results = judged(ITEM, HOST, shown(ITEM, (before, after)), basis(ITEM))
    assert len(results) > 300 and {r.verdict for r in results} == {"error"}
    assert all(why in r.reason for r in results)


def test_an_init_that_is_not_proven_is_an_error_for_the_guest_too() -> None:
    seen = shown(TOLD, (USED, filled(0, events_smi_latched_init=1)), report=Report({"rbx": 0}, {}, ""))
    results = judged(TOLD, HOST, seen, basis(TOLD))
    assert {r.view for r in results} == {"host", "guest", "views"} and {r.verdict for r in results} == {"error"}


@pytest.mark.parametrize("section", ["regs", "sregs", "debugregs"])
def test_a_trace_is_missed_where_it_could_not_be_read(section: str) -> None:
    """Everything else is as planted."""
    same = USED._replace(sections=USED.sections | {"events": NEW.sections["events"]})
    results = judged(ITEM, HOST, shown(ITEM, (USED, lost(same, section))), basis(ITEM))
    assert {r.verdict for r in results} == {"error"} and "cannot determine if" in results[0].reason


@pytest.mark.parametrize("verdict", ["skip", "error"])
def test_where_a_program_ends_what_was_not_seen_says_why(verdict: str) -> None:
    condition, good, _, _ = CONDITIONS["word"]
    results = _judged(_around(condition), _evidence(good)[:2], Ended(4, verdict, "no such thing"))
    assert results.pop("first").verdict == "pass"
    assert results.keys() >= {"exits", "after", "rbx", "cr0"} and len(results) > 300
    assert {(r.verdict, r.reason, r.observed) for r in results.values()} == {(verdict, "no such thing", None)}


def test_what_did_not_come_in_time_says_so() -> None:
    results = _judged(_around(CONDITIONS["word"][0]), _evidence(0)[:2], Ended(4, "error", "no word", late=True))
    assert results["exits"].record.out_of_time and results["rbx"].reason == f"{OUT_OF_TIME}: no word"


@pytest.mark.parametrize(
    ("value", "verdict"), [(SHUTDOWN, "known"), (Exited("exit", 9, None, "KVM_EXIT_FAIL_ENTRY"), "fail"), (QUIET, "fixed")]
)
def test_a_deviation_that_is_listed_makes_its_exact_value_known(
    value: Exited, verdict: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    id = "init.msi.host.exits"
    deviation = deviations.Deviation(id, "init", "KVM_EXIT_SHUTDOWN", "f()", "it is so", "open", backends="vmx")
    monkeypatch.setitem(deviations._BY_ITEM, (id, "init"), (deviation,))
    results = _judged(_around(s.Quiet()), _evidence(value))
    assert (results["exits"].verdict, results["exits"].deviation) == (verdict, None if verdict == "fail" else "f()")
    # A known deviation departs all the same.
    assert ("after" in results) == (verdict == "fixed")


def test_a_guest_that_takes_an_exception_after_shutdown_is_a_deviation_of_old_kernels() -> None:
    """Of those that made no whole INIT of SHUTDOWN. One that says nothing in time is an error as ever."""
    exception = Report({}, {}, "an exception at CS:IP f000:fff0 after 0 of 18 port writes")
    case = the("shutdown.triple-fault.guest/bsp,intel,xapic,plant-guest-long,at-triple-fault")
    assert case.scenario
    at = next(number for number, step in enumerate(case.scenario.steps) if isinstance(step, s.Guest))
    old = HOST._replace(backend="svm", kernel="5.10.1")
    for host, report, evidence in (
        (old, exception, {"runs": "known"}),
        (old._replace(kernel="6.1.0"), exception, {"runs": "fail"}),
        (old, Report({}, {}, "nothing within 1 s", late=True), {"runs": "error"}),
    ):
        results = [one for one in judged(case, host, Played(((at, report),)), basis(case)) if one.view == "guest"]
        assert {one.item: str(one.verdict) for one in results if str(one.verdict) != "skip"} == evidence


def test_a_guest_that_kvm_cannot_enter_is_a_departure_and_one_out_of_time_if_a_listed_deviation_says_so() -> None:
    """TPR_THRESHOLD above TPR, before bb365a506b1e: VM entry fails, or where it is not checked exits at once for ever."""
    no_entry = "KVM_EXIT_FAIL_ENTRY hardware_entry_failure_reason"
    stopped, nothing = (
        Report({}, {}, f"the guest stopped after 0 of 18 port writes: {no_entry}={reason}") for reason in ("0x7", "0x80000021")
    )
    late = Report({}, {}, "out of time: after 0 of 18 port writes: KVM_RUN: no exit within 1 s", late=True)
    wide, narrow, other = (
        the(f"init.msi.guest/ap,intel,{mode},plant-guest-long,{state}")
        for mode, state in (("x2apic", "irq-requested"), ("xapic", "irq-requested"), ("x2apic", "in-port-read"))
    )
    starts = "the first instruction at the SIPI's vector"
    for case, kernel, report, expected in (
        (wide, "6.1.0", stopped, ("known", f"{no_entry}=0x7")),
        (wide, "6.1.0", nothing, ("fail", f"{no_entry}=0x80000021")),
        (wide, "7.2.0", stopped, ("fail", f"{no_entry}=0x7")),
        (other, "6.1.0", stopped, ("fail", f"{no_entry}=0x7")),
        (narrow, "6.1.0", late, ("known", "executes nothing")),
        (narrow, "7.2.0", late, ("error", None)),
        (other, "6.1.0", late, ("error", None)),
        # Another exit may be what this KVM cannot emulate.
        (wide, "6.1.0", Report({}, {}, "the guest stopped: KVM_EXIT_INTERNAL_ERROR"), ("error", None)),
        (wide, "7.2.0", Report({"rax": 0}, {}, "the guest stopped: KVM_EXIT_SHUTDOWN"), ("pass", starts)),
    ):
        assert case.scenario
        at = next(number for number, step in enumerate(case.scenario.steps) if isinstance(step, s.Guest))
        made = {
            one.item: one for one in judged(case, HOST._replace(kernel=kernel), Played(((at, report),)), basis(case))
            if one.view == "guest"
        }  # fmt: skip
        assert (str(made["runs"].verdict), made["runs"].observed) == expected
        # Where it does not run, nothing else is said of it.
        assert report.values or {str(one.verdict) for item, one in made.items() if item != "runs"} == {"skip"}


_NO_ENTRY = "KVM_EXIT_FAIL_ENTRY hardware_entry_failure_reason=0x7"


def test_a_guest_that_kvm_cannot_enter_after_its_first_instructions_does_not_run() -> None:
    """With unrestricted_guest=0 KVM emulates them, and TPR_THRESHOLD counts only then."""
    case = the("init.ioapic.guest/bsp,intel,x2apic,plant-guest-long,irq-requested")
    assert case.scenario
    at = next(number for number, step in enumerate(case.scenario.steps) if isinstance(step, s.Guest))
    for kernel, problem, verdict, left in (
        ("6.1.0", f"the guest stopped in step CS_LIMIT: {_NO_ENTRY}", "known", "skip"),
        ("7.2.0", f"the guest stopped in step CS_LIMIT: {_NO_ENTRY}", "fail", "skip"),
        ("6.1.0", "the guest stopped in step CS_LIMIT: KVM_EXIT_SHUTDOWN", "pass", "error"),
    ):
        report = Report({"rax": 0}, {}, problem)
        seen = judged(case, HOST._replace(kernel=kernel), Played(((at, report),)), basis(case))
        made = {one.item: one for one in seen if one.view == "guest"}
        assert [str(made[item].verdict) for item in ("runs", "rbx")] == [verdict, left]
        assert verdict == "pass" or made["runs"].observed == _NO_ENTRY


def test_nor_does_one_that_kvm_cannot_enter_in_a_later_step() -> None:
    case = select(plan(), ("init.msi.guest.delivered/bsp,intel,interrupt-below-tpr",))[0]
    assert case.scenario
    at = [number for number, step in enumerate(case.scenario.steps) if isinstance(step, s.Expect)]
    reset = Exited("out", memory.number("behaviour", "PORT_RESET"), None, "PORT_RESET")
    for kernel, end, verdicts in (
        ("6.1.0", _NO_ENTRY, ("known", "skip")),
        ("7.2.0", _NO_ENTRY, ("fail", "skip")),
        ("7.2.0", "KVM_EXIT_SHUTDOWN", ("pass", "error")),
    ):
        ended = Ended(at[-1] - 1, "error", f"not seen: writes to port F4H (READY): {end} (cs:rip 0100:4e)")
        seen = Played(((at[0], reset), (at[1], 0)), ended)
        results = judged(case, HOST._replace(kernel=kernel), seen, basis(case))
        made = {one.item: str(one.verdict) for one in results if one.view == "guest"}
        assert (made["runs"], made["delivered"]) == verdicts


def test_what_was_done_after_it_ran_may_be_why_kvm_cannot_enter_it() -> None:
    case = select(plan(), ("init.msi/ap,intel,in-virtual-8086",))[0]
    assert case.scenario
    steps = case.scenario.steps
    at = next(number for number, step in enumerate(steps) if isinstance(step, s.Expect))
    assert any(isinstance(step, s.Send) for step in steps[at:])
    ended = Ended(len(steps) - 1, "error", f"not seen: writes to port F1H (SIPI): {_NO_ENTRY}")
    made = {one.item: str(one.verdict) for one in judged(case, HOST, Played(((at, QUIET), (at + 1, 0)), ended), basis(case))}
    assert made["runs"] == "pass"


def test_where_an_emulator_gets_it_wrong_nothing_is_judged() -> None:
    case = select(plan(), ("none.task-gate/bsp,intel,breakpoint",))[0]
    tcg = HOST._replace(backend="svm", cpu_model="QEMU TCG CPU version 2.5+")
    assert case.scenario
    seen = Played(tuple((number, QUIET) for number, step in enumerate(case.scenario.steps) if isinstance(step, s.Expect)))
    for npt, verdicts in (("Y", {"fail"}), ("N", {"skip"})):
        results = judged(case, tcg._replace(parameters={"npt": npt}), seen, basis(case))
        assert results and {str(one.verdict) for one in results} == verdicts


def test_a_guest_that_kvm_cannot_emulate_is_a_skip_and_any_other_end_an_error() -> None:
    case = select(plan(), ("init.msi/bsp,intel,in-smm-shutdown",))[0]
    why = "not seen: KVM_EXIT_INTERNAL_ERROR KVM_INTERNAL_ERROR_EMULATION ndata=8 insn=0f 0b f4"
    for unrestricted, end, verdicts in (("N", why, {"skip"}), ("Y", why, {"error"}), ("N", "not seen: KVM_EXIT_HLT", {"error"})):
        host = HOST._replace(backend="vmx", parameters={"unrestricted_guest": unrestricted})
        results = judged(case, host, Played((), Ended(0, "error", end)), basis(case))
        assert results and {str(one.verdict) for one in results} == verdicts


def test_that_the_guest_runs_is_judged_once() -> None:
    """The record is that of a step before it which expects the first instruction at the reset vector, if there is one."""
    for scenario, asked in ((TOLD.scenario, 1), (SCENARIOS["init.msi/after-rsm"], 0)):
        assert scenario and any(isinstance(step, s.Guest) for step in scenario.steps)
        judged_by = [scenario.steps[one.step] for one in looks(scenario) if (one.view, one.item) == ("guest", "runs")]
        assert judged_by and sum(isinstance(step, s.Guest) for step in judged_by) == asked
