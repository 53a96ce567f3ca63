# SPDX-License-Identifier: GPL-2.0-only
"""A place in KVM's source as people name it: ``lapic.c:3149``, ``lapic.c:3123-3171``, ``svm/nested.c``, ``kvm_vcpu_reset``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import NamedTuple

from kvmtest.coverage.blocks import Block
from kvmtest.coverage.error import CoverageError
from kvmtest.coverage.table import Table

__all__ = ("Place", "parse")

_FILE = re.compile(r"([\w./-]+\.[chS])(?::(\d+)(?:-(\d+))?)?")
_FUNCTION = re.compile(r"[\w*?\[\]]+")


class Place(NamedTuple):
    """A ``file``, or the end of its path, with lines from ``first`` to ``last`` (0: all), or a pattern of a ``function``."""

    file: str
    first: int
    last: int
    function: str

    def holds(self, block: Block) -> bool:
        """Return True if ``block`` belongs to this place."""
        if self.function:
            return fnmatchcase(block.function, self.function)
        if not self.first:
            return self._is(block.file)
        return any(self.first <= line <= self.last and self._is(file) for file, line in block.lines)

    def _is(self, path: str) -> bool:
        return path == self.file or path.endswith(f"/{self.file}")

    def blocks(self, table: Table) -> list[int]:
        """The numbers of its blocks. Raises CoverageError where there are none."""
        found = [number for number, block in enumerate(table.blocks) if self.holds(block)]
        if not found:
            raise CoverageError(self._missing(table))
        return found

    def _missing(self, table: Table) -> str:
        if self.function:
            return f"KVM of {table.kernel} has no code of a function {self.function}"
        lines = sorted({line for block in table.blocks for file, line in block.lines if self._is(file)})
        if not lines:
            return f"KVM of {table.kernel} has no code of a file {self.file}"
        near = list(_near(lines, self.first))
        return f"{self.file}:{self.first} of {table.kernel} has no code; the nearest lines with some: {', '.join(map(str, near))}"


def _near(lines: list[int], wanted: int) -> Iterator[int]:
    """The last one before ``wanted``, and the first one after it."""
    yield from [line for line in lines if line < wanted][-1:]
    yield from [line for line in lines if line > wanted][:1]


def parse(text: str) -> Place:
    """The place that ``text`` names. Raises CoverageError."""
    if found := _FILE.fullmatch(text):
        first = int(found[2] or 0)
        last = int(found[3] or first)
        if found[2] and not 0 < first <= last:
            raise CoverageError(f"{text!r} has no lines")
        return Place(found[1].removeprefix("./"), first, last, "")
    if _FUNCTION.fullmatch(text):
        return Place("", 0, 0, text)
    raise CoverageError(f"{text!r} is neither FILE.c[:LINE[-LINE]] nor a function")
