# SPDX-License-Identifier: GPL-2.0-only
"""Tables that are written and read back."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from kvmtest import schemas
from kvmtest.coverage import file
from kvmtest.coverage.error import CoverageError
from kvmtest.coverage.table import Table
from tests.coverage.made import FILE, table


def _document() -> dict[str, Any]:
    out = io.StringIO()
    file.write([table()], out)
    found: dict[str, Any] = json.loads(out.getvalue())
    return found


def _plain(table: Table) -> Any:
    cells = [(c.name, c.backend, c.parameters, c.started, c.cases, c.ran, c.loading) for c in table.cells]
    return *table[:3], [block._replace(lines=tuple(sorted(block.lines))) for block in table.blocks], cells


@pytest.mark.parametrize("packed", [False, True])
def test_what_was_written_is_read(tmp_path: Path, packed: bool) -> None:
    data = json.dumps(_document()).encode()
    (tmp_path / "t").write_bytes(gzip.compress(data) if packed else data)
    (read,) = file.load(str(tmp_path / "t"))
    assert _plain(read) == _plain(table())


def test_it_is_as_its_schema_says() -> None:
    jsonschema.validate(_document(), schemas.load("coverage"))
    assert schemas.load("coverage")["title"] == file.SCHEMA
    wrong = _document()
    wrong["kernels"][0]["cells"][0]["ran"][0] = [0]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, schemas.load("coverage"))


def _cell(document: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = document["kernels"][0]["cells"][0]
    return found


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda document: document.update(schema="kvmtest.results/2"), "is kvmtest.results/2, not kvmtest.coverage/1"),
        (lambda document: document.pop("schema"), "KeyError"),
        (lambda document: document["kernels"][0].pop("blocks"), "KeyError"),
        (lambda document: document["kernels"][0]["blocks"][0].pop("file"), "TypeError"),
        (lambda document: _cell(document)["ran"].append([99, [0]]), "99, where all are below 5"),
        (lambda document: _cell(document)["ran"].append([0, [99]]), "99, where all are below 3"),
        (lambda document: _cell(document)["ran"].append([0, [[0, 1 << 60]]]), "where all are below 3"),
        (lambda document: _cell(document).update(loading=["x"]), "ValueError"),
        (lambda document: _cell(document).update(name="\ud800"), "UnicodeEncodeError"),
        (lambda document: _cell(document).update(cases=["a\ud800"]), "UnicodeEncodeError"),
        (lambda document: document["kernels"][0]["blocks"][0].update(line="x"), "ValueError"),
        (lambda document: document["kernels"][0]["blocks"][0].update(lines={FILE: [[1, 1 << 40]]}), "ValueError"),
        (lambda document: document.update(kernels=7), "TypeError"),
        (lambda document: document.update(kernels=[]), "has no kernel"),
    ],
)
def test_what_is_none_is_refused_in_one_line(change: Any, says: str, tmp_path: Path) -> None:
    document = _document()
    change(document)
    path = tmp_path / "t"
    path.write_text(json.dumps(document))
    with pytest.raises(CoverageError, match=says) as refused:
        file.load(str(path))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("data", [b"", b"no JSON", b"[]", b"\x1f\x8bbroken", b"[" * 100_000])
def test_other_files_are_refused(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "t").write_bytes(data)
    with pytest.raises(CoverageError, match="is not a kvmtest.coverage/1|t: Unknown compression method"):
        file.load(str(tmp_path / "t"))
