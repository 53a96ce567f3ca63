# SPDX-License-Identifier: GPL-2.0-only
"""Tables as JSON, ``kvmtest.coverage/1``: the form in which they are kept, and ``--report json=FILE`` writes them."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TextIO

from kvmtest import __version__
from kvmtest.coverage.blocks import Block
from kvmtest.coverage.error import CoverageError
from kvmtest.coverage.table import Cell, Table, bits
from kvmtest.results.lines import spans

__all__ = ("SCHEMA", "load", "write")

SCHEMA = "kvmtest.coverage/1"


def write(tables: Sequence[Table], out: TextIO) -> None:
    """Write ``tables`` as one document."""
    tool = {"name": "kvmtest", "version": __version__}
    json.dump({"schema": SCHEMA, "tool": tool, "kernels": [_plain(table) for table in tables]}, out, separators=(",", ":"))
    out.write("\n")


def _plain(table: Table) -> dict[str, Any]:
    return {
        "kernel": table.kernel,
        "source": table.source,
        "build": table.build,
        "blocks": [_block(block) for block in table.blocks],
        "cells": [_cell(cell) for cell in table.cells],
    }


def _block(block: Block) -> dict[str, Any]:
    lines: dict[str, list[int]] = {}
    for file, line in block.lines:
        lines.setdefault(file, []).append(line)
    fields = block._asdict() | {"lines": {file: spans(numbers) for file, numbers in lines.items()}}
    if block.inside == block.function:
        del fields["inside"]
    return fields


def _cell(cell: Cell) -> dict[str, Any]:
    return {
        "name": cell.name,
        "backend": cell.backend,
        "parameters": cell.parameters,
        "started": cell.started,
        "cases": cell.cases,
        "loading": spans(sorted(cell.loading)),
        "ran": [[block, spans(bits(cell.ran[block]))] for block in sorted(cell.ran)],
    }


def load(path: str) -> list[Table]:
    """The tables in the file ``path``, gzipped or not. Raises CoverageError, OSError."""
    with open(path, "rb") as file:
        data = file.read()
    try:
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
        document = json.loads(data)
        if document["schema"] != SCHEMA:
            raise CoverageError(f"{path} is {document['schema']}, not {SCHEMA}")
        return [_table(one) for one in document["kernels"]]
    except CoverageError:
        raise
    except (AttributeError, EOFError, IndexError, KeyError, OSError, TypeError, ValueError) as error:
        raise CoverageError(f"{path} is not a {SCHEMA}: {type(error).__name__}: {error}") from error


def _table(plain: dict[str, Any]) -> Table:
    blocks = [_to_block(one) for one in plain["blocks"]]
    cells = [_to_cell(one, len(blocks)) for one in plain["cells"]]
    return Table(str(plain["kernel"]), str(plain["source"]), str(plain["build"]), blocks, cells)


def _to_block(plain: dict[str, Any]) -> Block:
    lines = tuple((str(file), number) for file, numbers in plain["lines"].items() for number in _numbers(numbers))
    fields = {"inside": plain["function"]} | plain | {"lines": lines}
    return Block(**fields)


def _to_cell(plain: dict[str, Any], blocks: int) -> Cell:
    cell = Cell(str(plain["name"]), str(plain["backend"]), plain["parameters"], str(plain["started"]))
    for case in plain["cases"]:
        cell.add(str(case), ())
    cell.loading = set(_numbers(plain["loading"]))
    cell.ran = {int(block): sum(1 << number for number in _numbers(numbers)) for block, numbers in plain["ran"]}
    if not all(0 <= block < blocks for block in (*cell.ran, *cell.loading)):
        raise ValueError("a block that is not defined")
    if any(mask >> len(cell.cases) for mask in cell.ran.values()):
        raise ValueError("a case that is not defined")
    return cell


def _numbers(packed: Iterable[Any]) -> Iterator[int]:
    """Yield the numbers that `spans` packed."""
    for span in packed:
        if isinstance(span, list):
            first, last = span
            yield from range(first, last + 1)
        else:
            yield span
