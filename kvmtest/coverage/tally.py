# SPDX-License-Identifier: GPL-2.0-only
"""Numbers of blocks, in total and run, by cell and in all."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from kvmtest.coverage.source import OURS
from kvmtest.coverage.table import Table

__all__ = ("REST", "Counts", "Tally")

#: The name for all headers outside of KVM's folders.
REST = "headers of other parts"


class Counts(NamedTuple):
    """Numbers of blocks: ``all``, those that each cell ran (None if it did not load them), and those run in ``any`` cell."""

    all: int
    cells: tuple[int | None, ...]
    any: int


class Tally:
    """Counts of a ``table``."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self.loaded = table.loaded
        blocks = table.blocks
        self._modules = [{blocks[n].module for n in (*cell.ran, *cell.loading)} for cell in table.cells]
        self._ran = [cell.ran.keys() | cell.loading for cell in table.cells]
        self._any = set[int]().union(*self._ran)

    def of(self, numbers: Iterable[int]) -> Counts:
        """The counts of the blocks of these numbers."""
        asked = set(numbers)
        modules = {self._table.blocks[number].module for number in asked}
        cells = tuple(
            len(asked & ran) if modules & loaded else None for ran, loaded in zip(self._ran, self._modules, strict=True)
        )
        return Counts(len(asked), cells, len(asked & self._any))

    def _by(self, names: Sequence[str]) -> dict[str, Counts]:
        """The counts by ``names``, one of each loaded block; those with most blocks first."""
        groups: dict[str, list[int]] = {}
        for name, number in zip(names, self.loaded, strict=True):
            groups.setdefault(name, []).append(number)
        return {name: self.of(numbers) for name, numbers in sorted(groups.items(), key=lambda pair: -len(pair[1]))}

    def modules(self) -> dict[str, Counts]:
        """By module."""
        return self._by([self._table.blocks[number].module for number in self.loaded])

    def files(self) -> dict[str, Counts]:
        """By file of KVM's own; all others together."""
        files = [self._table.blocks[number].file for number in self.loaded]
        found = self._by([file if file.startswith(OURS) else REST for file in files])
        rest = {REST: found.pop(REST)} if REST in found else {}
        return dict(sorted(found.items())) | rest

    def functions(self) -> dict[tuple[str, str], Counts]:
        """By file and function of KVM's own."""
        groups: dict[tuple[str, str], list[int]] = {}
        for number in self.loaded:
            block = self._table.blocks[number]
            if block.file.startswith(OURS):
                groups.setdefault((block.file, block.function), []).append(number)
        return {name: self.of(numbers) for name, numbers in sorted(groups.items())}

    def missed(self, numbers: Iterable[int]) -> list[int]:
        """Those of these numbers that nothing ran, by file and line."""
        blocks = self._table.blocks
        return sorted(set(numbers) - self._any, key=lambda n: (blocks[n].file, blocks[n].line, blocks[n].key))
