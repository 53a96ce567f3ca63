# SPDX-License-Identifier: GPL-2.0-only
"""``kvmtest report`` and ``--report`` as a user meets them: files, exit status, one clear line."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kvmtest.cli import main
from kvmtest.kvm import Kvm
from kvmtest.model.record import FIRST_TRY
from kvmtest.model.run import Run
from kvmtest.report import FORMATS
from kvmtest.results.lines import SCHEMA
from tests.report import ktap_strict
from tests.report.samples import LAB, made, observation, of_each, record, saved, saved_runs, written
from tests.sample import at_most

pytestmark = pytest.mark.program


def _file(folder: Path, run: Run, name: str = "r.json") -> str:
    path = folder / name
    path.write_text(written("jsonl" if name.endswith("l") else "json", run), encoding="utf-8")
    return str(path)


def _line(capsys: pytest.CaptureFixture[str]) -> str:
    shown = capsys.readouterr()
    assert shown.err.startswith("kvmtest: ") and shown.err.count("\n") == 1 and "Traceback" not in shown.err
    return shown.err


@pytest.mark.parametrize("name", FORMATS)
def test_each_format_is_what_the_writer_writes(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = saved(of_each(), host=LAB)
    assert main(["report", "--format", name, _file(tmp_path, run)]) == 0
    out = capsys.readouterr().out
    assert out == written(name, run)


def test_several_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = saved(of_each())
    asked = [part for name in FORMATS for part in ("--report", f"{name}={tmp_path / name}")]
    assert main(["report", *asked, _file(tmp_path, run)]) == 0
    assert capsys.readouterr().out == written("text", run)
    for name in FORMATS:
        assert (tmp_path / name).read_text(encoding="utf-8") == written(name, run)


def test_it_says_what_the_run_printed(kvm: Kvm, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = {name: str(tmp_path / name) for name in ("json", "text", "ktap")}
    asked = [part for name, path in files.items() for part in ("--report", f"{name}={path}")]
    main(["run", "reset.create.host.*", "init.msi.host.cr*", *asked])
    printed = capsys.readouterr().out
    assert main(["report", files["json"]]) == 0
    assert capsys.readouterr().out == printed == Path(files["text"]).read_text()
    assert main(["report", files["json"], "--format", "ktap"]) == 0
    assert capsys.readouterr().out == Path(files["ktap"]).read_text()


def test_progress_is_of_the_run_that_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    assert main(["report", "--report", f"text={tmp_path / 'text'}", _file(tmp_path, saved([made("pass")]))]) == 0
    assert terminal.getvalue() == ""


def test_a_fail_is_no_failure_of_the_report(tmp_path: Path) -> None:
    assert main(["report", "-o", str(tmp_path / "out"), _file(tmp_path, saved([made("fail")]))]) == 0


def test_results_keep_the_run_that_they_are_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [_file(tmp_path, saved([made("pass")]), "a.json"), _file(tmp_path, saved([made("fail")]), "b.jsonl")]
    assert main(["report", "--format", "ktap", *files]) == 0
    one, two = ktap_strict.parse(capsys.readouterr().out)
    assert (one.name, one.ok, two.name, two.ok) == ("a", True, "b", False)
    assert main(["report", *files]) == 0
    out = capsys.readouterr().out
    assert out.count("run      ") == 2 and out.count("1 result in") == 2
    assert main(["report", "--format", "json", "-o", str(tmp_path / "m.json"), *files]) == 0
    document = json.loads((tmp_path / "m.json").read_text())
    assert document["schema"] == SCHEMA and [run["name"] for run in document["runs"]] == ["a", "b"]
    assert main(["report", "--format", "ktap", str(tmp_path / "m.json"), files[0], files[0]]) == 0
    names = [node.name for node in ktap_strict.parse(capsys.readouterr().out)]
    assert len(set(names)) == 4
    assert main(["report", "--format", "jsonl", "-o", str(tmp_path / "m.jsonl.gz"), *files]) == 0
    assert main(["report", "--format", "ktap", str(tmp_path / "m.jsonl.gz")]) == 0
    assert [node.name for node in ktap_strict.parse(capsys.readouterr().out)] == ["a", "b"]


def test_a_run_that_was_cut_short_is_a_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A host that crashes loses none of the whole lines; what is left out is said."""
    whole = written("jsonl", saved([made("pass", f"i{i}", f"case-{i}") for i in range(9)])).encode()
    path = tmp_path / "r.jsonl"
    path.write_bytes(whole[: whole.rindex(b'{"end"') - 5])
    assert main(["report", str(path)]) == 0
    shown = capsys.readouterr()
    assert "8 results in 0.0 s, cut short: nothing unexpected" in shown.out
    assert shown.err.splitlines() == [
        f"kvmtest: {path}: the last line is cut short and left out",
        f"kvmtest: {path}: cut short: it does not say how the run ended",
    ]


def test_each_result_by_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = _file(tmp_path, saved(of_each()))
    assert main(["report", "--format", "jsonl", "--expand", path]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(lines) == 14 and lines[0]["id"] == "init.msi.host.item-fail" and lines[0]["params"] == {"target": "ap"}
    assert lines[0]["cite"] == ["SDM vol. 3"] and lines[0]["planted"] == "0x5000" and lines[0]["expected"] == ["0x0"]
    assert main(["report", "--expand", path]) == 2
    assert "jsonl" in _line(capsys)


def test_only_what_is_new_fails_against_a_baseline(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = _file(tmp_path, saved([made("fail", "cr0"), made("pass")]), "old.json")
    new = _file(tmp_path, saved([made("fail", "cr0"), made("fail")]), "new.json")
    assert main(["report", "--baseline", old, old]) == 0
    assert main(["report", "--baseline", old, new]) == 1
    assert "cr3" in capsys.readouterr().out.rpartition("Against")[2]
    assert main(["report", "--baseline", str(tmp_path / "nothing"), new]) == 2


def test_what_the_user_knows_is_known(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    known = tmp_path / "known.toml"
    entries = (("cr3", "our L0", "B-1"), ("cr4", "x", "B-2"))
    known.write_text("".join(f'[[known]]\nselector = "{s}"\nreason = "{why}"\nbug = "{bug}"\n' for s, why, bug in entries))
    path = _file(tmp_path, saved([made("fail")]))
    assert main(["report", "--known", str(known), "--format", "jsonl", "--expand", path]) == 0
    shown = capsys.readouterr()
    assert '"verdict":"known"' in shown.out and "B-1" in shown.out
    assert "cr4" in shown.err and "matched nothing" in shown.err
    known.write_text("[[known]]\n")
    assert main(["report", "--known", str(known), path]) == 2
    _line(capsys)


def test_standard_input(tmp_path: Path) -> None:
    run = saved(of_each())
    command = [sys.executable, "-m", "kvmtest", "report", "-"]
    done = subprocess.run(command, input=written("json", run), capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, written("text", run), "")


def test_a_terminal_or_file_that_is_not_utf_8(tmp_path: Path) -> None:
    path = _file(tmp_path, saved([made("fail", reason="na\u00efve \U0001f600")]))
    command = [sys.executable, "-m", "kvmtest", "report", path]
    done = subprocess.run(command, capture_output=True, env={"PYTHONIOENCODING": "ascii"}, check=True)
    assert rb"na\xefve" in done.stdout


@pytest.mark.parametrize(
    "more",
    [
        ["--report", "nonsense=x"],
        ["--report", "ktap"],
        ["--report", "ktap="],
        ["--origin", "A:b"],
        ["--build", "x"],
        ["--format", "xml"],
    ],
)
def test_wrong_usage_is_2(more: list[str]) -> None:
    with pytest.raises(SystemExit) as done:
        main(["report", *more, "x"])
    assert done.value.code == 2


def test_one_line_and_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, out = _file(tmp_path, saved([made("pass")])), str(tmp_path / "out")
    for args in (
        [str(tmp_path / "nothing")],
        [good, "--report", "ktap=/nonexistent/x"],
        [good, "-o", "/nonexistent/x"],
        [good, "-o", out, "--report", f"ktap={out}"],
        [good, "--report", f"junit={out}", "--report", f"ktap={out}"],
    ):
        assert main(["report", *args]) == 2
        _line(capsys)


def test_a_full_disk_stops_no_other_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, out = saved([made("pass", f"i{i}") for i in range(3000)]), str(tmp_path / "out.xml")
    assert main(["report", _file(tmp_path, run), "--report", "ktap=/dev/full", "--report", f"junit={out}"]) == 2
    shown = capsys.readouterr()
    assert "cannot write /dev/full: No space left on device" in shown.err and shown.err.count("\n") == 1
    assert shown.out == written("text", run) and Path(out).read_text() == written("junit", run)


def test_what_passed_only_at_a_second_try_is_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    again = f"no exit within 1 s {FIRST_TRY}"
    records = [record("pass", "a"), *(record("info", item, again) for item in "bc"), record("info", "d")]
    assert main(["report", _file(tmp_path, saved([observation(records)]))]) == 0
    assert "2 results of 1 cases are info" in _line(capsys)


def test_without_jinja2_html_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    monkeypatch.delitem(sys.modules, "kvmtest.report.html", raising=False)
    out = tmp_path / "out"
    out.write_text("kept")
    for args in (["report", "x"], ["run"], ["lab", "matrix", "--kernel", "6.1"]):
        assert main([*args, "--format", "html", "-o", str(out)]) in (2, 3)
        assert capsys.readouterr().err.count("\n") == 1
    assert main(["report", _file(tmp_path, saved([])), "--report", f"html={out}"]) == 2
    assert "pip install jinja2\n" in _line(capsys) and out.read_text() == "kept"


def test_kcidb_of_a_build_that_was_submitted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = ["--format", "kcidb", "--origin", "mine", "--build", "mine:1"]
    assert main(["report", *args, _file(tmp_path, saved([made("pass")]))]) == 0
    (test,) = json.loads(capsys.readouterr().out)["tests"]
    assert test["build_id"] == "mine:1" and test["id"].startswith("mine:")


def test_the_standard_library_is_enough_but_for_html() -> None:
    program = (
        "import sys, io; from kvmtest import report\n"
        "for name in report.FORMATS[:-1]: report.writer(name, io.StringIO())\n"
        "known = sys.stdlib_module_names | {'kvmtest', '__main__'}\n"
        "print(sorted({m.partition('.')[0] for m in sys.modules} - known))"
    )
    # -S: without site-packages, hence without what is installed there.
    done = subprocess.run([sys.executable, "-S", "-c", program], capture_output=True, text=True, check=True)
    assert FORMATS[-1] == "html" and done.stdout == "[]\n"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=at_most(40))
@given(saved_runs(), st.sampled_from(FORMATS), st.floats(0, 1))
def test_a_file_in_pieces_or_whole_is_a_report_or_one_line(tmp_path: Path, runs: list[Run], name: str, cut: float) -> None:
    text = written("json", runs[0])
    for part in (text, text[: int(len(text) * cut)]):
        (tmp_path / "r.json").write_text(part, encoding="utf-8")
        out, err = io.StringIO(), io.StringIO()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "stdout", out)
            patch.setattr(sys, "stderr", err)
            status = main(["report", "--format", name, str(tmp_path / "r.json")])
        if status == 0:
            assert not err.getvalue() and all(line.isprintable() for line in out.getvalue().split("\n"))
        else:
            assert status == 2 and err.getvalue().count("\n") == 1 and err.getvalue()[:-1].isprintable()
