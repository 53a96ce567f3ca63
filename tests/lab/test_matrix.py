# SPDX-License-Identifier: GPL-2.0-only
"""A matrix says what differs between its cells, in as few lines as do."""

from __future__ import annotations

import errno
import io
import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from kvmtest.cli import main
from kvmtest.kvm import Stop
from kvmtest.lab import ids, matrix
from kvmtest.lab.kernels import Kernel
from kvmtest.lab.limits import Limits
from kvmtest.lab.qemu import Qemu
from kvmtest.lab.recorder import Recorder
from kvmtest.lab.start import Started
from kvmtest.lab.steps import Spec, Step, Times
from kvmtest.lab.table import Table
from kvmtest.model.record import Observation
from kvmtest.model.run import Run
from kvmtest.model.verdict import Verdict
from kvmtest.report.play import Gatherer, play
from kvmtest.results import saved
from tests.report import samples
from tests.report.samples import made, observation, record

_Cell = tuple[matrix.Outcome, Run]
_SIPI = ("sipi", "msi", "host")


def _cell(kernel: str, backend: str, *seen: Observation) -> _Cell:
    (outcome,) = matrix.outcomes([Spec(backend, Kernel(kernel, f"{kernel}.0", "", "", ""))], "")
    outcome.times = Times(1.0, 2.0, 0.5)
    return outcome, samples.saved(seen, outcome.name)


def _table(*cells: _Cell) -> list[str]:
    out = io.StringIO()
    to = Gatherer(Table(out, [outcome for outcome, _ in cells]))
    for _, run in cells:
        play(run, to)
    return out.getvalue().splitlines()


def _pass(*items: str) -> Observation:
    return observation([record("pass", item) for item in items])


def test_findings_that_differ_in_the_same_way_are_below_one_row() -> None:
    a = _cell("5.10", "svm", made("fail", "cr3"), made("fail", "gdt.base", where=_SIPI), made("fail", "cr2"))
    b = _cell("6.1", "svm", _pass("cr2", "cr3"), made("pass", "gdt.base", where=_SIPI))
    lines = _table(a, b)
    at = next(number for number, line in enumerate(lines) if line.endswith("(2)"))
    assert lines[at].split() == ["fail", "-", "(2)"]
    assert sorted(lines[at + 1 : at + 3]) == [
        "    cr3, cr2 keep the planted value after INIT",
        "    gdt.base keeps the planted value after SIPI",
    ]
    assert lines[at - 2 : at] == ["2 findings differ between the cells, in 1 way:", "5.10/svm  6.1/svm"]
    assert lines[-1] == "(- not seen there)"


def test_the_worst_comes_first_and_what_agrees_is_counted() -> None:
    a = _cell("5.10", "svm", made("fail", "cr2"), made("known", "cr3"), made("fail", "rdx", where=_SIPI), _pass("cr0"))
    b = _cell("6.1", "vmx", _pass("cr0", "cr2", "cr3"), made("fail", "rdx", where=_SIPI))
    text = "\n".join(_table(a, b))
    assert text.index("cr2") < text.index("cr3") and "cr0" not in text and "rdx" not in text
    assert "5.10/svm" in text and "6.1/vmx" in text and "2 findings differ between the cells, in 2 ways" in text
    assert text.endswith("\nIn each cell that could show it: 1 more finding; --format json has them all")


def test_what_was_not_judged_in_a_cell_is_no_difference_of_its_own() -> None:
    """And not shown as if it had been right there."""
    fails, skips, right = made("fail", "cr3"), made("skip", "cr3"), _pass("cr3")
    assert "No finding differs between the cells." in _table(_cell("5.10", "svm", fails), _cell("6.1", "svm", skips))
    lines = _table(*(_cell(str(n), "svm", seen) for n, seen in enumerate((fails, skips, right))))
    assert any(line.split() == ["fail", "skip", "-", "(1)"] for line in lines)
    assert lines[-1] == "(- not seen there; skip its items could not be judged there)"


def test_nobody_knows_what_a_cell_that_died_would_have_shown() -> None:
    died = _cell("7.2", "svm", _pass("cr3"), ids.of_kernel("run", Verdict.ERROR, "died in a case"))
    lines = _table(_cell("5.10", "svm", made("fail", "cr3")), died)
    rows = [line.split() for line in lines if line.endswith("(1)")]
    assert rows == [["fail", "?", "(1)"], ["-", "error", "(1)"]]
    assert "    none.lab.kernel: died in a case" in lines
    assert lines[-1] == "(- not seen there; ? that cell did not finish)"


def test_the_same_wrong_value_is_one_finding_and_another_one_is_not() -> None:
    def behaves(verdict: str) -> Observation:
        return observation([record("fail", "ram")._replace(expected=None, planted=None, observed=verdict)])

    one, same, other = (_cell(str(n), "svm", behaves(said)) for n, said in enumerate(("lost", "lost", "changed")))
    assert _table(one, same)[-2] == "No finding differs between the cells."
    assert "2 findings differ between the cells, in 2 ways:" in _table(one, same, other)


def test_eight_cells_fit_a_terminal() -> None:
    seen = [made("fail", f"msr.mtrr_physbase{i}", words=f"ap,{i}") for i in range(40)]
    kernels = [(kernel, backend) for backend in ("svm", "vmx") for kernel in ("5.10", "6.1", "6.12", "7.2")]
    items = [one.item for one in seen[0].results]
    cells = [_cell(*cell, *([_pass(*items)] if i else seen)) for i, cell in enumerate(kernels)]
    assert max(map(len, _table(*cells))) <= 100


def test_each_cell_reports_its_totals_times_and_kernel() -> None:
    broken, run = _cell("7.2", "vmx")
    broken.times, broken.failed = None, "no such file"
    first, second = _table(_cell("6.1", "svm", made("fail", "cr2")), (broken, run))[1:3]
    assert first.split() == ["6.1/svm", "1", ".", ".", ".", ".", ".", ".", "1.0s", "2.0s", "0.5s", "6.1.0"]
    assert second.endswith("no such file")


def test_cells_that_agree_say_so() -> None:
    assert _table(*(_cell(name, "svm", _pass("cr0")) for name in ("5.10", "6.1")))[-1] == "No finding differs between the cells."


def test_cells_of_one_name_are_reported_apart() -> None:
    specs = [Spec("svm", Kernel("bzImage", "1.0", path, "", "")) for path in ("/a/bzImage", "/b/bzImage")]
    assert [outcome.name for outcome in matrix.outcomes(specs, "")] == ["bzImage/svm (1)", "bzImage/svm (2)"]


def _two_cells(kernel: Kernel, fake: Path, *more: str) -> tuple[int, list[Run]]:
    """A matrix of the fake kernel and of one named other: status and runs, read back from the document."""
    other, out = fake / "other", fake / "m.json"
    other.write_bytes(Path(kernel.image).read_bytes())
    kernels = f"{other},{kernel.image}"
    command = ["lab", "matrix", "--backend", "svm", "--kernel", kernels, "--modules", kernel.modules, "--jobs", "1"]
    status = main([*command, "--format", "json", "-o", str(out), *more])
    runs = saved.load(str(out))
    assert [run.name for run in runs] == ["other/svm", "bzImage/svm"]
    return status, runs


def _verdicts(run: Run) -> list[tuple[str, str]]:
    return [(result.item, result.verdict) for result in run.results]


#: A guest that hangs in its second case.
_HANGS = "begin()\nran('init.msi.host.ram', 'pass')\ncase('init.msi.host.halted')\ntime.sleep(60)"
#: Of a cell that comes to its end.
_WHOLE = [("ram", "pass"), ("halted", "fail"), ("log", "pass")]


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (RecursionError("too deep"), "RecursionError: too deep"),
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
    ],
)
def test_what_goes_wrong_in_one_cell_fails_that_one(
    error: Exception, says: str, fake: Path, kernel: Kernel, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare = Qemu.prepare

    def broken(ours: Qemu, *args: str) -> Started:
        if "other" in args[1]:
            raise error
        return prepare(ours, *args)

    monkeypatch.setattr(Qemu, "prepare", broken)
    status, (failed, whole) = _two_cells(kernel, fake, "--fresh-boot")
    assert status == 1 and _verdicts(failed) == [("boot", "error")]
    (why,) = failed.results
    assert says in why.reason and f"other/svm: {why.reason}" in capsys.readouterr().err
    assert _verdicts(whole) == _WHOLE and (whole.head.host.kernel, failed.head.host.kernel) == ("9.9.9-fake", "9.9.9-fake")


def test_what_goes_wrong_in_the_middle_keeps_what_was_measured(
    fake: Path, kernel: Kernel, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(limits: Limits, where: str, dying: str) -> None:
        if where.endswith("halted"):
            raise RecursionError("too deep")

    monkeypatch.setattr(Limits, "check", broken)
    monkeypatch.setenv("FAKE", _HANGS)
    status, runs = _two_cells(kernel, fake)
    # Nothing came to its end.
    assert status == 3 and "RecursionError: too deep" in capsys.readouterr().err
    assert [_verdicts(run) for run in runs] == [[("ram", "pass"), ("run", "error")]] * 2


def test_a_report_that_cannot_be_written_stops_no_other(fake: Path, kernel: Kernel, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["lab", "matrix", "--backend", "svm", "--kernel", kernel.image, "--modules", kernel.modules]
    out = fake / "m.json"
    assert main([*command, "-o", str(out), "--format", "json", "--report", "ktap=/dev/full"]) == 2
    assert "cannot write /dev/full: No space left on device" in capsys.readouterr().err
    assert json.loads(out.read_text())["runs"][0]["totals"]["fail"] == 1
    # And one that cannot even be opened, before anything runs.
    assert main([*command, "--report", f"ktap={fake / 'no' / 'where'}"]) == 2
    assert "booting" not in capsys.readouterr().err


def test_a_cell_that_does_not_end_is_given_up(fake: Path, kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the one that was over before is written."""

    def late(number: int, at_once: Any, until: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > 1:
            raise KeyboardInterrupt
        return wait(number, None, until)

    calls = 0
    wait = matrix.wait
    monkeypatch.setattr(matrix, "wait", late)
    status, (whole, given_up) = _two_cells(kernel, fake)
    assert status == 130 and _verdicts(whole) == _WHOLE and whole.interrupted is False
    assert given_up.interrupted and "log" not in dict(_verdicts(given_up))


def test_a_cell_that_is_given_up_keeps_what_it_showed(fake: Path, kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE", _HANGS)
    (outcome,) = matrix.outcomes([Spec("svm", kernel, fresh_boot=True)], "", 1)
    shown = threading.Event()

    def take_and_tell(self: Recorder, step: Step) -> bool:
        taken = take(self, step)
        if isinstance(step, list):
            shown.set()
        return taken

    def interrupt(*args: object) -> None:
        shown.wait(60)
        raise KeyboardInterrupt

    take = Recorder.take
    monkeypatch.setattr(Recorder, "take", take_and_tell)
    monkeypatch.setattr(matrix, "wait", interrupt)
    matrix.run([outcome], 1, lambda line: None, Stop())
    assert outcome.run and outcome.run.interrupted and _verdicts(outcome.run) == [("ram", "pass")]


def test_a_cell_that_is_over_is_in_the_lines_before_the_others_end(
    fake: Path, kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that what was measured outlives whatever ends this program."""
    out, seen = fake / "m.jsonl", []
    play = matrix.Outcome.play

    def looked(self: matrix.Outcome, *args: Any) -> None:
        if seen:  # the first one is over
            deadline = time.monotonic() + 60
            while not (out.exists() and b'"end":0' in out.read_bytes()) and time.monotonic() < deadline:
                time.sleep(0.01)
            seen.append(b'"end":0' in out.read_bytes())
        else:
            seen.append(False)
        play(self, *args)

    monkeypatch.setattr(matrix.Outcome, "play", looked)
    other = fake / "other"
    other.write_bytes(Path(kernel.image).read_bytes())
    command = ["lab", "matrix", "--backend", "svm", "--kernel", f"{other},{kernel.image}", "--modules", kernel.modules]
    assert main([*command, "--jobs", "1", "--format", "jsonl", "-o", str(out)]) == 1
    assert seen == [False, True] and len(saved.load(str(out))) == 2
