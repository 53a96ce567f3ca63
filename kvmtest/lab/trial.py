# SPDX-License-Identifier: GPL-2.0-only
"""KVM's modules before and after a change, each in cells of the same kernel."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from kvmtest.coverage import patch
from kvmtest.coverage.source import Sources
from kvmtest.coverage.table import Table, merged
from kvmtest.lab import build, coverage, instrument
from kvmtest.lab.build import Unbuildable
from kvmtest.lab.instrument import Instrumented
from kvmtest.lab.kernels import Kernel
from kvmtest.lab.matrix import Outcome
from kvmtest.lab.steps import Spec, Step
from kvmtest.lab.tree import Change

__all__ = ("Broken", "Builds", "Pair", "Ran", "Trial", "builds", "lines", "pairs")


class Broken(Unbuildable):
    """A side of the change does not build: ``side`` is its name."""

    def __init__(self, side: str, error: Unbuildable) -> None:
        super().__init__(error.release, error.errors)
        self.side = side


class Builds(NamedTuple):
    """The folders with the modules of both sides; those after the change may be ``instrumented``."""

    before: str
    after: str
    instrumented: Instrumented | None


class Pair(NamedTuple):
    """The cells of one backend. ``measured`` is the coverage of the second one, if recorded."""

    before: Outcome
    after: Outcome
    measured: coverage.Measured | None


#: File and line.
Place = tuple[str, int]


class Ran(NamedTuple):
    """The lines that a change is about, each with its text: those that ``cases`` ran, those that none did, and those
    ``elsewhere``, in a module that the cells do not load. Lines without code are none of them.
    """

    run: dict[Place, str]
    missed: dict[Place, str]
    elsewhere: dict[Place, str]
    cases: tuple[str, ...]


class Trial(NamedTuple):
    """A change, the builds of both its sides for ``kernel``, and the cells that run them."""

    change: Change
    kernel: Kernel
    builds: Builds
    pairs: list[Pair]

    def ran(self) -> Ran | None:
        """Return which of the changed lines ran in the cells; None if the cells recorded no coverage."""
        # Not kept: what kvmtest lab coverage keeps is of the kernel's own KVM.
        tables = merged(pair.measured.table for pair in self.pairs if pair.measured and pair.measured.cell.cases)
        if not (self.builds.instrumented and tables):
            return None
        return lines(tables[0], Sources([self.builds.instrumented.tree]), self.change.diff.values())


def lines(table: Table, sources: Sources, diffs: Iterable[Sequence[str]]) -> Ran:
    """Return which of the lines in ``diffs`` ran, according to ``table``."""
    at: dict[Place, list[int]] = {}
    for number, block in enumerate(table.blocks):
        for place in block.lines:
            at.setdefault(place, []).append(number)
    loaded = set(table.loaded)
    found = Ran({}, {}, {}, ())
    cases: dict[str, None] = {}
    fit, _ = patch.patched(patch.hunks("\n".join(line for diff in diffs for line in diff)), sources)
    for place in ((one.file, line) for one in fit for line in one.lines):
        if blocks := at.get(place):
            who = table.who(blocks)
            cases.update(dict.fromkeys(one.case for one in who if one.case))
            kind = found.run if who else found.missed if loaded.intersection(blocks) else found.elsewhere
            kind[place] = sources.line(*place)
    return found._replace(cases=tuple(cases))


def builds(
    change: Change,
    kernel: Kernel,
    instrumented: bool,
    say: Callable[[str], None] = lambda line: None,
    tick: Callable[[str], None] = lambda line: None,
) -> Builds:
    """Build both sides for ``kernel``; with ``instrumented`` the side after the change records its coverage.

    ``say`` is called with what begins, ``tick`` with the progress. Raises Broken, LabError.
    """
    done: list[str] = []
    for side, tree in ((change.old, change.before), (change.new, change.after)):
        note, ticked = (_of(side, line) for line in (say, tick))
        try:
            # Built alike, the second build is of the files that differ.
            made = instrument.modules if instrumented else build.build
            done.append(made(kernel, tree, say=note, tick=ticked))
        except Unbuildable as error:
            raise Broken(side, error) from None
    before, after = done
    if not instrumented:
        return Builds(before, after, None)
    ready = instrument.instrumented(kernel, change.after, _of(change.new, say))
    return Builds(before, ready.modules, ready)


def _of(side: str, line: Callable[[str], None]) -> Callable[[str], None]:
    return lambda text: line(f"{side}: {text}")


def pairs(change: Change, built: Builds, specs: Iterable[Spec], started: str, note: Callable[[str, Step], None]) -> list[Pair]:
    """The cells of both sides for each of ``specs``; ``note`` is called with each step of a cell, and the cell's name."""
    table = built.instrumented.table() if built.instrumented else None
    found = []
    for spec in specs:
        after = spec._replace(own_modules=built.after, coverage=table is not None)
        measured = None
        if built.instrumented and table:
            measured = coverage.Measured(after, built.instrumented, table, started)
        sides = ((spec._replace(own_modules=built.before), change.old, None), (after, change.new, measured))
        one, other = (_outcome(one, side, started, note, takes) for one, side, takes in sides)
        found.append(Pair(one, other, measured))
    return found


def _outcome(
    spec: Spec, side: str, started: str, note: Callable[[str, Step], None], measured: coverage.Measured | None
) -> Outcome:
    name = f"{spec.name} {side}"

    def each(step: Step) -> None:
        if measured:
            measured.take(step)
        note(name, step)

    return Outcome(spec, name, started, each)
