# SPDX-License-Identifier: GPL-2.0-only
"""The basic blocks of KVM that random scenarios run in a cell, beside those that the cases ran in earlier cells."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING

from kvmtest.commands.common import UNTESTABLE, USAGE, Failed, say

if TYPE_CHECKING:
    from kvmtest.lab.steps import Executed

__all__ = ("Blocks",)

_NAME = "fuzz"
#: More functions than these are not named.
_SHOWN = 30


class Blocks:
    """The blocks that were run in a cell of ``args``, which gets instrumented modules. Raises Failed."""

    def __init__(self, args: argparse.Namespace) -> None:
        from kvmtest.coverage.error import CoverageError
        from kvmtest.coverage.table import Cell, Recording
        from kvmtest.lab import instrument, kernels
        from kvmtest.lab.error import LabError, NotFound

        if args.kvm_modules:
            raise Failed("--coverage has instrumented modules of its own: leave out --kvm-modules", USAGE)
        try:
            kernel = kernels.find(args.kernel, args.modules, say)
            build = instrument.instrumented(kernel, "", say)
            self._table = build.table()
        except NotFound as error:
            raise Failed(str(error), USAGE) from None
        except (CoverageError, LabError) as error:
            raise Failed(str(error), UNTESTABLE) from None
        args.kvm_modules = build.modules
        self._recording = Recording(self._table.blocks, Cell(_NAME, args.backend or ""))
        self._begun = False

    @property
    def count(self) -> int:
        """The number of blocks so far."""
        return len(self._recording.cell.ran)

    def take(self, step: Executed) -> None:
        """Add what was executed; the first record is the loading of the modules."""
        self._recording.take(_NAME if self._begun else "", step.sections, step.words)
        self._begun = True

    def lines(self) -> Iterator[str]:
        """The blocks that no case of the kept coverage runs, by function."""
        yield f"{self.count} basic blocks of KVM were run"
        if not self._table.cells:
            yield "no coverage by the cases is kept to compare them with: kvmtest lab coverage measures it"
            return
        found: dict[tuple[str, str], list[int]] = {}
        for number in self._recording.cell.ran:
            if not self._table.ran(number):
                block = self._table.blocks[number]
                found.setdefault((block.file, block.function), []).append(block.line)
        cells = ", ".join(cell.name for cell in self._table.cells)
        yield f"{sum(map(len, found.values()))} of them by no case in {cells}"
        rows = sorted(found.items(), key=lambda row: (-len(row[1]), row[0]))
        for (file, function), lines in rows[:_SHOWN]:
            yield f"  {len(lines):4} {file} {function}(): lines {', '.join(map(str, sorted(set(lines))[:8]))}"
        if len(rows) > _SHOWN:
            yield f"  and {len(rows) - _SHOWN} more functions"
