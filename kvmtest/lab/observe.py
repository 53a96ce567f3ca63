# SPDX-License-Identifier: GPL-2.0-only
"""Cases are judged outside: what an emulated CPU takes seconds for, the real one does in milliseconds.

Judging is pure (`kvmtest.engine.verdicts`): it needs what was observed, and what the planter knows. `Observer` stands inside in
the place of the Verdicts and sends these; `Judge` makes the same Verdicts of them outside. Nothing is sent twice: sections go
in pieces, of which few differ from one case to the next.
"""

from __future__ import annotations

from typing import Any

from kvmtest.engine.guest import Report
from kvmtest.engine.judge import Context
from kvmtest.engine.plan import Case, plan
from kvmtest.engine.result import Host, Result
from kvmtest.engine.verdicts import Observation, Verdicts
from kvmtest.lab.stream import Encoder
from kvmtest.spec import ENTRIES
from kvmtest.state.layout import Field, Layout
from kvmtest.state.plant import Plant
from kvmtest.state.snapshot import Snapshot

__all__ = ("Judge", "Observer")

_PIECE = 256


class Observer:
    """Sends observations by ``out``."""

    def __init__(self, out: Encoder) -> None:
        self._out = out
        self._pieces: dict[bytes, int] = {}
        # By identity, and kept, so that no other object can have the same one.
        self._values: dict[int, tuple[object, int]] = {}
        self._why: dict[str, str] = {}

    def judging(self, case: Case, ctx: Context, layout: Layout, baseline: Snapshot | None, plant: Plant | None) -> _Sent:
        """What stands in the place of the Verdicts of ``case``."""
        return _Sent(self, ctx, layout, baseline, plant)

    def send(
        self, ctx: Context, layout: Layout, baseline: Snapshot | None, plant: Plant | None, seen: Observation
    ) -> None:
        """What Verdicts made of the first four would judge."""
        number = self._number(layout, _layout)
        planted = None if plant is None else self._number(plant, lambda plant: self._plant(plant, layout))
        new = None if baseline is None else self._number(baseline, self._snapshot)
        before, after = (None if snapshot is None else self._snapshot(snapshot) for snapshot in seen[:2])
        report = None if seen.report is None else tuple(seen.report)
        fields = tuple(None if isinstance(field, Host) else field for field in ctx)
        self._out.blob("O", (fields, number, planted, new, before, after, report))

    def _number(self, value: Any, make: Any) -> int:
        if id(value) not in self._values:
            self._out.blob("V", make(value))
            self._values[id(value)] = (value, len(self._values))
        return self._values[id(value)][1]

    def _plant(self, plant: Any, layout: Layout) -> tuple[dict[str, int], dict[str, str], dict[str, str]]:
        """What it asked for, what was refused, and why it has no value for the rest, as far as no plant before said so."""
        rest = {*ENTRIES, *layout.fields} - plant.asked.keys() - plant.refused.keys()
        why = {item: reason for item in rest if self._why.get(item) != (reason := plant.reason(item))}
        self._why.update(why)
        return dict(plant.asked), dict(plant.refused), why

    def _snapshot(self, snapshot: Snapshot) -> tuple[dict[str, list[int]], dict[str, str]]:
        return {name: self._cut(contents) for name, contents in snapshot.sections.items()}, snapshot.unreadable

    def _cut(self, contents: bytes) -> list[int]:
        numbers = []
        pieces = self._pieces
        for start in range(0, len(contents), _PIECE):
            piece = contents[start : start + _PIECE]
            number = pieces.get(piece)
            if number is None:
                number = pieces[piece] = len(pieces)
                self._out.blob("D", piece)
            numbers.append(number)
        return numbers


def _layout(layout: Layout) -> dict[str, object]:
    return {**vars(layout), "fields": {name: tuple(field) for name, field in layout.fields.items()}}


class _Sent:
    """In the place of the Verdicts of a case that is judged outside."""

    def __init__(
        self, observer: Observer, ctx: Context, layout: Layout, baseline: Snapshot | None, plant: Plant | None
    ) -> None:
        self._observer = observer
        self._made_of = (ctx, layout, baseline, plant)

    def of(self, seen: Observation) -> list[Result]:
        """Send it; there are no results yet."""
        self._observer.send(*self._made_of, seen)
        return []


class _Plant:
    """As much of a `kvmtest.state.plant.Plant` as judging needs."""

    def __init__(self, asked: dict[str, int], refused: dict[str, str], reasons: dict[str, str]) -> None:
        self.asked = asked
        self.refused = refused
        self._reasons = reasons

    def reason(self, item: str) -> str:
        """Why it has no value for ``item``."""
        return self._reasons.get(item, "this plant has no value for it")


class Judge:
    """Judges what an Observer sent."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._values: list[Any] = []
        self._made: dict[tuple[str, int], Any] = {}
        # What a host cannot show at all is skipped once for each id and reason, as in `kvmtest.engine.run`.
        self._absent: set[tuple[str, str]] = set()
        self._why: dict[str, str] = {}
        self._cases = {case.name: case for case in plan()}

    def take(self, letter: str, value: Any) -> None:
        """A piece (D) or a value (V)."""
        if letter == "V" and isinstance(value, tuple) and len(value) == 3:  # a plant
            self._why = self._why | value[2]
            value = (*value[:2], self._why)
        (self._pieces if letter == "D" else self._values).append(value)

    def results(self, observation: Any, host: Host) -> list[Result]:
        """The results of one observation (O) on ``host``."""
        fields, layout, plant, new, before, after, report = observation
        ctx = Context(*fields)._replace(host=host)
        made = Verdicts(
            self._cases[ctx.case],
            ctx,
            self._once("layout", layout, _to_layout),
            None if new is None else self._once("snapshot", new, self._to_snapshot),
            None if plant is None else self._once("plant", plant, lambda value: _Plant(*value)),
        )
        first, last = (None if value is None else self._to_snapshot(value) for value in (before, after))
        return list(made.of(Observation(first, last, None if report is None else Report(*report))))

    def new(self, result: Result) -> bool:
        """Whether ``result`` is to be shown: not the same skip again."""
        if result.verdict != "skip" or result.observed is not None:
            return True
        key = (result.id, result.reason)
        new = key not in self._absent
        self._absent.add(key)
        return new

    def _once(self, kind: str, number: int, make: Any) -> Any:
        if (kind, number) not in self._made:
            self._made[kind, number] = make(self._values[number])
        return self._made[kind, number]

    def _to_snapshot(self, value: Any) -> Snapshot:
        sections, unreadable = value
        return Snapshot({name: b"".join(self._pieces[n] for n in numbers) for name, numbers in sections.items()}, unreadable)


def _to_layout(value: dict[str, Any]) -> Layout:
    layout = Layout.__new__(Layout)
    vars(layout).update(value)
    layout.fields = {name: Field(*field) for name, field in value["fields"].items()}
    return layout
