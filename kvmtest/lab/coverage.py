# SPDX-License-Identifier: GPL-2.0-only
"""Cells that record what each case executes of KVM, and their tables, which are kept."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from kvmtest.coverage.table import Cell, Recording, Table, merged
from kvmtest.lab import cache
from kvmtest.lab.instrument import Instrumented
from kvmtest.lab.modules import VENDOR
from kvmtest.lab.steps import Begin, Executed, Spec, Step, Times

__all__ = ("Measured", "cell_name", "for_backends", "keep")


def cell_name(kernel: str, backend: str, parameters: dict[str, str]) -> str:
    """Short, for a column: ``6.1/svm``, ``6.1/svm vgif=0``."""
    return " ".join((f"{kernel}/{backend}", *(parameters[module] for module in sorted(parameters))))


class Measured:
    """Collect the records of the cell of ``spec``, which has the modules of ``build``."""

    def __init__(self, spec: Spec, build: Instrumented, table: Table, started: str) -> None:
        self.spec = spec
        self.build = build
        self._table = table
        name = cell_name(spec.kernel.name, "/".join(filter(None, (spec.backend, spec.cpu.name))), spec.parameters)
        self._recording = Recording(table.blocks, Cell(name, spec.backend, spec.parameters, started))
        self._left = -1
        self._kept = False

    @property
    def left(self) -> int:
        """The number of cases that have not reported coverage yet."""
        return max(0, self._left)

    def take(self, step: Step) -> None:
        """Note what a case executed."""
        if isinstance(step, Begin):
            self._left = step.cases
        elif isinstance(step, Executed):
            self._recording.take(step.case.name if step.case else "", step.sections, step.words)
            self._left -= bool(step.case)
        elif isinstance(step, Times):
            self.keep()

    @property
    def whole(self) -> bool:
        """True if the cell ran the whole plan to its end."""
        return not (self.spec.selectors or self.spec.cases or self._left)

    def keep(self) -> None:
        """Keep it. A whole run replaces a cell of the same name, another one adds to it."""
        if self._kept or not self.cell.cases:
            return
        self._kept = True
        with cache.locked("coverage"):
            known = self.build.table()
            if self.whole:
                known = known._replace(cells=[cell for cell in known.cells if cell.name != self.cell.name])
            self.build.keep(merged([known, self.table])[0])

    @property
    def cell(self) -> Cell:
        """The coverage recorded so far."""
        return self._recording.cell

    @property
    def table(self) -> Table:
        """The same as a table of its own."""
        return self._table._replace(cells=[self.cell])


def for_backends(also: Iterable[dict[str, str]], backends: Sequence[str]) -> list[tuple[str, dict[str, str]]]:
    """Backend and parameters of the cells for more sets of module parameters: those of a vendor's module are for its backend."""
    found = []
    for parameters in also:
        others = {vendor for vendor in VENDOR.values() if vendor in parameters}
        for backend in backends:
            if not others or VENDOR[backend] in others:
                found.append((backend, {m: v for m, v in parameters.items() if m not in others or m == VENDOR[backend]}))
    return found


def keep(measured: Iterable[Measured]) -> list[Table]:
    """Keep what was ``measured``, also by cells that were stopped, and return the tables of that alone, one per build."""
    reporting = [one for one in measured if one.cell.cases]
    for one in reporting:
        one.keep()
    return merged(one.table for one in reporting)

