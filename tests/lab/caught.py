# SPDX-License-Identifier: GPL-2.0-only
"""Break KVM by one line after the other, run the cases that must show it in the lab, and keep what showed it: make mutants.

python -m tests.lab.caught [NAME...] runs the breaks whose names match one of the globs, and replaces their rows of FILE.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from textwrap import shorten
from typing import NamedTuple

import pytest

from kvmtest.model.record import Result
from kvmtest.model.select import takes
from kvmtest.model.verdict import Verdict
from tests.lab.builds import modules_with, results
from tests.lab.intel import INTEL
from tests.lab.mutants import MUTANTS, Mutant
from tests.lab.restored import RESTORED

__all__ = ("BREAKS", "FILE", "GROUPS", "Row", "catching", "failures", "kept", "number")

#: Each is built into modules of its own, of which a parameter chooses one break.
GROUPS: Mapping[str, tuple[Mutant, ...]] = {"mutants": MUTANTS, "restored": RESTORED, "intel": INTEL}
BREAKS = tuple(mutant for group in GROUPS.values() for mutant in group)
FILE = Path(__file__).parents[2] / "docs" / "mutants.tsv"
#: Characters that are kept of a selector, and of what was observed.
_LONGEST = 160
_FUNCTION = re.compile(r"^(?!#|/|\s).*?\b(\w+)\(")


class Row(NamedTuple):
    """The results that showed one break: ``caught`` of those that failed, first ``selector`` with ``observed``."""

    name: str
    backend: str
    file: str
    function: str
    line: str
    statement: str
    caught: int
    failed: int
    selector: str
    observed: str


def kept() -> dict[str, Row]:
    """The rows of FILE by the name of the break."""
    rows = [line.split("\t") for line in FILE.read_text().splitlines()[1:]] if FILE.exists() else []
    return {row[0]: Row(*row[:6], int(row[6]), int(row[7]), *row[8:]) for row in rows}


def keep(rows: Mapping[str, Row]) -> None:
    """Write the rows of the breaks that there are to FILE, in their order."""
    ordered = [rows[mutant.name] for mutant in BREAKS if mutant.name in rows]
    lines = ["\t".join(Row._fields), *("\t".join(map(str, row)) for row in ordered)]
    FILE.write_text("".join(line + "\n" for line in lines))


def number(mutant: Mutant) -> tuple[str, int]:
    """The group of a break, and the value of kvm.mutant that chooses it there."""
    return next((name, group.index(mutant) + 1) for name, group in GROUPS.items() if mutant in group)


def failures(modules: Path, number: int, selectors: Iterable[str], backend: str) -> list[Result]:
    """Return what fails in a cell with this break; 0 is none."""
    seen = results(modules, number, selectors, backend)
    return [result for result in seen if result.verdict in (Verdict.FAIL, Verdict.ERROR)]


def catching(mutant: Mutant, failed: Iterable[Result], whole: Iterable[Result]) -> list[Result]:
    """Return the results of ``failed`` that show the break as it must show, and do not fail on the ``whole`` KVM as well."""
    anyway = {(result.id, result.case) for result in whole}
    of_it = [result for result in failed if takes([mutant.selector], result.id, result.case)]
    matching = [result for result in of_it if fnmatchcase(result.observed or result.reason, mutant.shown)]
    return [result for result in matching if (result.id, result.case) not in anyway]


def function(source: Path, line: str) -> str:
    """The function of ``source`` that has ``line``."""
    above = source.read_text().splitlines()
    named = (_FUNCTION.match(one) for one in reversed(above[: above.index(line)]) if not one.endswith(";"))
    return next(found[1] for found in named if found)


def _row(mutant: Mutant, modules: Path, whole: Sequence[Result]) -> Row:
    failed = failures(modules, number(mutant)[1], [mutant.selector], mutant.backend)
    caught = catching(mutant, failed, whole)
    shown = (caught[0].selector, caught[0].observed or caught[0].reason) if caught else ("", "")
    where = function(modules / "tree/arch/x86/kvm" / mutant.file, mutant.line)
    of = (mutant.name, mutant.backend, mutant.file, where, mutant.line.strip(), mutant.statement)
    return Row(*of, len(caught), len(failed), *(shorten(text, _LONGEST, placeholder=" ...") for text in shown))


def main(names: Sequence[str]) -> int:
    """Run the breaks whose names match; 1 if one of them shows nowhere."""
    rows, missed = kept(), False
    for group, mutants in GROUPS.items():
        for backend in dict.fromkeys(mutant.backend for mutant in mutants):
            chosen = [m for m in mutants if m.backend == backend and any(fnmatchcase(m.name, name) for name in names)]
            if not chosen:
                continue
            modules = modules_with(mutants)
            whole = failures(modules, 0, sorted({mutant.selector for mutant in chosen}), backend)
            print(f"{group}, {backend}: {len(chosen)} breaks; {len(whole)} failures without any", flush=True)
            for mutant in chosen:
                row = rows[mutant.name] = _row(mutant, modules, whole)
                shown = f"{row.selector}: {row.observed:.100}" if row.caught else "not caught"
                print(f"{row.name:<32} {row.caught:4}/{row.failed:<4} {shown}", flush=True)
                missed = missed or not row.caught
                keep(rows)
    return int(missed)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:] or ["*"]))
    except pytest.skip.Exception as error:
        sys.exit(f"mutants: {error}")
