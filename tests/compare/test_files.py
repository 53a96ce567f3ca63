# SPDX-License-Identifier: GPL-2.0-only
"""Files to compare: results of several runs, one of them, and what is neither results nor a snapshot."""

from __future__ import annotations

from pathlib import Path

import pytest

from kvmtest.compare import files
from kvmtest.compare.snapshot import Item, State, dump
from kvmtest.results.saved import SavedError
from tests.report.samples import HOST, made, saved
from tests.results.encode import document

_MADE = dict.fromkeys(("case", "event", "trigger", "view", "target", "mode", "plant", "vendor"), "x")


@pytest.fixture
def cells(tmp_path: Path) -> str:
    """Results of two runs."""
    path = tmp_path / "cells.json"
    path.write_text(document(*(saved([made("pass")], name) for name in ("6.1/svm", "6.1/vmx"))))
    return str(path)


@pytest.fixture
def snapshot(tmp_path: Path) -> str:
    """A snapshot."""
    path = tmp_path / "snapshot.json"
    path.write_text(dump(State("", HOST, "2026-11-22T18:00:00Z", _MADE, {"cr0": Item("0x10")})))
    return str(path)


def test_one_of_several_by_its_name(cells: str) -> None:
    assert [run.name for run in files.runs(cells)] == ["6.1/svm", "6.1/vmx"]
    assert [run.name for run in files.runs(f"{cells}#6.1/vmx")] == ["6.1/vmx"]
    assert files.one_run(f"{cells}#6.1/svm").name == "6.1/svm"
    with pytest.raises(SavedError, match="has 2 runs: add #NAME, one of 6.1/svm, 6.1/vmx"):
        files.one_run(cells)
    with pytest.raises(SavedError, match="has no run 5.10/svm: there is 6.1/svm, 6.1/vmx"):
        files.runs(f"{cells}#5.10/svm")


def test_a_name_with_a_number_sign_is_a_files_first(cells: str, tmp_path: Path) -> None:
    path = tmp_path / "a#b.json"
    path.write_text(Path(cells).read_text())
    assert len(files.runs(str(path))) == 2 and files.one_run(f"{path}#6.1/svm")


def test_each_command_names_the_other(cells: str, snapshot: str) -> None:
    assert files.state(snapshot).items == {"cr0": Item("0x10")}
    with pytest.raises(SavedError, match=r"has results, not a snapshot: kvmtest report --baseline OLD NEW"):
        files.state(cells)
    with pytest.raises(SavedError, match=r"is a snapshot, not results: kvmtest diff"):
        files.runs(snapshot)


@pytest.mark.parametrize("contents", ["", "{}", "[]", '{"schema": "kvmtest.results/9"}', "\x00", None])
def test_a_bad_file_is_one_line_that_names_it(contents: str | None, tmp_path: Path) -> None:
    path = tmp_path / "bad"
    if contents is not None:
        path.write_text(contents)
    for load in (files.runs, files.one_run, files.state):
        with pytest.raises(SavedError, match=str(path)) as error:
            load(str(path))
        assert "\n" not in str(error.value)
