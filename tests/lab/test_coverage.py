# SPDX-License-Identifier: GPL-2.0-only
"""``kvmtest lab coverage`` as a user meets it, with an emulator that is none and modules that were built of a few lines."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import jsonschema
import pytest

from kvmtest import schemas
from kvmtest.cli import main
from kvmtest.coverage.table import Cell, Table
from kvmtest.lab import coverage, instrument
from kvmtest.lab.cell import Cell as LabCell
from kvmtest.lab.coverage import cell_name, for_backends
from kvmtest.lab.instrument import Instrumented
from kvmtest.lab.kernels import Kernel
from kvmtest.lab.steps import Executed, Spec, Step
from tests.coverage.made import FILE, made_blocks, source

_TEXT = 0xFFFF_FFFF_C000_0000
#: The lines of a guest that reports coverage: `hit` gets the offsets of the calls.
_REPORTS = f"""
import struct
def hit(*offsets, clear=()):
    words = {{}}
    for offset in offsets:
        at = {_TEXT} + offset
        words[at & ~63] = words.get(at & ~63, 0) | 1 << (at & 63)
    out.blob("K", b"".join(struct.pack("<QQ", *word) for word in words.items()))
"""
#: The loading of the modules runs the first block; a case the branch of INIT, another one what the first did.
_GUEST = f"""{_REPORTS}
say("B", "9.9.9-fake")
say("M", "kvm")
out.line("S", "kvm", ".text", "{_TEXT:#x}")
hit(6)
say("H", "9.9.9-fake", "svm", "AuthenticAMD", "A CPU")
say("N", "2")
case("init.msi.host.ram")
show("pass")
hit(6, 0x12, 0x35)
done()
case("init.msi.host.halted")
show("pass")
hit()
done()
say("E")
"""
_RAM, _HALTED = "init.msi/ap,intel,ram", "init.msi/ap,intel,halted"


@pytest.fixture
def build(kernel: Kernel, fake: Path, monkeypatch: pytest.MonkeyPatch) -> Instrumented:
    """A build for the fake kernel, kept; the fake guest reports what it executes."""
    made = Instrumented(str(fake / "cache/kvmtest/coverage/9.9.9-fake_b1-1"))
    folder = Path(made.folder)
    folder.mkdir(parents=True)
    (folder / "modules").symlink_to(kernel.modules)
    source(Path(made.tree))
    monkeypatch.setenv("FAKE", _GUEST)
    monkeypatch.setattr(instrument, "instrumented", lambda kernel, tree, say: made)
    monkeypatch.setattr(instrument, "kept", lambda release="": [made])
    made.keep(Table("9.9.9-fake", "me", "b1", made_blocks(), []))
    return made


def _command(kernel: Kernel, *more: str) -> list[str]:
    return ["lab", "coverage", "--backend", "svm", "--kernel", kernel.image, "--modules", kernel.modules, *more]


def test_a_cell_reports_what_each_case_executed(kernel: Kernel, build: Instrumented) -> None:
    steps = [step for step in LabCell(Spec("svm", kernel, coverage=True)).steps() if isinstance(step, Executed)]
    assert [step.case and step.case.name for step in steps] == [None, _RAM, _HALTED]
    loading, first, second = (step.words for step in steps)
    assert loading == {_TEXT: 1 << 6} and first == {_TEXT: 1 << 6 | 1 << 0x12 | 1 << 0x35}
    # A word that is not sent again is unchanged.
    assert second == first and steps[2].sections == {("kvm", ".text"): _TEXT}


@pytest.mark.parametrize("line", ['out.blob("K", b"odd")', 'say("S", "kvm", ".text", "nowhere")', 'say("S", "kvm")'])
def test_what_makes_no_sense_ends_the_cell(
    line: str, kernel: Kernel, build: Instrumented, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FAKE", _GUEST.replace("hit()", f"{line}\nout.flush()\ntime.sleep(60)"))
    assert main(_command(kernel)) == 0
    shown = capsys.readouterr()
    # The results of the case before are kept.
    assert "bzImage/svm: 1 case," in shown.out and "bzImage/svm: 1 case did not report what was run" in shown.err


def test_modules_that_do_not_tell_are_nothing_measured(
    kernel: Kernel, build: Instrumented, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FAKE", 'say("B", "9")\nsay("X", "these modules of KVM do not record what they execute")')
    assert main(_command(kernel)) == 3
    assert capsys.readouterr().err.endswith("kvmtest: no case ran to its end\n")


def test_the_table_has_a_row_a_file_and_is_kept(
    kernel: Kernel, build: Instrumented, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(_command(kernel)) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("KVM of 9.9.9-fake: blocks of its code that cases ran\n  bzImage/svm: 2 cases, ")
    (row,) = [line for line in shown.splitlines() if line.startswith(FILE)]
    assert row.split() == [FILE, "5", "3", "60.0", "%"]
    assert main(_command(kernel, "--kept")) == 0
    assert capsys.readouterr().out == shown


def test_cases_that_run_a_line_are_listed(kernel: Kernel, build: Instrumented, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--covers", "lapic.c:9"]) == 3
    assert "no coverage was measured yet: kvmtest lab coverage --kernel WHICH does" in capsys.readouterr().err
    assert main(_command(kernel)) == 0
    capsys.readouterr()
    assert main(["list", "--covers", "lapic.c:9"]) == 0
    shown = capsys.readouterr()
    assert shown.out.splitlines() == ["init.msi.host/ap,intel,halted", "init.msi.host/ap,intel,ram"]
    assert "2 cases ran lapic.c:9 of 9.9.9-fake (bzImage/svm of " in shown.err
    # By a function; and what none ran.
    assert main(["list", "--covers", "ready", "*.ram"]) == 0
    assert capsys.readouterr().out.splitlines() == ["init.msi.host/ap,intel,ram"]
    assert main(["list", "--covers", "lapic.c:11"]) == 0
    shown = capsys.readouterr()
    assert (shown.out, "0 cases ran lapic.c:11" in shown.err) == ("", True)
    for place, says in (("lapic.c:10", "nearest lines with some: 9, 11"), ("nothing", "no code of a function nothing")):
        assert main(["list", "--covers", place]) == 2
        assert says in capsys.readouterr().err


def test_places_with_what_was_missed(kernel: Kernel, build: Instrumented, fake: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(_command(kernel))
    capsys.readouterr()
    (fake / "list").write_text("accept  # the function\n\n# nothing\nunused\nelsewhere\n")
    assert main(_command(kernel, "--kept", "--functions", str(fake / "list"), "--missed")) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = {line.split("  ")[0]: line.split()[-5:] for line in lines}
    assert rows["accept"][-4:] == ["3", "2", "66.7", "%"] and rows["unused"][-4:] == ["1", "0", "0.0", "%"]
    assert rows["these 3 together"][-4:] == ["4", "2", "50.0", "%"]
    assert "no code was loaded of: elsewhere" in lines
    assert lines[-2:] == [f"{FILE}:11  accept()  wait(x);", f"{FILE}:16  unused()  {{"]


def test_a_patch(kernel: Kernel, build: Instrumented, fake: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(_command(kernel))
    capsys.readouterr()
    patch = fake / "fix.patch"
    hunk = "@@ -8,4 +8,4 @@\n \tif (x)\n-\t\treset(x);\n+\t\tinit(x);\n \telse\n-\t\twait(x);\n+\t;\n"
    patch.write_text(f"--- a/{FILE}\n+++ b/{FILE}\n{hunk}")
    assert main(_command(kernel, "--kept", "--diff", str(patch))) == 0
    out = capsys.readouterr().out
    assert _RAM in out and "NOT RUN" in out and out.endswith("1 of 2 lines with code was run\n")
    patch.write_text(f"--- a/{FILE}\n+++ b/{FILE}\n@@ -8 +8 @@\n-of another source\n+x\n")
    assert main(_command(kernel, "--kept", "--diff", str(patch))) == 0
    assert f"{FILE}: the hunk at line 8 is of another source than that of 9.9.9-fake" in capsys.readouterr().out
    for text, says in (("", "has no hunk of a unified diff"), ("--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+b\n", "changes no file")):
        patch.write_text(text)
        assert main(_command(kernel, "--kept", "--diff", str(patch))) == 2
        assert says in capsys.readouterr().err
    assert main(_command(kernel, "--kept", "--tree", str(fake), "--diff", "HEAD~1")) == 2
    assert "HEAD~1 is neither a file nor a commit of" in capsys.readouterr().err


def test_reports(kernel: Kernel, build: Instrumented, fake: Path, capsys: pytest.CaptureFixture[str]) -> None:
    to = {name: str(fake / name) for name in ("pages", "page.html", "cov.info", "cov.json")}
    reports = [f"html={to['pages']}", f"html={to['page.html']}", f"lcov={to['cov.info']}", f"json={to['cov.json']}"]
    assert main(_command(kernel, *(word for report in reports for word in ("--report", report)))) == 0
    shown = capsys.readouterr().out
    document = json.loads(Path(to["cov.json"]).read_text())
    jsonschema.validate(document, schemas.load("coverage"))
    assert document["kernels"][0]["cells"][0]["cases"] == [_RAM, _HALTED]
    assert Path(to["pages"], "index.html").exists() and _RAM in Path(to["page.html"]).read_text()
    assert "DA:9,2\n" in Path(to["cov.info"]).read_text()
    assert main(["lab", "coverage", "--from", to["cov.json"]]) == 0
    assert capsys.readouterr().out == shown
    for report in ("html=/dev/null/x", "lcov=/nowhere/x"):
        assert main(_command(kernel, "--kept", "--report", report)) == 2
        assert "cannot write /" in capsys.readouterr().err


def test_another_cell_with_other_parameters(
    kernel: Kernel, build: Instrumented, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(_command(kernel, "--also", "kvm_amd.npt=0,kvm_amd.vgif=0", "--jobs", "1")) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0].strip() for line in lines[1:3]] == ["bzImage/svm", "bzImage/svm npt=0 vgif=0"]
    assert lines[4].split() == ["blocks", "bzImage/svm", "bzImage/svm", "npt=0", "vgif=0", "together"]


def test_part_of_the_plan_adds_to_what_is_kept_and_all_of_it_takes_its_place(kernel: Kernel, build: Instrumented) -> None:
    table = build.table()
    old = Cell("fake/svm", "svm")
    old.add("gone", (4,))
    build.keep(table._replace(cells=[old]))
    for selectors, cases in ((("*.ram",), ["gone", _RAM]), ((), [_RAM])):
        measured = coverage.Measured(Spec("svm", kernel, selectors), build, table, "now")
        measured.cell.add(_RAM, (0,))
        measured._left = 0
        coverage.keep([measured])
        assert build.table().cells[0].cases == cases


def test_what_was_reported_until_a_signal_is_kept(
    kernel: Kernel, build: Instrumented, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FAKE", _GUEST.replace("hit()", "time.sleep(60)"))
    take = coverage.Measured.take

    def then_a_signal(measured: coverage.Measured, step: Step) -> None:
        take(measured, step)
        if measured.cell.cases:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(coverage.Measured, "take", then_a_signal)
    assert main(_command(kernel)) == 130
    assert "bzImage/svm: 1 case, " in capsys.readouterr().out and build.table().cells[0].cases == [_RAM]


def test_names_and_backends_of_cells() -> None:
    assert cell_name("6.1", "svm", {}) == "6.1/svm"
    assert cell_name("6.1", "svm", {"kvm_amd": "npt=0", "kvm": "tdp_mmu=0"}) == "6.1/svm tdp_mmu=0 npt=0"
    sets = [{"kvm_amd": "vgif=0"}, {"kvm": "tdp_mmu=0"}]
    both = [("svm", sets[0]), ("svm", sets[1]), ("vmx", sets[1])]
    assert for_backends(sets, ["svm", "vmx"]) == both and for_backends(sets, ["vmx"]) == both[2:]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "name a kernel"),
        (["--kernel", "6.1", "--missed"], "--missed needs places"),
        (["--from", "/nowhere"], "cannot read /nowhere: No such file"),
        (["--from", "/dev/null"], "is not a kvmtest.coverage/1"),
        (["--kernel", "6.1", "--functions", "/nowhere"], "cannot read /nowhere"),
    ],
)
def test_wrong_usage_is_one_line(words: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lab", "coverage", *words]) == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--of", "a b"], ["--report", "lcov"], ["--report", "pdf=x"], ["--also", "npt=0"]])
def test_wrong_arguments_are_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["lab", "coverage", "--kernel", "6.1", *words])
    assert ended.value.code == 2 and words[1] in capsys.readouterr().err
