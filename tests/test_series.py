# SPDX-License-Identifier: GPL-2.0-only
"""Commits found in results: made-up results, and some of real kernels in the lab (data/cells.json)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kvmtest import cli, series
from kvmtest.model.case import Case
from kvmtest.model.host import Host, Tool
from kvmtest.model.record import Block, Observation, Record
from kvmtest.model.run import Head, Run
from kvmtest.model.value import Expected, parse
from kvmtest.model.verdict import Verdict
from kvmtest.results.saved import load
from kvmtest.series import BUG, CANNOT_TELL, FIXED, HIDDEN
from kvmtest.spec.commits import ENTRIES

CELLS = Path(__file__).parent / "data" / "cells.json"


def _result(
    id: str,
    observed: str | None,
    verdict: str,
    planted: str | None = "0x5000",
    expected: str = "0x0",
    reason: str = "",
    words: str = "ap,intel,xapic,plant-a",
    deviation: str | None = None,
) -> Observation:
    event, trigger, view, item = id.split(".", 3)
    wanted = parse(item, expected)
    assert wanted is not None
    target, vendor, *_ = [word for word in words.split(",") if not word.endswith("irqchip")]
    case = Case(f"{event}.{trigger}/{words}", (("target", target), ("vendor", vendor)))
    values = parse(item, planted), Expected((wanted,)), parse(item, observed)
    record = Record(item, Verdict(verdict), *values, reason, ("c",), deviation)
    return Observation(case, event, trigger, view, (Block((record,)),))


def _run(*seen: Observation, backend: str = "svm", kernel: str = "5.10.0") -> Run:
    return Run(Head(Tool("1"), Host(kernel, backend, "x", "x", {}), "", "run"), (), seen)


def _state(commit: str, *results: Observation, **host: str) -> series.Seen:
    return series.states(_run(*results, **host))[commit]


CR3 = "03a6e84069d1"


def test_the_old_value_is_the_bug_and_the_manuals_the_fix_whatever_the_kernels_version() -> None:
    for kernel in ("5.10.0", "7.2.0"):
        assert _state(CR3, _result("init.msi.host.cr3", "0x5000", "known"), kernel=kernel).state == BUG
        assert _state(CR3, _result("init.msi.host.cr3", "0x5000", "fail"), kernel=kernel).state == BUG
        assert _state(CR3, _result("init.msi.host.cr3", "0x0", "pass"), kernel=kernel).state == FIXED
    both = _result("init.msi.host.cr3", "0x0", "pass"), _result("init.self.guest.cr3", "0x5000", "fail")
    bug = _state(CR3, *both)
    assert (bug.state, bug.ids) == (BUG, ("init.self.guest.cr3",))


def test_what_is_neither_value_or_proves_nothing_cannot_tell() -> None:
    other = _state(CR3, _result("init.msi.host.cr3", "0x6000", "fail"), _result("init.msi.host.cr3", "0x0", "pass"))
    assert other.state == CANNOT_TELL and "init.msi.host.cr3 is 0x6000" in other.why
    skipped = _state(CR3, _result("init.msi.host.cr3", "0x0", "skip", reason="nothing was planted"))
    assert skipped == (CANNOT_TELL, "nothing was planted", ("init.msi.host.cr3",))
    assert _state(CR3).why == "none of its ids were run"
    # Both bits were set before: forced or kept, it looks the same.
    same = _result("init.msi.host.cr0", "0x60000010", "pass", planted="0x60000011", expected="0x60000010")
    assert _state("4c72ab5aa6e0", same).state == CANNOT_TELL


def test_a_planted_value_that_another_deviation_explains_shows_nothing() -> None:
    def shown(deviation: str) -> series.Seen:
        kept = "shutdown.triple-fault.host.lapic.lvt_lint0", "0x700", "known", "0x700", "0x10000"
        return _state("265e43530cb2", _result(*kept, deviation=deviation))

    assert shown("kvm_lapic_reset()").state == CANNOT_TELL
    assert shown("265e43530cb2").state == BUG


def test_a_commit_of_the_other_backend_cannot_be_reported() -> None:
    rdx = _result("init.msi.host.rdx", "0x506e3", "pass")
    assert _state("2a24be79b6b7", rdx, backend="vmx").state == FIXED
    elsewhere = _state("2a24be79b6b7", rdx, backend="svm")
    assert elsewhere.state == CANNOT_TELL and elsewhere.why == "it shows on vmx, and this is svm"


def test_the_place_where_it_shows_counts() -> None:
    def base(words: str) -> Observation:
        return _result("reset.create.host.apic_base", "0xfee00800", "pass", None, "0xfee00800", words=words)

    elsewhere = _state("01913c57c225", base("ap,full-irqchip,intel"), backend="vmx")
    assert elsewhere.why == "none of its ids were run"
    assert _state("01913c57c225", base("ap,no-irqchip,intel"), backend="vmx").state == FIXED


def test_what_is_recorded_only_goes_by_both_values() -> None:
    for answer, state in (("EINVAL", BUG), ("accepted", FIXED), ("EBUSY", CANNOT_TELL)):
        seen = _result("none.mp-state.host.refused", answer, "info", expected="EINVAL", words="ap,intel,init-received-over-smi")
        assert _state("0fe3e8d804fd", seen).state == state


def test_what_nothing_shows_is_not_observable() -> None:
    states = series.states(_run())
    for entry in ENTRIES:
        assert (states[entry.key].state == HIDDEN) == bool(entry.hidden)
        assert states[entry.key].why


def test_a_listed_deviation_that_is_not_seen_is_found() -> None:
    kept = _result("init.msi.host.cr3", "0x5000", "known")
    good = _result("init.msi.host.cr3", "0x0", "pass")

    def found(*runs: Run) -> list[bool]:
        return [one.tried for one in series.unseen(runs) if (one.deviation.item, one.deviation.event) == ("cr3", "init")]

    assert found(_run(kept)) == []
    assert found(_run(good)) == [True]
    assert found(_run()) == [False]
    assert found(_run(good, kernel="6.1.0")) == []
    assert found(_run(good), _run(kept, backend="vmx")) == []


def test_a_listed_report_of_a_kernel_is_seen_by_its_commit() -> None:
    def found(deviation: str | None, verdict: Verdict = Verdict.KNOWN) -> list[str]:
        record = Record("log", verdict, reason="WARNING: ...", deviation=deviation)
        seen = Observation(Case("none.lab/kernel"), "none", "lab", "kernel", (Block((record,)),))
        missing = (one.deviation for one in series.unseen((_run(seen, backend="vmx"),)))
        return [one.commit for one in missing if one.item == "none.lab.kernel.log"]

    assert found("0aa1837533e5") == []
    assert found("another") == found(None) == found("0aa1837533e5", Verdict.FIXED) == ["0aa1837533e5"]


@pytest.fixture(scope="module")
def cells() -> dict[str, dict[str, series.Seen]]:
    return {run.name: series.states(run) for run in load(str(CELLS))}


@pytest.mark.parametrize(
    ("commit", "cell", "state"),
    [
        ("4c72ab5aa6e0", "5.10/svm", BUG),
        ("4c72ab5aa6e0", "5.10/vmx", BUG),
        ("4c72ab5aa6e0", "7.2/svm", FIXED),
        ("4f117ce4aefc", "5.10/svm", BUG),
        ("4f117ce4aefc", "6.1/svm", FIXED),
        ("4f117ce4aefc", "5.10/vmx", CANNOT_TELL),
        ("2a24be79b6b7", "5.10/vmx", BUG),
        ("665f4d9238ad", "5.10/svm", BUG),
        ("665f4d9238ad", "6.1/svm", FIXED),
        ("01913c57c225", "5.10/vmx", BUG),
        ("265e43530cb2", "5.10/svm", BUG),
        ("265e43530cb2", "6.1/svm", FIXED),
        ("598a790fc20f", "6.1/svm", BUG),
        ("598a790fc20f", "7.2/svm", FIXED),
        ("9e46f6c6c959", "5.10/svm", FIXED),
        ("0fe3e8d804fd", "6.1/svm", BUG),
        ("0fe3e8d804fd", "7.2/svm", FIXED),
        ("0fe3e8d804fd", "6.12/vmx", BUG),
        ("0fe3e8d804fd", "7.2/vmx", FIXED),
        ("afc8de0118be", "5.10/vmx", BUG),
        ("afc8de0118be", "6.1/vmx", FIXED),
        ("432979b50342", "5.10/vmx", BUG),
        ("432979b50342", "6.1/vmx", FIXED),
        ("1c96dcceaeb3", "5.10/vmx", BUG),
        ("1c96dcceaeb3", "6.1/vmx", FIXED),
        ("1b7a1b78d660", "5.10/vmx", BUG),
        ("1b7a1b78d660", "6.1/vmx", FIXED),
        ("bf0cd88ce363", "5.10/vmx", BUG),
        ("bf0cd88ce363", "7.2/vmx", FIXED),
        ("cb6a32c2b877", "5.10/svm", BUG),
        ("cb6a32c2b877", "7.2/svm", FIXED),
        ("cdc69269b18a", "6.12/svm", BUG),
        ("cdc69269b18a", "7.2/svm", FIXED),
        ("8312f1b9dd71", "6.12/svm", BUG),
        ("8312f1b9dd71", "7.2/svm", FIXED),
    ],
)
def test_real_kernels_are_reported_apart(cells: dict[str, dict[str, series.Seen]], commit: str, cell: str, state: str) -> None:
    assert cells[cell][commit].state == state


def test_every_deviation_that_was_run_was_seen_in_a_real_kernel() -> None:
    assert CELLS.stat().st_size < 400_000
    missing = [one for one in series.unseen(load(str(CELLS))) if one.tried]
    assert missing == []


def test_the_catalogue_fits_100_columns_and_says_how_to_get_a_column(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["series"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 100
    assert sum(line.startswith("v1#") for line in lines) == 43
    assert "kvmtest series --results r.json" in lines[-1]


def test_a_column_for_each_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["series", "--results", str(CELLS)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 100
    row = next(i for i, line in enumerate(lines) if "4c72ab5aa6e0" in line)
    assert lines[row + 1].split()[:3] == ["BUG", "fixed", "fixed"]
    assert any("BUG 4c72ab5aa6e0: init." in line for line in lines)


@pytest.mark.parametrize("times", [2, 3])
def test_many_runs_have_numbers_for_names(times: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["series", "--results", *[str(CELLS)] * times]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("[9]: 5.10/svm, kernel 5.10.0") for line in lines)


def test_the_same_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["series", "--format", "json", "--results", str(CELLS)]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == series.SCHEMA and len(document["commits"]) == len(ENTRIES)
    assert document["runs"][0]["commits"]["03a6e84069d1"]["state"] == BUG


def test_check_fails_where_a_deviation_was_not_seen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    matrix = json.loads(CELLS.read_text())
    for record in matrix["records"]:
        record["item"] = record["item"].replace("gdt.base", "gdt.bass")
    path = tmp_path / "matrix.json"
    path.write_text(json.dumps(matrix))
    assert cli.main(["series", "--check", "--results", str(path)]) == 1
    assert "the deviation gdt.base '=planted' after init [4f117ce4aefc] is not run in 5.10/svm" in capsys.readouterr().err


@pytest.mark.parametrize("argv", [["--check"], ["--results", "/nonexistent.json"]])
def test_wrong_usage_is_one_line(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["series", *argv]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize("command", [["run"], ["lab", "run", "--backend", "svm", "--kernel", "6.1"]])
@pytest.mark.parametrize(
    ("commit", "said"),
    [("1234567", "no commit '1234567'"), ("v1#7", "no result shows commit v1#7: "), ("4c72", "no commit '4c72'")],
)
def test_a_commit_that_selects_nothing_is_one_line(
    command: list[str], commit: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([*command, "--commit", commit]) == 2
    err = capsys.readouterr().err
    assert said in err and len(err.splitlines()) == 1


@pytest.mark.parametrize("name", ["4c72ab5", "v1#14", "v1#42", "265e43530cb2", "df37ed38e6c2"])
def test_explain_reports_the_story_of_a_commit(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["explain", name]) == 0
    out = capsys.readouterr().out
    assert "changes" in out and ("kvmtest run --commit" in out or "unseen" in out)
    assert max(map(len, out.splitlines())) <= 100


def test_explain_names_the_commits_of_an_item(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["explain", "idt.base"]) == 0
    assert "commit      4f117ce4aefc" in capsys.readouterr().out
