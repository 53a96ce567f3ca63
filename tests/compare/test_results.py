# SPDX-License-Identifier: GPL-2.0-only
"""What differs between two runs: verdicts and values, not what counts by itself, and what only one of them tried."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmtest.cli import main
from kvmtest.compare import show
from kvmtest.compare.groups import blocks
from kvmtest.compare.results import Difference, Index, difference
from kvmtest.engine.result import VERDICTS, Result
from kvmtest.kvm import Kvm
from kvmtest.report.saved import MATRIX

_CASE = "ap,intel,xapic,plant-a"


def _result(item: str = "cr2", verdict: str = "pass", trigger: str = "msi", view: str = "host", **more: str | None) -> Result:
    prefix = f"init.{trigger}.{view}"
    values = {"planted": "0x5000", "expected": "0x0", "observed": "0x0"} if verdict not in ("skip", "error") else {}
    made = {"case": f"{prefix}/{_CASE}", "planted": None, "expected": None, "observed": None, "reason": "", "deviation": None}
    fields = {**made, **values, **more}
    return Result(f"{prefix}.{item}", "init", trigger, view, item, verdict=verdict, cite=("SDM",), **fields)  # type: ignore[arg-type]


def _log(reason: str = "", verdict: str = "fail", case: str = "init.msi.host/x") -> Result:
    where = ("none.lab.kernel.log", "none", "lab", "kernel", "log", case)
    return Result(*where, None, None, None, verdict, reason, (), None)


def _difference(a: list[Result], b: list[Result], *selectors: str) -> Difference:
    return difference(Index(a), Index(b), selectors)


def _verdicts(found: Difference) -> list[tuple[str, str]]:
    return [change.verdicts for change in found.changes]


def test_the_same_is_nothing() -> None:
    results = [_result(), _result("cr0", "fail"), _result("cr3", "skip"), _log("WARNING: x")]
    found = _difference(results, results)
    assert not found and list(show.results(found)) == []


def test_verdicts_and_values() -> None:
    assert _verdicts(_difference([_result()], [_result(verdict="fail", observed="0x5000")])) == [("pass", "fail")]
    assert _verdicts(_difference([_result()], [_result(observed="0x1")])) == [("pass", "pass")]
    assert _verdicts(_difference([_result()], [_result(planted="0x1")])) == [("pass", "pass")]
    # Undefined values are part of what a kernel does.
    assert _difference([_result(verdict="info")], [_result(verdict="info", observed="0x1")])
    # Reasons hold addresses and times.
    assert not _difference([_result(verdict="error", reason="a")], [_result(verdict="error", reason="b")])


@pytest.mark.parametrize("item", ["msr.tsc", "lapic.timer_current", "msr.hv_vp_runtime", "msr.hv_time_ref_count"])
def test_of_a_counter_only_the_verdict(item: str) -> None:
    assert not _difference([_result(item)], [_result(item, observed="0x77", planted="0x1", expected="0x2")])
    assert _verdicts(_difference([_result(item)], [_result(item, "fail", observed="0x77")])) == [("pass", "fail")]


def test_what_is_skipped_once_stands_for_all_cases() -> None:
    """The engine skips what a host cannot show once for an id and a reason."""
    first, second = "init.msi.host/one", "init.msi.host/two"
    others = [_result("cr0", case=first), _result("cr0", case=second)]
    absent = [*others, _result("msr.xss", "skip", case=first, reason="not here")]
    there = [*others, _result("msr.xss", case=first), _result("msr.xss", case=second)]
    assert _verdicts(_difference(absent, there)) == [("skip", "pass")] * 2
    assert _verdicts(_difference(there, absent)) == [("pass", "skip")] * 2
    # The same skip in another first case is no news.
    moved = [*others, _result("msr.xss", "skip", case=second, reason="not here")]
    assert not _difference(absent, moved)


def test_a_case_that_one_did_not_try_is_said() -> None:
    more = [_result(), _result(case="init.msi.host/more"), _result("cr3", case="init.msi.host/more")]
    found = _difference([_result()], more)
    assert found and not found.changes and found.only_b == {"init.msi.host/more": 2}
    assert "+ init.msi.host: 1 case in the second only" in list(show.results(found))
    assert _difference(more, [_result()]).only_a == {"init.msi.host/more": 2}


def test_a_case_that_ran_with_nothing_to_show() -> None:
    """A document says which cases ran; the guest's and both views' results are of one."""
    told = [_result("cr0", "skip", view=view, case=f"init.msi.{view}/one") for view in ("guest", "views")]
    there = [_result("cr0", view=view, case=f"init.msi.{view}/two") for view in ("guest", "views")]
    found = difference(Index(told, ["init.msi.guest/one", "init.msi.guest/two"]), Index(there, ["init.msi.guest/two"]))
    assert _verdicts(found) == [("skip", "pass")] * 2
    assert found.only_a == {"init.msi.guest/one": 1, "init.msi.views/one": 1}


def test_a_result_that_one_lacks() -> None:
    found = _difference([_result()], [_result(), _result("msr.0x1234")])
    assert _verdicts(found) == [("-", "pass")]
    assert "- -> pass  init.msi.host.msr.0x1234" in list(show.results(found))


def test_selectors() -> None:
    a, b = [_result(), _result("cr0")], [_result(verdict="fail"), _result("cr0", "fail")]
    assert [c.either.item for c in _difference(a, b, "*.cr0").changes] == ["cr0"]


def test_a_kernels_log_by_what_it_says_not_where() -> None:
    warn = "WARNING: CPU: 0 PID: 71 at x86.c:12032 kvm_vcpu_reset+0x1b/0x5d0\nCall Trace:"
    again = warn.replace("71", "99").replace("0x1b", "0x2c")
    assert not _difference([_log(warn, case="a")], [_log(again, case="b")])
    quiet = _log(verdict="pass", case="the whole run")
    assert not _difference([quiet], [quiet])
    assert _verdicts(_difference([quiet], [_log(warn)])) == [("pass", "fail")]
    assert _verdicts(_difference([_log(warn)], [quiet])) == [("fail", "pass")]
    assert _verdicts(_difference([_log(warn)], [_log("kernel BUG at mmu.c:1")])) == [("fail", "-"), ("-", "fail")]
    assert not _difference([quiet], [])


def test_the_same_change_over_triggers_and_cases_is_one_block() -> None:
    triggers, cases = ("msi", "latched", "irqfd"), range(50)
    before = [_result(trigger=t, case=f"init.{t}.host/c{i}") for t in triggers for i in cases]
    after = [r._replace(verdict="fail", observed="0x5000") for r in before]
    found = _difference(before, after)
    (block,) = blocks(found.changes)
    assert block.count == 150 and block.name == "init.{msi,latched,irqfd}.host.cr2"
    lines = list(show.results(found))
    assert lines[0] == "pass -> fail  init.{msi,latched,irqfd}.host.cr2" and len(lines) < 10
    assert any("c0  c1  c2 and 47 more" in line for line in lines)


def test_a_whole_case_that_fails_for_one_reason_is_one_block() -> None:
    before = [_result(f"r{i}") for i in range(200)]
    after = [_result(f"r{i}", "error", reason="the guest stopped") for i in range(200)]
    (block,) = blocks(_difference(before, after).changes)
    assert block.count == 200 and block.verdicts == ("pass", "error")
    lines = list(show.block(block))
    assert lines[0] == "pass -> error  init.msi.host" and any("and 192 more" in line for line in lines)
    assert any("the guest stopped" in line for line in lines)


def test_failures_come_first_and_bits_have_names() -> None:
    a = [_result("r8"), _result("r9", "fail"), _result("cr0", planted="0x1", expected="0x10", observed="0x10")]
    kept = {"planted": "0x1", "expected": "0x10", "observed": "0x60000010"}
    b = [_result("r8", observed="0x1"), _result("r9"), _result("cr0", "fail", **kept)]
    found = _difference(a, b)
    assert [block.verdicts for block in blocks(found.changes)] == [("pass", "fail"), ("fail", "pass"), ("pass", "pass")]
    assert "      differs   CD|NW" in list(show.results(found))


_RESULTS = st.lists(
    st.builds(
        lambda item, verdict, trigger, case, value: _result(
            item, verdict, trigger, case=f"init.{trigger}.host/{case}", observed=None if verdict in ("skip", "error") else value
        ),
        st.sampled_from(["cr0", "cr2", "msr.tsc", "msr.xss"]),
        st.sampled_from(VERDICTS),
        st.sampled_from(["msi", "latched"]),
        st.sampled_from("xyz"),
        st.sampled_from(["0x0", "0x1"]),
    ),
    max_size=12,
    unique_by=lambda result: (result.id, result.case),
)


@given(_RESULTS, _RESULTS)
def test_it_is_symmetric_and_nothing_is_lost(a: list[Result], b: list[Result]) -> None:
    found, back = _difference(a, b), _difference(b, a)
    assert not _difference(a, a)
    assert sorted(c.verdicts for c in found.changes) == sorted(c.verdicts[::-1] for c in back.changes)
    assert (found.only_a, found.only_b) == (back.only_b, back.only_a)
    assert sum(block.count for block in blocks(found.changes)) == len(found.changes)
    # What both have and is not the same is found.
    first, second = ({(r.id, r.case): r for r in results} for results in (a, b))
    reported = {(c.either.id, c.either.case) for c in found.changes}
    for key in first.keys() & second.keys():
        counts = first[key].item == "msr.tsc"
        fields = ("verdict",) if counts else ("verdict", "planted", "expected", "observed")
        differs = any(getattr(first[key], name) != getattr(second[key], name) for name in fields)
        assert (key in reported) == differs


def _document(path: Path, results: list[Result], kernel: str = "6.1") -> str:
    host = {"kernel": kernel, "backend": "svm", "cpu_vendor": "AuthenticAMD", "cpu_model": "x", "parameters": {}}
    body = {"host": host, "started": "2026-01-01T00:00:00Z", "duration_s": 1, "results": [r._asdict() for r in results]}
    head = {"schema": "kvmtest.results/1", "tool": {"name": "kvmtest", "version": "1"}}
    path.write_text(json.dumps({**head, **body, "totals": {}}))
    return str(path)


def test_a_diff_says_where_they_come_from_which_does_not_count(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = _document(tmp_path / "a", [_result()], "5.10"), _document(tmp_path / "b", [_result()], "6.1")
    assert main(["diff", a, b]) == 0
    assert "  kernel: 5.10 -> 6.1" in capsys.readouterr().out
    assert main(["diff", a, a]) == 0
    assert capsys.readouterr().out == ""


def test_json_has_every_result(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = _document(tmp_path / "a", [_result(), _result("cr0")])
    changed = [_result(verdict="fail", observed="0x5000"), _result("cr0", "fail"), _result(case="init.msi.host/n")]
    b = _document(tmp_path / "b", changed)
    assert main(["diff", a, b, "--format", "json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert [(c["id"], c["a"]["verdict"], c["b"]["observed"]) for c in document["changes"]] == [
        ("init.msi.host.cr2", "pass", "0x5000"),
        ("init.msi.host.cr0", "pass", "0x0"),
    ]
    assert document["only"] == {"a": {}, "b": {"init.msi.host/n": 1}}


def _matrix(path: Path, **cells: list[Result]) -> str:
    documents = [{"cell": n, "document": json.loads(Path(_document(path, r, n)).read_text())} for n, r in cells.items()]
    path.write_text(json.dumps({"schema": MATRIX, "cells": documents}))
    return str(path)


def test_a_value_with_words_behind_its_number_is_a_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As the LVT's size is, and what no run of ours writes."""
    seven = "0x10000, 7 LVT entries"
    a = _document(tmp_path / "a", [_result("lvt-cmci", observed="0x0, 6 LVT entries"), _result("cr0", observed="0xg")])
    b = _document(tmp_path / "b", [_result("lvt-cmci", "known", observed=seven), _result("cr0", observed="0x10|0x11")])
    assert main(["diff", a, b]) == 1
    out = capsys.readouterr().out
    assert f"-> {seven}\n" in out and "0xg" in out and "0x10|0x11" in out and "differs" not in out


def test_a_file_tells_the_terminal_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evil = "\x1b]0;title\x07\x1b[31m\ud800"
    a = _document(tmp_path / "a", [_result()])
    b = _document(tmp_path / "b", [_result(verdict="fail", reason=evil, case=f"init.msi.host/{evil}", observed=evil)], evil)
    cells = _matrix(tmp_path / "c", **{evil: [_result()], "x": []})
    commands = (["diff", a, b], ["diff", a, cells], ["diff", a, f"{cells}#y"], ["series", "--results", b])
    for command in (*commands, ["run", "--baseline", cells]):
        main(command)
        shown = capsys.readouterr()
        assert (shown.out + shown.err).replace("\n", "").isprintable() and "x1b[31m" in shown.out + shown.err, command


def test_matrices_are_compared_cell_by_cell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = _matrix(tmp_path / "a", one=[_result()], two=[_result()], three=[])
    b = _matrix(tmp_path / "b", one=[_result()], two=[_result(verdict="fail")], four=[])
    assert main(["diff", a, b]) == 1
    shown = capsys.readouterr()
    assert "=== two" in shown.out and "=== one" not in shown.out
    assert "cell three is in" in shown.err and "cell four is in" in shown.err
    assert main(["diff", f"{a}#one", f"{b}#two"]) == 1
    assert main(["diff", f"{a}#one", f"{a}#two"]) == 0


def test_files_that_cannot_be_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, many = _document(tmp_path / "a", [_result()]), _matrix(tmp_path / "b", x=[], y=[])
    other = _matrix(tmp_path / "e", z=[], w=[])
    cut = tmp_path / "c"
    cut.write_text(Path(one).read_text()[:-30])
    snapshot = tmp_path / "d"
    snapshot.write_text('{"schema": "kvmtest.snapshot/1", "host": {}}')
    pairs = [(one, many), (many, other), (one, f"{many}#z"), (one, str(cut)), (str(cut), one), (one, str(snapshot))]
    for a, b in [*pairs, (one, "/nonexistent"), (one, str(tmp_path))]:
        assert main(["diff", a, b]) == 2, (a, b)
        error = capsys.readouterr().err
        assert error.startswith("kvmtest: ") and error.count("\n") == 1


def test_a_snapshot_against_results_is_one_line(kvm: Kvm, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    snapshot, results = str(tmp_path / "a"), _document(tmp_path / "b", [_result()])
    assert main(["snapshot", "--event", "init", "-o", snapshot]) == 0
    assert main(["diff", snapshot, results]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert main(["diff", snapshot, snapshot, "init.msi"]) == 2
    assert "selectors" in capsys.readouterr().err


def test_two_runs_on_one_kernel_do_not_differ(kvm: Kvm, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On this machine's KVM, whatever it is: what counts by itself is not in it, nor what a plant draws anew."""
    paths = [str(tmp_path / name) for name in "ab"]
    selectors = ["init.irqfd.host", "sipi.mp-state", "none.mp-state.host", "shutdown"]
    for path in paths:
        assert main(["run", "--format", "json", "-o", path, *selectors]) in (0, 1)
    capsys.readouterr()
    assert main(["diff", *paths]) == 0
    assert capsys.readouterr().out == ""
