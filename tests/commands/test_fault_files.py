# SPDX-License-Identifier: GPL-2.0-only
"""Saved results that once ended commands in a traceback, or spoke to the terminal: as they were, and in today's format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kvmtest.cli import main
from kvmtest.report import FORMATS

_FAULTS = Path(__file__).parents[1] / "data" / "faults"
_ALL = sorted(path.name for path in _FAULTS.glob("*.json"))
_COMMANDS: tuple[tuple[str, ...], ...] = (
    ("report", "FILE", "--color", "never"),
    ("report", "FILE", "OTHER", "--verbose", "--color", "never"),
    ("report", "--baseline", "FILE", "OTHER", "--color", "never"),
    ("report", "--baseline", "OTHER", "FILE", "--color", "never"),
    ("report", "FILE", "--format", "jsonl", "--expand"),
    ("series", "--results", "FILE"),
    ("series", "--results", "FILE", "--format", "json"),
    ("diff", "FILE", "OTHER"),
    *(("report", "FILE", "--format", name) for name in FORMATS if name not in ("text", "html")),
)


def _today(old: dict[str, Any]) -> dict[str, Any]:
    """A document of kvmtest.results/1 as one of kvmtest.results/2, its strings as they are."""
    cites: list[str] = []
    cases: dict[str, int] = {}
    records, rows = [], []
    for result in old["results"]:
        for said in result["cite"]:
            if said not in cites:
                cites.append(said)
        record = {"item": result["item"], "verdict": result["verdict"], "cite": [cites.index(said) for said in result["cite"]]}
        record |= {key: result[key] for key in ("planted", "observed", "reason", "deviation") if result[key] is not None}
        if result["expected"] is not None:
            record["expected"] = [result["expected"]]
        case = cases.setdefault(result["case"], len(cases))
        rows.append([case, result["event"], result["trigger"], result["view"], [len(records)]])
        records.append(record)
    run = {"tool": old["tool"], "host": old["host"], "started": old["started"], "duration_s": 1, "interrupted": False}
    document = {"schema": "kvmtest.results/2", "cites": cites, "cases": [{"name": name} for name in cases], "records": records}
    return document | {"runs": [run | {"results": rows}]}


@pytest.mark.parametrize("name", _ALL)
def test_as_they_were_they_are_refused_in_one_line(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["report", str(_FAULTS / name)], ["series", "--results", str(_FAULTS / name)]):
        assert main(words) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"kvmtest: {_FAULTS / name}: schema 'kvmtest.results/1'")


@pytest.mark.parametrize("name", _ALL)
def test_in_todays_format_every_command_reads_them(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = {"FILE": tmp_path / "file.json", "OTHER": tmp_path / "other.json"}
    other = "lvt-cmci-real-vmx-6.1.json" if name.startswith("lvt") else "plain.json"
    for path, source in zip(paths.values(), (name, other), strict=True):
        path.write_text(json.dumps(_today(json.loads((_FAULTS / source).read_text()))))
    for words in _COMMANDS:
        status = main([str(paths.get(word, word)) for word in words])
        said = capsys.readouterr()
        assert status in (0, 1, 2) and (status != 2 or words[0] == "diff"), (words, said.err)
        assert "fault of kvmtest" not in said.err
        shown = said.out + said.err
        assert "\x1b" not in shown and "\x07" not in shown, words


def test_a_last_record_that_is_cut_is_left_out_and_the_rest_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The file as it was has no head, without which nobody knows whose results these are."""
    assert main(["report", str(_FAULTS / "last-record-cut.jsonl")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    (whole := tmp_path / "file.json").write_text(json.dumps(_today(json.loads((_FAULTS / "plain.json").read_text()))))
    assert main(["report", str(whole), "--format", "jsonl", "-o", str(tmp_path / "r.jsonl")]) == 0
    lines = (tmp_path / "r.jsonl").read_bytes()
    cut = lines[: lines.rindex(b'{"end"') - 20]
    for tail in (b"", bytes(4096)):
        (tmp_path / "r.jsonl").write_bytes(cut + tail)
        assert main(["report", str(tmp_path / "r.jsonl"), "--color", "never"]) == 0
        said = capsys.readouterr()
        assert "the last line is cut short and left out" in said.err and "cut short" in said.out
