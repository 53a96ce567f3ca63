# SPDX-License-Identifier: GPL-2.0-only
"""The command line as a user meets it: exit status, one clear line, no traceback."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from kvmtest import schemas
from kvmtest.cli import main
from kvmtest.commands.common import status as exit_status
from kvmtest.kvm import Kvm
from kvmtest.model.verdict import Verdict
from kvmtest.results import saved

pytestmark = pytest.mark.program


def _kvmtest(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "kvmtest", *args], capture_output=True, text=True, timeout=60)


def _results(path: Path) -> int:
    """Count the results in the document, and compare with its totals."""
    totals = json.loads(path.read_text())["runs"][0]["totals"]
    (run,) = saved.load(str(path))
    assert sum(totals.values()) == sum(1 for _ in run.results)
    return sum(totals.values())


def _one_line(text: str) -> bool:
    return text.count("\n") == 1 and text.startswith("kvmtest: ")


@pytest.mark.parametrize("command", [[], *([name] for name in ("run", "list", "explain", "spec", "doctor", "snapshot", "diff"))])
def test_help_teaches(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        main([*command, "--help"])
    assert done.value.code == 0
    assert "usage: kvmtest" in capsys.readouterr().out


def test_help_fits_the_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    verbs = ("run", "list", "explain", "spec", "doctor", "snapshot", "diff", "report", "series")
    cells = (["lab", verb] for verb in ("run", "matrix", "kernels", "emulators"))
    for command in [[], *([name] for name in verbs), ["lab"], *cells]:
        with pytest.raises(SystemExit):
            main([*command, "--help"])
        shown = capsys.readouterr().out
        assert max(map(len, shown.splitlines())) <= 80, command
    # An example stays a line, and what is said of it comes below where it has no room beside it.
    for width, between in (("80", f"{'':21}"), ("60", f"\n{'':6}")):
        monkeypatch.setenv("COLUMNS", width)
        with pytest.raises(SystemExit):
            main(["run", "--help"])
        selectors = capsys.readouterr().out.partition("A SELECTOR is")[2]
        assert f"\n  kvmtest run cr3{between}one item, after every event\n" in selectors
        assert "\n\nExit status: 0 nothing unexpected; 1 " in selectors


def test_wrong_usage_is_2() -> None:
    wrong = (["--format", "xml"], ["--timeout", "-1"], ["--timeout", "nan"], ["--jobs", "0"], ["--jobs", "two"])
    for args in (["bogus"], *(["run", *words] for words in wrong)):
        with pytest.raises(SystemExit) as done:
            main(args)
        assert done.value.code == 2


@pytest.mark.parametrize("command", ["fuzz", "lab run", "lab"])
def test_an_option_that_a_command_has_not_shows_the_usage_of_that_command(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as done:
        main([*command.split(), "--no-such-option"])
    error = capsys.readouterr().err
    assert done.value.code == 2 and error.startswith(f"usage: kvmtest {command} ")
    assert f"\nkvmtest {command}: error: " in error


def test_coverage_is_of_one_process(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--jobs", "2", "--coverage", "x.json", "cr3"]) == 2
    error = capsys.readouterr().err
    assert _one_line(error) and "--jobs 1" in error


def test_selector_that_matches_nothing_is_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "init.msi.host.nonsense"]) == 2
    assert _one_line(capsys.readouterr().err)


@pytest.mark.parametrize("selector", ["a{b", "{a,b}" * 60, "x" * 2000])
@pytest.mark.parametrize(
    "command", ["run", "list", "list --cases", "list --ids", "repro", "fuzz", "lab run --kernel host", "lab matrix --kernel host"]
)
def test_a_selector_that_is_none_is_one_line_of_each_command(
    command: str, selector: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command.split(), selector]) == 2
    assert _one_line(said := capsys.readouterr().err) and "a fault of kvmtest" not in said


@pytest.mark.parametrize("device", ["/nonexistent", "/dev/null", "/tmp"])
def test_no_usable_kvm_is_3(device: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--device", device]) == 3
    assert _one_line(capsys.readouterr().err)
    assert main(["run", "--bisect", "--device", device, "init.msi.host.cr3"]) == 125


def test_no_permission_says_what_to_do(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def refuse(*args: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("kvmtest.engine.doctor.Kvm", refuse)
    assert main(["run"]) == 3
    assert "group" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("method", "fake", "says"),
    [
        ("api_version", lambda self: 11, "version 11"),
        ("check_extension", lambda self, cap: 0, "lacks KVM_CAP_USER_MEMORY"),
    ],
)
def test_a_kvm_that_cannot_do_it_is_3(
    method: str, fake: Any, says: str, kvm: Kvm, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Kvm, method, fake)
    assert main(["run"]) == 3
    error = capsys.readouterr().err
    assert says in error and _one_line(error)


def test_a_busy_kvm_says_who_else(kvm: Kvm, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def busy(self: Kvm, type: int = 0) -> None:
        raise OSError(16, "Device or resource busy")

    monkeypatch.setattr(Kvm, "create_vm", busy)
    assert main(["run"]) == 3
    assert "another hypervisor" in capsys.readouterr().err


def test_unwritable_output_is_2(kvm: Kvm, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--output", "/nonexistent/file"]) == 2
    assert _one_line(capsys.readouterr().err)


@pytest.mark.parametrize("arguments", [["--output", "/dev/full"], ["--format", "json", "--output", "/dev/full"], []])
def test_a_full_disk_is_one_line_and_2(arguments: list[str], kvm: Kvm) -> None:
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "kvmtest", "run", "reset.create.host.cr0", *arguments]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert done.returncode == 2
    assert _one_line(done.stderr) and "No space left" in done.stderr


def test_list_ids_and_cases(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--ids", "init.msi.host.cr?"]) == 0
    ids = capsys.readouterr().out.split()
    assert "init.msi.host.cr3" in ids and all(i.startswith("init.msi.host.cr") for i in ids)
    assert main(["list", "--cases", "reset.create"]) == 0
    assert all(line.startswith("reset.create.") for line in capsys.readouterr().out.split())


def test_list_has_more_cases_with_full(capsys: pytest.CaptureFixture[str]) -> None:
    counts = []
    for more in ([], ["--full"]):
        assert main(["list", "--cases", "init.msi", *more]) == 0
        counts.append(len(capsys.readouterr().out.split()))
    assert counts[0] < counts[1]


def test_explain_shows_rule_citation_and_kernel_function(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "init.msi.host.cr0"]) == 0
    out = capsys.readouterr().out
    assert "INIT" in out and "SDM" in out and "KVM_GET_SREGS" in out
    assert main(["explain", "665f4d9238ad"]) == 0
    assert "rdx" in capsys.readouterr().out
    assert main(["explain", "cr9"]) == 2


def test_what_only_a_lab_gives_is_listed_and_explained(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("log", "boot", "run"):
        assert main(["explain", f"none.lab.kernel.{name}"]) == 0
        assert "kvmtest lab" in capsys.readouterr().out
        assert main(["list", "--ids", f"none.lab.kernel.{name}", "init.msi.host.cr0"]) == 0
        assert capsys.readouterr().out.split() == [f"none.lab.kernel.{name}", "init.msi.host.cr0"]
    assert main(["list", "none.lab.kernel.bogus"]) == main(["explain", "none.lab.kernel.bogus"]) == 2


def test_every_item_can_be_explained(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["spec"]) == 0
    assert "lapic.svr" in capsys.readouterr().out


def test_spec_json_is_valid(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["spec", "--format", "json"]) == 0
    jsonschema.validate(json.loads(capsys.readouterr().out), schemas.load("spec"))


def test_doctor_without_kvm_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--device", "/nonexistent"]) == 3
    assert "modprobe" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("totals", "strict", "status"),
    [
        ({"pass": 3}, False, 0),
        ({"pass": 3, "fail": 1}, False, 1),
        ({"pass": 3, "error": 1}, False, 1),
        ({"pass": 3, "known": 1}, False, 0),
        ({"pass": 3, "known": 1}, True, 1),
        ({"skip": 3}, False, 3),
    ],
)
def test_exit_status(totals: dict[str, int], strict: bool, status: int) -> None:
    assert exit_status(Counter({Verdict(name): count for name, count in totals.items()}), strict) == status


def test_reader_that_goes_away_sees_no_traceback() -> None:
    command = f"{sys.executable} -m kvmtest list --ids | head -n 1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, timeout=60)
    assert done.stderr == ""


@pytest.mark.parametrize("format", ["text", "jsonl"])
def test_a_reader_that_goes_away_changes_neither_status_nor_another_report(format: str, kvm: Kvm, tmp_path: Path) -> None:
    besides = {name: tmp_path / name for name in ("json", "junit")}
    command = [sys.executable, "-m", "kvmtest", "run", "init.msi.host", "init.irqfd.host", "--format", format]
    with open(os.devnull, "w") as nowhere:
        alone = subprocess.run(command, stdout=nowhere, timeout=60).returncode
    command += [f"--report={name}={path}" for name, path in besides.items()]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout and process.stderr
        process.stdout.read(1)
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(60) == alone
    assert _results(besides["json"]) > 1000
    assert besides["junit"].read_text().endswith("</testsuites>\n")


def test_a_full_disk_stops_no_other_report_of_a_run(kvm: Kvm, tmp_path: Path) -> None:
    other = tmp_path / "r.json"
    done = _kvmtest("run", "init.msi.host", "--format", "jsonl", "-o", "/dev/full", f"--report=json={other}")
    assert done.returncode == 2 and _one_line(done.stderr) and "cannot write /dev/full: No space left" in done.stderr
    assert _results(other) > 1000


def test_run_writes_a_valid_document(kvm: Kvm, tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    done = _kvmtest("run", "reset.create.host.cr*", "init.*.cr0", "--format", "json", "--output", str(path))
    assert done.returncode in (0, 1) and done.stderr == ""
    assert _results(path) and {r["item"] for r in json.loads(path.read_text())["records"]} >= {"cr0", "cr3"}


def test_interrupt_keeps_what_was_measured(kvm: Kvm, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "kvmtest", "run", "--format", "jsonl"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout and process.stderr
        # The pipe holds 64 KiB: the run waits for us in its middle, whatever its speed.
        head = process.stdout.read(20000)
        process.send_signal(signal.SIGINT)
        rest, error = process.stdout.read(), process.stderr.read()
        process.wait(timeout=60)
    assert process.returncode == 130
    assert "interrupted" in error and "Traceback" not in error
    (path := tmp_path / "r.jsonl").write_text(head + rest)
    (run,) = saved.load(str(path))
    assert run.interrupted and run.observations
