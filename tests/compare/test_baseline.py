# SPDX-License-Identifier: GPL-2.0-only
"""A run against a saved one: what is new, gone, the same, and what cannot be told."""

from __future__ import annotations

import io
import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmtest.cli import main
from kvmtest.commands import outcome
from kvmtest.compare.baseline import Against, Comparison, compare
from kvmtest.compare.results import Index
from kvmtest.engine import judge
from kvmtest.engine.result import OUT_OF_TIME, VERDICTS, CaseTime, Host, Result
from kvmtest.kvm import Kvm
from kvmtest.report.jsonl import JsonLines
from kvmtest.report.saved import Saved
from kvmtest.spec.rule import value

_HOST = Host("6.1", "svm", "AuthenticAMD", "x", {})


def _result(item: str, verdict: str, case: str = "x", observed: str | None = "0x1") -> Result:
    where = (f"init.msi.host.{item}", "init", "msi", "host", item, f"init.msi.host/{case}")
    return Result(*where, "0x1", "0x0", None if verdict in ("skip", "error") else observed, verdict, "why", ("SDM",), None)


def _compare(old: list[Result], now: list[Result], strict: bool = False) -> Comparison:
    return compare(Index(old), Index(now), strict)


def _counts(found: Comparison) -> dict[str, int]:
    return {name: len(part) for name, part in zip(Comparison._fields, found, strict=True) if part}


@pytest.mark.parametrize(
    ("before", "now", "what"),
    [
        ("pass", "fail", "new"),
        ("skip", "fail", "new"),
        ("info", "error", "new"),
        ("known", "fail", "new"),
        # What could not be determined before may fail for the first time, and the other way round.
        ("error", "fail", "new"),
        ("fail", "error", "new"),
        ("pass", "known", "new_known"),
        ("fail", "pass", "gone"),
        ("known", "fixed", "gone"),
        ("error", "info", "gone"),
        ("fail", "fail", "same"),
        ("error", "error", "same"),
        ("known", "known", "same"),
        ("fail", "known", "same"),
        # What cannot be tried is not mended.
        ("fail", "skip", "untold"),
        ("pass", "skip", ""),
        ("pass", "info", ""),
    ],
)
def test_what_became_of_it(before: str, now: str, what: str) -> None:
    found = _compare([_result("cr2", before)], [_result("cr2", now)])
    assert _counts(found) == ({what: 1} if what else {})


def _late(item: str) -> Result:
    return _result(item, "error")._replace(reason=f"{OUT_OF_TIME}: in step LONG: KVM_RUN: no exit within 1 s")


@pytest.mark.parametrize(
    ("before", "now", "what"),
    [
        ("pass", "late", "late"),
        ("fail", "late", "late"),
        ("known", "late", "late"),
        ("late", "pass", "late"),
        ("late", "info", "late"),
        # What was never seen before may have been there.
        ("late", "fail", "new"),
        ("late", "late", "same"),
        ("late", "skip", "untold"),
    ],
)
def test_what_gave_no_answer_in_time_stands_apart(before: str, now: str, what: str) -> None:
    made = [_late("cr2") if verdict == "late" else _result("cr2", verdict) for verdict in (before, now)]
    assert _counts(_compare(made[:1], made[1:])) == {what: 1}


def test_no_answer_in_time_has_a_section_of_its_own_and_is_not_good(capsys: pytest.CaptureFixture[str]) -> None:
    old = [_result("cr0", "pass"), _result("cr2", "pass")]
    against, text = _against(old, [_result("cr0", "pass"), _late("cr2")])
    assert not against.new and against.late == 1
    assert "0 new, 0 gone, 0 the same, 1 without an answer in time" in text
    assert "New:" not in text and "No answer in time, now or then; not counted as new or gone:\npass -> error" in text
    against, text = _against([_result("cr0", "pass"), _late("cr2")], [_result("cr0", "pass"), _result("cr2", "pass")])
    assert not against.new and not against.late and "Gone:" not in text and "error -> pass" in text


def test_alone_it_does_not_end_with_success(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    saved = Saved("old.json", _HOST, "", 0.0, (), (_result("cr0", "pass"), _result("cr2", "pass")))
    decides = outcome._Baseline(saved, (), False, io.StringIO())
    writer = decides.watch(JsonLines(io.StringIO()))
    writer.begin(_HOST, "", 1)
    for result in (_result("cr0", "pass"), _late("cr2")):
        writer.result(result)
    totals = Counter(("pass", "error"))
    writer.end(1.0, totals)
    assert decides.status(totals) == 1 and "1 x no answer in time" in capsys.readouterr().err


def test_under_bisect_it_cannot_tell(capsys: pytest.CaptureFixture[str]) -> None:
    decides = outcome.Bisect(("init.msi.host.cr2",))
    decides.see(_late("cr2"))
    assert decides.status(Counter(error=1)) == 125 and "out of time" in capsys.readouterr().err


def test_strict_takes_a_new_known_for_a_failure() -> None:
    assert _counts(_compare([_result("cr2", "pass")], [_result("cr2", "known")], strict=True)) == {"new": 1}
    assert _counts(_compare([_result("cr2", "fail")], [_result("cr2", "known")], strict=True)) == {"same": 1}


def test_a_case_that_the_baseline_has_not_is_new_and_said() -> None:
    found = _compare([_result("cr2", "pass")], [_result("cr2", "pass"), _result("cr2", "fail", "y")])
    assert len(found.new) == 1 and found.only_now == {"init.msi.host/y"}
    found = _compare([_result("cr2", "pass"), _result("cr2", "fail", "y")], [_result("cr2", "pass")])
    assert not found.gone and found.only_then == {"init.msi.host/y"}


def test_a_departure_whose_result_is_missing_is_not_gone() -> None:
    old = [_result("cr2", "fail"), _result("cr0", "pass")]
    assert _counts(_compare(old, [_result("cr0", "pass")])) == {"untold": 1}


_RESULTS = st.lists(
    st.builds(_result, st.sampled_from(["cr0", "cr2"]), st.sampled_from(VERDICTS), st.sampled_from("xy")),
    unique_by=lambda result: (result.item, result.case),
)


@given(_RESULTS, _RESULTS)
def test_every_departure_is_counted_once(old: list[Result], now: list[Result]) -> None:
    found = _compare(old, now)
    departs = {"fail", "error", "known"}
    of_now = [change.b for part in (found.new, found.new_known, found.same) for change in part]
    assert Counter(of_now) == Counter(result for result in now if result.verdict in departs)
    assert not _compare(now, now).new and not _compare(now, now).gone


def _against(old: list[Result], now: list[Result], selectors: tuple[str, ...] = ()) -> tuple[Against, str]:
    out, text = io.StringIO(), io.StringIO()
    saved = Saved("old.json", _HOST._replace(kernel="5.10"), "", 0.0, (), tuple(old))
    against = Against(JsonLines(out), saved, selectors, False, text)
    against.begin(_HOST, "", 1)
    for result in now:
        against.result(result)
    for case in {result.case for result in now}:
        against.case(CaseTime(case, 0.1))
    against.end(1.0, Counter(result.verdict for result in now))
    assert len(out.getvalue().splitlines()) == len(now)
    return against, text.getvalue()


def test_the_section_says_it_all() -> None:
    same = [_result("cr4", "known")]
    old = [_result("cr0", "fail"), _result("cr2", "pass"), _result("cr3", "fail", observed="0x5"), *same]
    now = [_result("cr0", "pass"), _result("cr2", "fail"), _result("cr3", "fail"), *same, _result("r8", "pass", "n")]
    against, text = _against(old, now)
    assert against.new == {"fail": 1}
    assert "Against old.json, departures from the manuals: 1 new, 1 gone, 2 the same" in text
    assert "  kernel: 5.10 -> 6.1" in text
    assert "New:\npass -> fail  init.msi.host.cr2" in text and "Gone:\nfail -> pass  init.msi.host.cr0" in text
    assert "The same, with another value:\nfail  init.msi.host.cr3" in text
    assert "The same: 1 fail, 1 known" in text
    assert "Cases in this run only: 1, e.g. init.msi.host/n" in text


def test_a_value_that_is_no_number_and_one_that_speaks_to_the_terminal() -> None:
    lvt, evil = "0x10000, 7 LVT entries", "0x1\x1b[31m"
    now = [_result("a", "fail", "x", lvt), _result("b", "fail", "x", evil)]
    _, text = _against([_result("a", "pass"), _result("b", "pass")], now)
    assert f"-> {lvt}" in text and "0x1\\x1b[31m" in text and "\x1b" not in text


def test_what_the_selectors_leave_out_is_not_missed() -> None:
    old = [_result("cr0", "fail"), _result("cr2", "fail", "other")]
    against, text = _against(old, [_result("cr0", "fail")], ("*.cr0",))
    assert not against.new and "1 the same" in text and "only" not in text


def test_a_kernels_log_is_asked_whatever_the_selectors() -> None:
    where = ("none.lab.kernel.log", "none", "lab", "kernel", "log", "init.msi.host/x")
    log = Result(*where, None, None, None, "fail", "WARNING: at x86.c:1", (), None)
    assert not _against([log], [log], ("*.cr0",))[0].new
    assert _against([], [log], ("*.cr0",))[0].new == {"fail": 1}


@pytest.fixture
def saved(kvm: Kvm, tmp_path: Path) -> Path:
    """Results of this machine's KVM."""
    path = tmp_path / "old.json"
    assert main(["run", "--format", "json", "-o", str(path), "init.irqfd.host"]) in (0, 1)
    return path


def test_against_itself_nothing_is_new(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--baseline", str(saved), "init.irqfd.host"]) == 0
    assert "departures from the manuals: 0 new, 0 gone" in capsys.readouterr().out
    assert main(["run", "--baseline", str(saved), "--format", "jsonl", "init.irqfd.host"]) == 0
    shown = capsys.readouterr()
    assert "0 new, 0 gone" in shown.err and "Against" not in shown.out


def test_only_what_is_new_fails(saved: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The baseline is bent so that R8 failed, then the rule so that RBX fails."""
    document = json.loads(saved.read_text())
    for result in document["results"]:
        if result["item"] == "r8":
            result["verdict"] = "fail"
    saved.write_text(json.dumps(document))
    assert main(["run", "--baseline", str(saved), "init.irqfd.host.r*"]) == 0
    assert "Gone:\nfail -> pass  init.irqfd.host.r8" in capsys.readouterr().out
    rule = judge._rule
    monkeypatch.setattr(judge, "_rule", lambda item, *more: value(7) if item == "rbx" else rule(item, *more))
    assert main(["run", "--baseline", str(saved), "init.irqfd.host.r*"]) == 1
    assert "New:\npass -> fail  init.irqfd.host.rbx" in capsys.readouterr().out


@pytest.mark.parametrize("bend", ["cut", "schema", "snapshot", "matrix", "missing"])
def test_a_bad_baseline_is_one_line_before_anything_runs(
    bend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*args: object) -> None:
        raise AssertionError("it ran")

    monkeypatch.setattr("kvmtest.engine.doctor.open_kvm", run)
    monkeypatch.setattr("kvmtest.commands.lab._specs", run)
    body = {"host": {}, "results": []}
    text = {
        "cut": '{"schema": "kvmtest.results/1", "results": [',
        "schema": json.dumps({"schema": "kvmtest.results/9", **body}),
        "snapshot": json.dumps({"schema": "kvmtest.snapshot/1", **body}),
        "matrix": json.dumps({"schema": "kvmtest.matrix/1", "cells": []}),
    }
    path = tmp_path / "old"
    if bend in text:
        path.write_text(text[bend])
    for command in (["run"], ["lab", "run", "--backend", "svm", "--kernel", "x"]):
        assert main([*command, "--baseline", str(path)]) == 2
        error = capsys.readouterr().err
        assert error.startswith("kvmtest: ") and error.count("\n") == 1
