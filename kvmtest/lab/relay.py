# SPDX-License-Identifier: GPL-2.0-only
"""Cases are judged outside: what an emulated CPU takes seconds for, the real one does in milliseconds.

Judging is pure (`kvmtest.judge.cases`): it needs the evidence, and what is known of a case before it runs. `Sender` stands
inside instead of the judges and sends these; `Receiver` has the same judges make observations of them outside. Nothing is
sent twice: sections go in pieces, of which few differ from one case to the next.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Sequence
from typing import Any

from kvmtest.engine.plan import Case, plan
from kvmtest.judge.cache import Cache
from kvmtest.judge.cases import judge
from kvmtest.judge.evidence import (
    Again,
    Basis,
    Ended,
    Evidence,
    Exited,
    Look,
    Measured,
    Played,
    ResetSeen,
    ResetTry,
    Untried,
)
from kvmtest.judge.item import Context
from kvmtest.lab.stream import Encoder
from kvmtest.model.host import Host
from kvmtest.model.record import Observation
from kvmtest.spec import ENTRIES
from kvmtest.state.guest_view import Report
from kvmtest.state.layout import Field, Layout
from kvmtest.state.sections import Snapshot

__all__ = ("Receiver", "Sender")

_ITEM = re.compile(r"[a-z0-9_.-]+")
_PIECE = 256
_LATELY = 6
#: The types of evidence; each is sent as its name and its fields.
_KINDS: dict[str, Any] = {
    kind.__name__: kind
    for kind in (Again, Ended, Evidence, Exited, Measured, Played, Report, ResetSeen, ResetTry, Untried)
}
_NAMES = {kind: name for name, kind in _KINDS.items()}
_SNAPSHOT, _TUPLE = "snapshot", "tuple"


class Sender:
    """Sends evidence by ``out``."""

    def __init__(self, out: Encoder) -> None:
        self._out = out
        self._pieces: dict[bytes, int] = {}
        #: Section -> what it was lately, and the numbers of its pieces: as created, planted, and after the event.
        self._lately: dict[str, deque[tuple[bytes, list[int]]]] = {}
        # By identity, and kept, so that no other object can have the same one.
        self._kept: dict[int, tuple[object, int]] = {}
        self._why: dict[str, str] = {}

    def judging(self, look: Look, host: Host, bases: tuple[Basis, ...], seen: Any) -> list[Observation]:
        """Send the evidence of the running case instead of judging it: there are no observations yet."""
        packed = []
        for ctx, layout, baseline, plant in bases:
            packed.append(
                (
                    tuple(None if isinstance(field, Host) else field for field in ctx),
                    self._number(layout, _layout),
                    None if baseline is None else self._number(baseline, self._snapshot),
                    None if plant is None else self._number(plant, lambda plant, layout=layout: self._plant(plant, layout)),
                )
            )
        self._out.blob("O", (packed, self._packed(seen)))
        return []

    def _packed(self, value: Any) -> Any:
        """Convert ``value`` for marshal."""
        kind = type(value)
        if kind is Snapshot:
            return (_SNAPSHOT, self._snapshot(value))
        if kind in _NAMES:
            return (_NAMES[kind], [self._packed(field) for field in value])
        if kind is tuple:
            return (_TUPLE, [self._packed(field) for field in value])
        return value

    def _number(self, value: Any, make: Any) -> int:
        if id(value) not in self._kept:
            self._out.blob("V", make(value))
            self._kept[id(value)] = (value, len(self._kept))
        return self._kept[id(value)][1]

    def _plant(self, plant: Any, layout: Layout) -> tuple[dict[str, int], dict[str, str], dict[str, str]]:
        """Pack a plant: its values, those refused, and for all other items the reasons that earlier plants did not have."""
        rest = {*ENTRIES, *layout.fields} - plant.asked.keys() - plant.refused.keys()
        why = {item: reason for item in rest if self._why.get(item) != (reason := plant.reason(item))}
        self._why.update(why)
        return dict(plant.asked), dict(plant.refused), why

    def _snapshot(self, snapshot: Snapshot) -> tuple[dict[str, list[int]], dict[str, str]]:
        return {name: self._cut(name, contents) for name, contents in snapshot.sections.items()}, snapshot.unreadable

    def _cut(self, section: str, contents: bytes) -> list[int]:
        lately = self._lately.setdefault(section, deque(maxlen=_LATELY))
        for known, numbers in lately:
            if known == contents:
                return numbers
        numbers = []
        pieces = self._pieces
        for start in range(0, len(contents), _PIECE):
            piece = contents[start : start + _PIECE]
            number = pieces.get(piece)
            if number is None:
                number = pieces[piece] = len(pieces)
                self._out.blob("D", piece)
            numbers.append(number)
        lately.append((contents, numbers))
        return numbers


def _layout(layout: Layout) -> dict[str, object]:
    return {**vars(layout), "fields": {name: tuple(field) for name, field in layout.fields.items()}}


class _Plant:
    """As much of a `kvmtest.state.plant.Plant` as judging needs."""

    def __init__(self, asked: dict[str, int], refused: dict[str, str], reasons: dict[str, str]) -> None:
        self.asked = asked
        self.refused = refused
        self._reasons = reasons

    def reason(self, item: str) -> str:
        """Return the reason for having no value for ``item``."""
        return self._reasons.get(item, "this plant has no value for it")


class Receiver:
    """Judges what a Sender sent of ``cases``, by default the plan's."""

    def __init__(self, cases: Sequence[Case] = ()) -> None:
        self._pieces: list[bytes] = []
        self._kept: list[Any] = []
        self._made: dict[tuple[str, int], Any] = {}
        self._why: dict[str, str] = {}
        self._cache = Cache()
        self._cases = {(case.name, case.view): case for case in cases or plan()}

    def take(self, letter: str, value: Any) -> None:
        """A piece (D) or a value (V)."""
        if letter == "V" and isinstance(value, tuple) and len(value) == 3:  # a plant
            self._why = self._why | value[2]
            value = (*value[:2], self._why)
        (self._pieces if letter == "D" else self._kept).append(value)

    def look(self, name: str, view: str) -> Look:
        """Return what to judge of a case that begins (C). Raises ValueError for a case that was not requested."""
        if (name, view) not in self._cases:
            # A case of the full plan, which takes longer to make.
            self._cases = {(case.name, case.view): case for case in plan(full=True)} | self._cases
        if (name, view) not in self._cases:
            raise ValueError(f"no case {name!r} with the view {view!r}")
        return self._cases[name, view].look()

    def observations(self, look: Look, evidence: Any, host: Host) -> list[Observation]:
        """Judge the evidence (O) of a case on ``host``."""
        return judge(self._cache, look, host, *self.unpack(evidence, host))

    def unpack(self, evidence: Any, host: Host) -> tuple[tuple[Basis, ...], Any]:
        """Decode the evidence (O) of a case on ``host``: the bases for judging, and what was observed."""
        packed, seen = evidence
        bases = tuple(
            Basis(
                Context(*fields)._replace(host=host),
                self._once("layout", layout, _to_layout),
                None if baseline is None else self._once("snapshot", baseline, self._to_snapshot),
                None if plant is None else self._once("plant", plant, lambda value: _Plant(*value)),
            )
            for fields, layout, baseline, plant in packed
        )
        return bases, self._unpacked(seen)

    def _unpacked(self, value: Any) -> Any:
        if not isinstance(value, tuple):
            return value
        kind, content = value
        if kind == _SNAPSHOT:
            return self._to_snapshot(content)
        fields = (self._unpacked(field) for field in content)
        return tuple(fields) if kind == _TUPLE else _KINDS[kind](*fields)

    def _once(self, kind: str, number: int, make: Any) -> Any:
        if (kind, number) not in self._made:
            self._made[kind, number] = make(self._kept[number])
        return self._made[kind, number]

    def _to_snapshot(self, value: Any) -> Snapshot:
        sections, unreadable = value
        return Snapshot({name: b"".join(self._pieces[n] for n in numbers) for name, numbers in sections.items()}, unreadable)


def _to_layout(value: dict[str, Any]) -> Layout:
    if wrong := [name for name in value["fields"] if not _ITEM.fullmatch(name)]:
        raise ValueError(f"no item: {wrong[0]!r}")
    layout = Layout.__new__(Layout)
    vars(layout).update(value)
    layout.fields = {name: Field(*field) for name, field in value["fields"].items()}
    return layout
