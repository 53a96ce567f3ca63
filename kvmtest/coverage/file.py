# SPDX-License-Identifier: GPL-2.0-only
"""Tables as JSON, ``kvmtest.coverage/1``: the form in which they are kept, and ``--report json=FILE`` writes them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TextIO

from kvmtest import __version__
from kvmtest.coverage.blocks import Block
from kvmtest.coverage.error import CoverageError
from kvmtest.coverage.table import Cell, Table, bits
from kvmtest.results import saved
from kvmtest.results.lines import spans

__all__ = ("SCHEMA", "load", "write")

SCHEMA = "kvmtest.coverage/1"
#: More lines than a file of KVM's has.
_LINES = 1 << 20


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
    """The tables in the file ``path``, gzipped or not. Raises CoverageError."""
    try:
        document = json.loads(saved.read(path))
        if document["schema"] != SCHEMA:
            raise CoverageError(f"{path} is {document['schema']}, not {SCHEMA}")
        tables = [_table(one) for one in document["kernels"]]
        if not tables:
            raise CoverageError(f"{path} has no kernel")
        return tables
    except CoverageError:
        raise
    except saved.SavedError as error:
        raise CoverageError(str(error)) from None
    except (AttributeError, IndexError, KeyError, OverflowError, RecursionError, TypeError, ValueError) as error:
        raise CoverageError(f"{path} is not a {SCHEMA}: {type(error).__name__}: {error}") from error


def _text(value: object) -> str:
    """A string that can be written to any report. Raises ValueError."""
    text = str(value)
    text.encode()
    return text


def _table(plain: dict[str, Any]) -> Table:
    blocks = [_to_block(**one) for one in plain["blocks"]]
    cells = [_to_cell(one, len(blocks)) for one in plain["cells"]]
    return Table(_text(plain["kernel"]), _text(plain["source"]), _text(plain["build"]), blocks, cells)


def _to_block(
    module: str, section: str, offset: int, function: str, file: str, line: int, lines: dict[str, Any], inside: str | None = None
) -> Block:
    every = tuple((_text(name), number) for name, numbers in lines.items() for number in _numbers(numbers, _LINES))
    place = _text(function), _text(function if inside is None else inside), _text(file), int(line)
    return Block(_text(module), _text(section), int(offset), *place, every)


def _to_cell(plain: dict[str, Any], blocks: int) -> Cell:
    parameters = {_text(name): _text(value) for name, value in plain["parameters"].items()}
    cell = Cell(_text(plain["name"]), _text(plain["backend"]), parameters, _text(plain["started"]))
    for case in plain["cases"]:
        cell.add(_text(case), ())
    cell.loading = set(_numbers(plain["loading"], blocks))
    cell.ran = {
        block: sum(1 << case for case in set(_numbers(cases, len(cell.cases))))
        for span, cases in plain["ran"]
        for block in _numbers([span], blocks)
    }
    return cell


def _numbers(packed: Iterable[Any], below: int) -> Iterator[int]:
    """Yield the numbers that `spans` packed. Raises ValueError for those that are not ``below`` that number."""
    for span in packed:
        first, last = span if isinstance(span, list) else (span, span)
        if not (isinstance(first, int) and isinstance(last, int) and 0 <= first <= last < below):
            raise ValueError(f"{span}, where all are below {below}")
        yield from range(first, last + 1)
