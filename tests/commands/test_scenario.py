# SPDX-License-Identifier: GPL-2.0-only
"""Scenario files and lists on the command line: what explain writes, run runs; what list says, programs read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kvmtest.cli import main
from kvmtest.engine import bind, plan
from kvmtest.engine.machine import Machines
from kvmtest.kvm import Kvm
from kvmtest.scenario import file
from kvmtest.scenario import step as s
from kvmtest.scenario.setup import Setup

CASE = "init.msi/ap,amd,xapic,plant-a"


@pytest.fixture
def mine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """The file of a case of the plan."""
    assert main(["explain", "--format", "json", CASE]) == 0
    path = tmp_path / "mine.json"
    path.write_text(capsys.readouterr().out)
    return path


def _run(*arguments: str, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    status = main(["run", "--format", "json", *arguments])
    captured = capsys.readouterr()
    assert status in (0, 1), captured.err
    results: dict[str, Any] = json.loads(captured.out)
    return results


def test_what_explain_writes_shows_what_the_case_shows(kvm: Kvm, mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given, case = _run("--scenario", str(mine), capsys=capsys), _run(CASE, capsys=capsys)
    assert [one["name"] for one in given["cases"]] == ["init.msi/ap,amd,xapic,plant-a"]
    assert given["cases"][0]["params"]["sequence"] == "plant-a"
    totals = [run["totals"] for results in (given, case) for run in results["runs"]]
    assert totals[0] == totals[1] and totals[0]["pass"] > 100


def test_selectors_choose_among_the_files_cases(kvm: Kvm, mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(_run("--scenario", str(mine), "init.msi.host.cr3", capsys=capsys)["records"]) == 1
    assert main(["run", "--scenario", str(mine), "sipi"]) == 2
    assert "nothing matches 'sipi'" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["run"], ["lab", "run", "--backend", "svm", "--kernel", "host"]])
def test_bad_files_end_with_one_line(command: list[str], mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = json.loads(mine.read_text())
    data["steps"][0]["step"] = "jump"
    bad = mine.with_name("bad.json")
    bad.write_text(json.dumps(data))
    for path, says in ((bad, f'{bad}: the scenario, steps 1: no step "jump"'), (mine.with_name("none.json"), "No such file")):
        assert main([*command, "--scenario", str(path)]) == 2
        err = capsys.readouterr().err
        assert says in err and len(err.splitlines()) == 1
    assert main([*command, "--scenario", str(mine), "--scenario", str(mine)]) == 2
    assert "another file's case already" in capsys.readouterr().err


#: Each can be lowered, and none can be run to its end.
_HOPELESS = [
    (s.Poke(0x10, 7),),
    (s.Give(b"\0"),),
    (s.Set((("cr0", 0x80000001),)), s.Until(s.Word("spine.RESET"))),
    (s.Call(0xAE41, 0, "vm"),),  # KVM_CREATE_VCPU with an id that is there
]


@pytest.mark.parametrize("steps", _HOPELESS)
def test_steps_that_cannot_be_done_are_an_error_and_end_nothing(
    kvm: Kvm, steps: tuple[s.Step, ...], mine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scenario = s.Scenario("init", "msi", "hopeless", (*steps, s.Send("init"), s.Observe()), ("me",), vendors=("amd",))
    path = mine.with_name("hopeless.json")
    path.write_text(json.dumps(file.dump(scenario)))
    results = _run("--scenario", str(path), "--scenario", str(mine), capsys=capsys)
    (run,) = results["runs"]
    assert run["totals"]["error"] > 100 and run["totals"]["pass"] > 100
    assert len(results["cases"]) == 2


def test_list_json_has_cases_looks_needs_and_ids(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--format", "json", "init.msi/bsp,intel,after-rsm"]) == 0
    listed = json.loads(capsys.readouterr().out)
    (case,) = listed["cases"]
    assert case["params"] == {"target": "bsp", "vendor": "intel", "sequence": "after-rsm"} and case["needs"] == ["smm"]
    assert {(look["trigger"], look["view"]) for look in case["looks"]} == {("msi", view) for view in ("host", "guest", "views")}
    assert "init.msi.guest.pending" in listed["ids"] and "skip" not in case


def test_list_here_says_why_and_leaves_out_in_text(machines: Machines, capsys: pytest.CaptureFixture[str]) -> None:
    skipped = {case.name: why for case, why in bind.skips(plan.plan(), machines).items()}
    assert main(["list", "--cases", "--format", "json", "--here"]) == 0
    assert {case["name"]: case["skip"] for case in json.loads(capsys.readouterr().out)["cases"] if "skip" in case} == skipped
    assert main(["list", "--cases", "--here"]) == 0
    listed = {line.partition("/")[2] for line in capsys.readouterr().out.split()}
    assert not listed & {name.partition("/")[2] for name in skipped if name.startswith("reset")} and listed
    assert main(["list", "--here", "--device", "/nonexistent"]) == 3


def test_what_a_setup_cannot_be_made_without_is_a_skip(machines: Machines, monkeypatch: pytest.MonkeyPatch) -> None:
    case = plan.Case("reset", "create", "host", Setup("split", "amd"), "bsp")
    assert not bind.skips([case], machines)
    monkeypatch.setattr(type(machines.kept(Setup("full", "amd")).vm), "check_extension", lambda self, cap: 0)
    assert bind.skips([case], machines) == {case: "KVM_CAP_SPLIT_IRQCHIP is not there"}
