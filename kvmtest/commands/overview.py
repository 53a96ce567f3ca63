# SPDX-License-Identifier: GPL-2.0-only
"""The plan in numbers, for ``kvmtest list``: cases by event, trigger and view, by state, by plant and by migration."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from kvmtest.report.show import count

if TYPE_CHECKING:
    from kvmtest.engine.plan import Case

__all__ = ("lines",)

_EVENTS = ("reset", "init", "sipi", "nmi", "shutdown", "none")
_VIEWS = ("host", "guest", "views")
#: Triggers with fewer cases are one row for each event, where there are many rows.
_FEW, _MANY_ROWS = 10, 24
#: So many ids are named.
_NAMED = 24
#: Parameters of a case, their heading, and the selector of those with a value.
_PARAMETERS = (
    ("state", "state of the target", "*/*,{}*"),
    ("plant", "planted before the event", "*/*,plant-{}*"),
    ("migrated", "migrated", "*/*,migrated-{}*"),
)
_GAP = 4


def lines(cases: list[Case], ids: list[str]) -> Iterator[str]:
    """The lines of the overview of ``cases``, which show results with these ``ids``."""
    yield f"{count(len({case.name for case in cases}), 'case')}, {count(len(ids), 'result id')}. The first column is a selector."
    prefixes = {".".join(name.split(".", 3)[:3]) for name in ids}
    yield from _table(("event and trigger", "cases", *_VIEWS), _triggers(cases, prefixes))
    for name, heading, glob in _PARAMETERS:
        values = dict.fromkeys(str(case.params[name]) for case in cases if name in case.params)
        taken = Counter({glob.format(value): len(_taken(cases, glob.format(value))) for value in values})
        yield from _table((heading, "cases"), taken.most_common())
    if len(ids) <= _NAMED:
        yield from ("", "result ids", *(f"  {name}" for name in ids))
    yield ""
    yield "Go on with: kvmtest list --cases SELECTOR, --ids SELECTOR; kvmtest explain CASE; kvmtest run SELECTOR"


def _taken(cases: Iterable[Case], selector: str) -> set[str]:
    """The names of the cases that ``selector`` matches, which begins with ``*/``."""
    return {case.name for case in cases if fnmatchcase(case.words, selector.removeprefix("*/"))}


def _triggers(cases: list[Case], prefixes: set[str]) -> list[tuple[str | int, ...]]:
    """A row for each trigger of each event, of results with one of these prefixes: its cases, and those of each view."""
    from kvmtest.engine import plan

    seen: dict[tuple[str, str], dict[str, set[str]]] = {}
    for case in cases:
        for prefix, _ in plan.looks(case):
            if prefix not in prefixes:
                continue
            event, trigger, view = prefix.split(".")
            views = seen.setdefault((event, trigger), {})
            for key in (view, ""):
                views.setdefault(key, set()).add(case.name)
    rows: list[tuple[str | int, ...]] = []
    for event in _EVENTS:
        of_event = sorted(((t, v) for (e, t), v in seen.items() if e == event), key=lambda one: -len(one[1][""]))
        few = [views for _, views in of_event if len(views[""]) < _FEW] if len(seen) > _MANY_ROWS else []
        kept = of_event[: len(of_event) - len(few)] if len(few) > 1 else of_event
        rows += (_row(f"{event}.{trigger}", [views]) for trigger, views in kept)
        if len(few) > 1:
            rows.append(_row(f"{event}, {len(few)} more triggers" if kept else event, few))
    return rows


def _row(name: str, all_views: Iterable[dict[str, set[str]]]) -> tuple[str | int, ...]:
    total: Counter[str] = Counter()
    for views in all_views:
        total.update({view: len(names) for view, names in views.items()})
    return (name, total[""], *(total[view] or "" for view in _VIEWS))


def _table(heads: tuple[str, ...], rows: Iterable[tuple[str | int, ...]]) -> Iterator[str]:
    """A table with its first column on the left and numbers on the right; nothing where it has no rows."""
    cells = [tuple(map(str, row)) for row in (heads, *rows)]
    if len(cells) == 1:
        return
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    yield ""
    for first, *numbers in cells:
        shown = (text.rjust(width) for text, width in zip(numbers, widths[1:], strict=True))
        yield f"{first:<{widths[0] + _GAP - 2}}  {'  '.join(shown)}".rstrip()
