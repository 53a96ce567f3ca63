# SPDX-License-Identifier: GPL-2.0-only
"""Saved results: what was written is read back, and whatever else a file holds ends in one line."""

from __future__ import annotations

import io
import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kvmtest import report
from kvmtest.engine.result import CaseTime, Host, Result
from kvmtest.report.runs import MATRIX, Run
from kvmtest.report.saved import Saved, SavedError, load, names

_HOST = Host("6.1.0", "svm", "AuthenticAMD", "a CPU", {"npt": "Y"}, {"emulator": "QEMU", "cpu": "max", "kernel_source": "deb"})
_WHERE = ("init.msi.host.cr3", "init", "msi", "host", "cr3", "init.msi.host/ap,xapic,plant-a")
_RESULTS = [
    Result(*_WHERE, "0x5000", "0x0", "0x5000", "fail", "", ("SDM", "APM"), None),
    Result(*_WHERE, None, None, None, "skip", "why <script> \x1b[31m \u2028", (), None),
]


def _written(name: str) -> str:
    out = io.StringIO()
    writer = report.writer(name, out)
    writer.begin(_HOST, "2026-01-01T00:00:00Z", 1)
    for result in _RESULTS:
        writer.result(result)
    writer.case(CaseTime("a", 0.5))
    writer.end(1.5, Counter(r.verdict for r in _RESULTS))
    return out.getvalue()


def _load(folder: Path, text: str | bytes) -> list[Saved]:
    path = folder / "file"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load(str(path))


def test_a_document_is_read_back(tmp_path: Path) -> None:
    (saved,) = _load(tmp_path, _written("json"))
    assert saved.results == tuple(_RESULTS) and saved.host == _HOST
    assert saved.cases == (CaseTime("a", 0.5),) and saved.duration_s == 1.5
    assert saved.totals == {"fail": 1, "skip": 1}


def test_records_are_read_back(tmp_path: Path) -> None:
    (saved,) = _load(tmp_path, _written("jsonl"))
    assert saved.results == tuple(_RESULTS) and saved.host.kernel == "unknown"
    (one,) = _load(tmp_path, _written("jsonl").splitlines()[0])
    assert one.results == tuple(_RESULTS[:1])


def test_a_matrix_is_its_cells(tmp_path: Path) -> None:
    cells = [{"cell": name, "document": json.loads(_written("json"))} for name in ("one", "two")]
    assert [s.name for s in _load(tmp_path, json.dumps({"schema": MATRIX, "cells": cells}))] == ["one", "two"]


def test_what_made_the_cpu_is_read_back(tmp_path: Path) -> None:
    document = json.loads(_written("json"))
    assert "accel" not in document["host"] and _load(tmp_path, json.dumps(document))[0].accel == ""
    out = io.StringIO()
    writer = report.writer("json", out, [Run(accel="silicon")])
    writer.begin(_HOST, "2026-01-01T00:00:00Z", 0)
    writer.end(1.5, Counter())
    (saved,) = _load(tmp_path, out.getvalue())
    assert (saved.accel, saved.host) == ("silicon", _HOST)
    with pytest.raises(SavedError, match="host.accel is no string"):
        _load(tmp_path, json.dumps({**document, "host": {**document["host"], "accel": 1}}))


def _bent(**changes: object) -> str:
    return json.dumps({**json.loads(_written("json")), **changes})


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\xff\xfe",
        "nonsense",
        "[]x",
        "3",
        "[1]",
        "[" * 100_000,
        _written("json")[:-40],
        _written("jsonl")[:-40],
        _bent(schema="kvmtest.results/2"),
        _bent(duration_s=float("nan")),
        _bent(duration_s=-1),
        _bent(duration_s=True),
        _bent(results=[{}]),
        _bent(results=3),
        _bent(host=None),
        _bent(host={**_HOST._asdict(), "kernel": 3}),
        _bent(host={**_HOST._asdict(), "parameters": {"npt": 1}}),
        _bent(cases=[3]),
        _bent(duration_s=5).replace('"duration_s": 5,', '"duration_s": ' + "9" * 5000 + ","),
        json.dumps({**_RESULTS[0]._asdict(), "verdict": "perfect"}),
        json.dumps({**_RESULTS[0]._asdict(), "observed": 3}),
        json.dumps({**_RESULTS[0]._asdict(), "id": "a\nb"}),
        json.dumps({"schema": MATRIX, "cells": [{"cell": "a"}]}),
    ],
)
def test_anything_else_is_one_line(text: str | bytes, tmp_path: Path) -> None:
    with pytest.raises(SavedError) as error:
        _load(tmp_path, text)
    assert str(error.value).count("\n") == 0 and "file" in str(error.value)


def test_no_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(SavedError, match="No such file"):
        load(str(tmp_path / "nothing"))


_LEAVES = st.none() | st.booleans() | st.floats() | st.integers() | st.text()
_JSON = st.recursive(_LEAVES, lambda s: st.lists(s, max_size=3) | st.dictionaries(st.text(), s, max_size=3), max_leaves=5)
_RECORD = st.dictionaries(st.sampled_from([*Result._fields, "x"]), _JSON)
_DOCUMENT = st.dictionaries(st.sampled_from(["host", "cases", "results", "started", "cells", "schema"]), _JSON)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(_RECORD, _DOCUMENT)
def test_no_json_ends_in_a_traceback(tmp_path: Path, record: dict[str, object], document: dict[str, object]) -> None:
    for text in (json.dumps(record), _bent(results=[{**_RESULTS[0]._asdict(), **record}]), _bent(**document)):
        try:
            _load(tmp_path, text)
        except SavedError as error:
            assert "\n" not in str(error)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, len(_written("json")) - 2))
def test_a_document_that_was_cut_is_never_taken(tmp_path: Path, end: int) -> None:
    with pytest.raises(SavedError):
        _load(tmp_path, _written("json")[:end])


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({"a.json": "", "b.jsonl": ""}, ["a", "b"]),
        ({"/x/h1/r.json": "", "/x/h2/r.json": ""}, ["h1/r", "h2/r"]),
        ({"/x/a.json": "", "a.json": ""}, ["/x/a", "a"]),
        ({"m.json": "6.1/svm", "n.json": "6.1/svm"}, ["m.json 6.1/svm", "n.json 6.1/svm"]),
    ],
)
def test_each_run_has_a_name_of_its_own(files: dict[str, str], told: list[str]) -> None:
    found = [(path, Saved(cell or path, _HOST, "", 0.0, (), ())) for path, cell in files.items()]
    assert names(found) == told
    twice = names([*found, *found])
    assert len(set(twice)) == len(twice)
