# SPDX-License-Identifier: GPL-2.0-only
"""Coverage as a tracefile of lcov, geninfo(1): for genhtml, and for editors and CI services that read it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TextIO

from kvmtest.coverage.source import Sources
from kvmtest.coverage.table import Table

__all__ = ("write",)


def write(table: Table, sources: Sources, out: TextIO) -> None:
    """Write the lines and functions of ``table``: how often is by how many cases. Files that are not here are left out."""
    by_file: dict[str, dict[int, list[int]]] = {}
    functions: dict[str, dict[str, list[int]]] = {}
    for number in table.loaded:
        block = table.blocks[number]
        functions.setdefault(block.file, {}).setdefault(block.function, []).append(number)
        for file, line in block.lines:
            by_file.setdefault(file, {}).setdefault(line, []).append(number)
    for file in sorted(by_file):
        if path := sources.path(file):
            out.writelines(f"{line}\n" for line in _record(table, path, by_file[file], functions.get(file, {})))


def _record(table: Table, path: str, lines: dict[int, list[int]], functions: dict[str, list[int]]) -> Iterator[str]:
    yield "TN:kvmtest"
    yield f"SF:{path}"
    hit = 0
    firsts = {name: min(table.blocks[number].line for number in numbers) for name, numbers in functions.items()}
    for name, first in sorted(firsts.items(), key=lambda pair: pair[1]):
        yield f"FN:{first},{name}"
    for name, numbers in functions.items():
        count = _count(table, numbers)
        hit += count > 0
        yield f"FNDA:{count},{name}"
    yield f"FNF:{len(functions)}"
    yield f"FNH:{hit}"
    hit = 0
    for line in sorted(lines):
        count = _count(table, lines[line])
        hit += count > 0
        yield f"DA:{line},{count}"
    yield f"LF:{len(lines)}"
    yield f"LH:{hit}"
    yield "end_of_record"


def _count(table: Table, numbers: list[int]) -> int:
    """Count the cases that ran one of these blocks; 1 if only the loading of the modules did."""
    total = sum(cell.mask(numbers).bit_count() for cell in table.cells)
    return total or int(any(number in cell.loading for cell in table.cells for number in numbers))
