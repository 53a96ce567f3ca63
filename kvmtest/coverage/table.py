# SPDX-License-Identifier: GPL-2.0-only
"""Coverage of one build of KVM's modules: which cases ran which blocks, in one cell or in several."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from kvmtest.coverage.blocks import Block

__all__ = ("Cell", "Ran", "Recording", "Table", "bits", "merged")


def bits(mask: int) -> Iterator[int]:
    """The numbers of the bits that are set."""
    while mask:
        low = mask & -mask
        mask ^= low
        yield low.bit_length() - 1


class Ran(NamedTuple):
    """A cell and a case that ran a block; "" as the case is the loading of the modules."""

    cell: str
    case: str


class Cell:
    """Coverage of the cell ``name``: ``ran`` has, by number of a block, a mask of the numbers of the cases that ran it.

    Two views of one case count as one. ``loading`` has the blocks that ran when the modules were loaded, before the first case.
    """

    def __init__(self, name: str, backend: str, parameters: Mapping[str, str] | None = None, started: str = "") -> None:
        self.name = name
        self.backend = backend
        self.parameters = dict(parameters or {})
        self.started = started
        self.cases: list[str] = []
        self.ran: dict[int, int] = {}
        self.loading: set[int] = set()
        self._numbers: dict[str, int] = {}

    def add(self, case: str, blocks: Iterable[int]) -> None:
        """Note that ``case`` ran ``blocks``; "" is the loading of the modules."""
        if not case:
            self.loading.update(blocks)
            return
        if case not in self._numbers:
            self._numbers[case] = len(self.cases)
            self.cases.append(case)
        bit = 1 << self._numbers[case]
        ran = self.ran
        for block in blocks:
            ran[block] = ran.get(block, 0) | bit

    def who(self, block: int) -> Iterator[str]:
        """The cases that ran ``block``, in their order."""
        yield from (self.cases[number] for number in bits(self.ran.get(block, 0)))

    def mask(self, blocks: Iterable[int]) -> int:
        """Return the mask of the cases that ran one of ``blocks``, as in `ran`."""
        found = 0
        for block in blocks:
            found |= self.ran.get(block, 0)
        return found

    def has(self, block: int) -> bool:
        """Return True if anything ran ``block``."""
        return block in self.ran or block in self.loading

    def update(self, new: Cell) -> None:
        """Take what ``new`` has of the same cell: its cases in place of those of the same names."""
        again = {name: number for name, number in self._numbers.items() if name in new._numbers}
        mask = sum(1 << number for number in again.values())
        self.ran = {block: left for block, bits in self.ran.items() if (left := bits & ~mask)}
        for block in new.ran:
            for case in new.who(block):
                self.add(case, (block,))
        for case in new.cases:
            self.add(case, ())
        self.loading = new.loading or self.loading
        self.started = new.started


class Table(NamedTuple):
    """The ``blocks`` of one ``build`` of the modules of ``kernel``, made of ``source``, and what ran in ``cells``."""

    kernel: str
    source: str
    build: str
    blocks: Sequence[Block]
    cells: Sequence[Cell]

    @property
    def loaded(self) -> list[int]:
        """The numbers of the blocks that could run: those of modules that a cell had."""
        modules = {self.blocks[block].module for cell in self.cells for block in (*cell.ran, *cell.loading)}
        return [number for number, block in enumerate(self.blocks) if block.module in modules]

    def ran(self, block: int) -> bool:
        """Return True if any cell ran the block of this number."""
        return any(cell.has(block) for cell in self.cells)

    def who(self, blocks: Iterable[int]) -> list[Ran]:
        """List the cases that ran one of these blocks, in the order of cells and cases; loading only if no case did."""
        numbers = list(blocks)
        found = []
        for cell in self.cells:
            found += [Ran(cell.name, cell.cases[number]) for number in bits(cell.mask(numbers))]
        if not found:
            found = [Ran(cell.name, "") for cell in self.cells if any(block in cell.loading for block in numbers)]
        return found


class Recording:
    """Add a recorder's records to ``cell``: addresses become numbers of ``blocks``."""

    def __init__(self, blocks: Sequence[Block], cell: Cell) -> None:
        self.cell = cell
        self._blocks = blocks
        self._sections: Mapping[tuple[str, str], int] = {}
        self._at: dict[int, int] = {}
        self._known: dict[tuple[int, int], tuple[int, ...]] = {}

    def take(self, case: str, sections: Mapping[tuple[str, str], int], words: Mapping[int, int]) -> None:
        """Note what ``case`` ran, from `kvmtest.lab.steps.Executed`."""
        if sections != self._sections:
            self._sections = sections
            self._known.clear()
            self._at = {
                sections[block.module, block.section] + block.offset: number
                for number, block in enumerate(self._blocks)
                if (block.module, block.section) in sections
            }
        found: list[int] = []
        for word in words.items():
            if word not in self._known:
                at, marks = word
                numbers = (self._at.get(at + bit) for bit in bits(marks))
                self._known[word] = tuple(number for number in numbers if number is not None)
            found += self._known[word]
        self.cell.add(case, found)


def merged(tables: Iterable[Table]) -> list[Table]:
    """``tables`` with those of one build as one. Of a cell that is in two of them it has the cases of both; of a case that is in
    both, what the later one says.
    """
    found: dict[str, Table] = {}
    for table in tables:
        known = found.setdefault(table.build, table._replace(cells=[]))
        cells = {cell.name: cell for cell in known.cells}
        for cell in table.cells:
            if cell.name in cells:
                cells[cell.name].update(cell)
            else:
                cells[cell.name] = cell
        found[table.build] = known._replace(cells=list(cells.values()))
    return list(found.values())
