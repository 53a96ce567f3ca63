# SPDX-License-Identifier: GPL-2.0-only
"""One report of several that fails, whatever it is that goes wrong, and what is left of the others."""

from __future__ import annotations

import io
import json
import os
import re
from pathlib import Path

import pytest

from kvmtest.cli import main
from kvmtest.commands import ending
from kvmtest.coverage import file as coverage
from kvmtest.engine import machine
from kvmtest.engine.machine import Machines
from kvmtest.engine.plan import Setup
from kvmtest.kvm import Kvm
from kvmtest.report import junit, terminal, text
from kvmtest.results import saved
from tests.commands.test_fault_files import _FAULTS, _today
from tests.coverage.made import table

_ONE = "init.msi.host.cr0/ap,intel,xapic,plant-a"


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A file of saved results."""
    (path := tmp_path / "results.json").write_text(json.dumps(_today(json.loads((_FAULTS / "plain.json").read_text()))))
    return path


@pytest.mark.parametrize(
    ("error", "status", "says"),
    [
        (ZeroDivisionError("by zero"), ending.INTERNAL, "ZeroDivisionError: by zero"),
        (UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed"), ending.INTERNAL, "UnicodeEncodeError"),
        (MemoryError(), 3, "out of memory"),
        (OSError(28, "No space left on device"), 2, "cannot write"),
    ],
)
def test_the_others_are_written(
    error: Exception, status: int, says: str, results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    def broken(*args: object) -> None:
        raise error

    for moment in ("begin", "observed", "end"):
        with monkeypatch.context() as patched:
            patched.setattr(junit.Junit, moment, broken)
            (tmp_path / "r.xml").write_text("old")
            words = ["report", str(results), "--format", "json", "-o", str(tmp_path / "r.json")]
            assert main([*words, "--report", f"junit={tmp_path / 'r.xml'}"]) == status
        said = capsys.readouterr().err
        assert said.startswith(f"kvmtest: {says}") and said.count("\n") == 1
        assert list(saved.load(str(tmp_path / "r.json"))[0].results) and (tmp_path / "r.xml").read_text() == "old"
        (tmp_path / "r.json").unlink()
    assert sorted(os.listdir(tmp_path)) == ["r.xml", "results.json"]


def test_a_run_of_which_every_report_fails_says_so(kvm: Kvm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(text.Text, "observed", broken)
    assert main(["run", _ONE, "-o", str(tmp_path / "r.txt")]) == ending.INTERNAL
    assert os.listdir(tmp_path) == []


def test_a_run_that_fails_on_the_way_is_no_whole_one(kvm: Kvm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("kvmtest.engine.run.run_case", broken)
    assert main(["run", _ONE, "--format", "json", "-o", str(tmp_path / "r.json")]) == ending.INTERNAL
    (run,) = saved.load(str(tmp_path / "r.json"))
    assert run.interrupted is None


class _Gone(io.StringIO):
    """A terminal that has hung up."""

    def write(self, text: str) -> int:
        raise OSError(5, "Input/output error")

    def flush(self) -> None:
        raise OSError(5, "Input/output error")

    def isatty(self) -> bool:
        return True

    def fileno(self) -> int:
        return 2


def test_a_terminal_that_is_gone_stops_no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    for lacks_rich in (False, True):
        if lacks_rich:
            monkeypatch.setattr(terminal, "_Rich", terminal._Line)
        bar = terminal.bar(_Gone())
        assert type(bar) is not terminal.Bar
        bar.begin(2)
        bar.running("a case")
        bar.done()
        bar.end()


def test_where_no_thread_starts_a_vm_is_closed_at_once(machines: Machines, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
    monkeypatch.setattr(machine.threading.Thread, "start", refuse)
    made = machines.fresh(Setup("full", "intel"))
    machines.release(made)
    assert made.vm.closed
    machines.close()


@pytest.mark.parametrize(
    "command",
    [
        "report",
        "judge --event reset",
        "observer judge",
        "series --results",
        "diff SAME",
        "run --device /nonexistent --known",
        "run --scenario",
        "run --baseline",
        "lab coverage --from",
        "lab coverage --from GOOD --diff",
        "lab coverage --from GOOD --functions",
        "lab exec --backend svm --kernel host",
    ],
)
def test_what_is_read_is_bounded(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with open(good := tmp_path / "good", "w") as out:
        coverage.write([table()], out)
    monkeypatch.setattr(saved, "_MOST_BYTES", 1 << 20)
    words = command.replace("GOOD", str(good)).replace("SAME", "/dev/zero").split()
    assert main([*words, "/dev/zero"]) == 2
    assert re.search("/dev/zero: (more|longer) than", capsys.readouterr().err)
