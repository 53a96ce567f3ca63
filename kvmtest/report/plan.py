# SPDX-License-Identifier: GPL-2.0-only
"""The plan as a map: what the target is doing when the event comes, by trigger and view, with the worst verdict of the cases."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from kvmtest.model.record import EVENTS, VIEWS
from kvmtest.model.verdict import VERDICTS, Verdict, overall

__all__ = ("MARKS", "ORDER", "Cell", "Place", "Table", "Tried", "tables")

#: Verdicts in the order in which one decides a cell of the map.
ORDER: list[Verdict] = []
while len(ORDER) < len(VERDICTS):
    ORDER.append(overall(set(VERDICTS).difference(ORDER)))
#: One character beside the colour.
MARKS = dict(zip(("fail", "error", "fixed", "known", "pass", "info", "skip"), "FEXK\u2022i\u2013", strict=True))

#: The numbers of a group, which is event, trigger and view, and of a state.
Place = tuple[int, int]
#: Numbers of cases by place and verdict, which is its index in `ORDER`.
Tried = Mapping[Place, Counter[int]]


class Cell(NamedTuple):
    """The worst verdict, as its number in `ORDER`, the number of cases, and how many of them have which."""

    verdict: int
    cases: int
    title: str


class Table(NamedTuple):
    """The map of one event.

    A column is the number of a group, its trigger and its view. A row is the number of a state, its name, and for each column
    the cell of all runs together, and that of each run; None where there is no case.
    """

    event: str
    columns: Sequence[tuple[int, str, str]]
    rows: Sequence[tuple[int, str, Sequence[tuple[Cell | None, Sequence[Cell | None]]]]]


def tables(tried: Sequence[Tried], groups: Sequence[tuple[str, str, str]], states: Sequence[str]) -> list[Table]:
    """A table for each event that has cases, of all runs together. Rows and columns stand in the order in which they came."""
    places = {place for run in tried for place in run}
    came = list(dict.fromkeys(trigger for _, trigger, _ in groups))
    found = []
    for event in EVENTS:
        here = [group for group in {group for group, _ in places} if groups[group][0] == event]
        here.sort(key=lambda group: (came.index(groups[group][1]), VIEWS.index(groups[group][2])))
        rows = [
            (state, name, [_cells([run.get((group, state), Counter()) for run in tried]) for group in here])
            for state, name in enumerate(states)
            if any((group, state) in places for group in here)
        ]
        if rows:
            found.append(Table(event, [(group, *groups[group][1:]) for group in here], rows))
    return found


def _cells(counts: Sequence[Counter[int]]) -> tuple[Cell | None, list[Cell | None]]:
    return _cell(sum(counts, Counter())), [_cell(one) for one in counts]


def _cell(counts: Counter[int]) -> Cell | None:
    if not counts:
        return None
    return Cell(min(counts), counts.total(), ", ".join(f"{counts[verdict]} {ORDER[verdict]}" for verdict in sorted(counts)))
