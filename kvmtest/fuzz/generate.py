# SPDX-License-Identifier: GPL-2.0-only
"""Random scenarios, one after the other: the same ones for the same seed."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from random import Random

from kvmtest.fuzz.drawn import drawn
from kvmtest.fuzz.model import BLOCKS, CITE
from kvmtest.fuzz.moves import BETWEEN, GUEST, MOVES, Play
from kvmtest.model.shard import Shard
from kvmtest.scenario import step as s
from kvmtest.scenario.items import CONTINUE
from kvmtest.scenario.setup import VENDORS, Setup

__all__ = ("EVENTS", "STATES", "Generator")

#: The values of --event and --state.
EVENTS = tuple(dict.fromkeys(move.event for move in MOVES.values() if move.event))
STATES = tuple(BLOCKS)
#: The last move of a scenario that would say nothing.
_SOMETHING = "other"
_MODES = ("xapic", "xapic", "xapic-flat", "x2apic")
#: The share of scenarios in which the guest reports what it reads, and the limit of moves in one; the share of those that are not
#: made of moves.
_GUESTS, _MOST, _DRAWN = 0.002, 4, 0.005


class Generator:
    """Scenarios made from ``seed``. Which move follows which steers it: a pair that was rare is more likely, and one that led to
    code that had not been run before (`reached`).

    ``states`` are those that this host can be put in. ``shard`` is the part of the numbers that scenarios are made for.
    ``without`` may be added to while it goes on, which makes what follows another sequence: items that this host does not accept;
    and so may ``unchecked``, items that it may change.
    """

    def __init__(
        self,
        seed: int,
        *,
        events: frozenset[str] = frozenset(EVENTS),
        states: frozenset[str] = frozenset(STATES),
        shard: Shard | None = None,
    ) -> None:
        self.seed, self._events, self._states, self._shard = seed, events, states, shard
        self._moves = [(name, move.weight, move.may) for name, move in MOVES.items() if move.event in ("", *events)]
        self.without: set[str] = set()
        self.unchecked: set[str] = set()
        self.pairs: Counter[tuple[str, str]] = Counter()
        self._last: list[tuple[str, str]] = []
        self._taken = 0

    def each(self) -> Iterator[s.Scenario]:
        """Scenarios without an end."""
        for number in itertools.count(1):
            if self._shard is None or self._shard.counts(number):
                yield self.made(number)

    def reached(self) -> None:
        """Have the pairs of moves of the last scenario as often as if they were new: it ran code for the first time."""
        for pair in self._last:
            self.pairs[pair] = 0

    def made(self, number: int) -> s.Scenario:
        """The scenario of that ``number``, after those before it."""
        random, name = Random(f"{self.seed}/{number}"), f"fuzz-{self.seed}-{number}"
        self._last = []
        if random.random() < _DRAWN and "init" in self._events:
            made = drawn(random, self._states, migrates="migrate" in self._events)
            return made._replace(sequence=f"{made.sequence}-{name}")
        guest, bsp = random.random() < _GUESTS and "init" in self._events, random.random() < 0.3
        vendor, mode = random.choice(VENDORS), random.choice(_MODES if not guest else ("xapic", "x2apic"))
        states, without = self._states, frozenset(self.without)
        play = Play(random, bsp, vendor, mode, events=self._events, states=states, without=without)
        play.reporter, play.unchecked = guest, self.unchecked
        # The event of the case says where its guest begins; nothing has been sent yet.
        steps: list[s.Step] = [s.Reporter(None if bsp else CONTINUE, apic_mode=mode)] if guest else []
        steps += (BETWEEN, *MOVES["plant"].make(play))
        last = "plant"
        for _ in range(random.randint(1, _MOST)):
            last = self._next(play, last)
            steps += (BETWEEN, *MOVES[last].make(play))
        if guest:
            steps += (BETWEEN, *GUEST.make(play))
        if not guest and not any(isinstance(step, (s.Expect, s.Migrate, s.Send)) for step in steps):
            steps += (BETWEEN, *MOVES[_SOMETHING].make(play))
        # Binding a migration tries what can be written, on a VM that is kept: this one must be another.
        fresh = guest or play.migrated
        where = ("bsp" if bsp else "ap", "host", tuple(play.needs), Setup("full", mce=not guest))
        cite = tuple(dict.fromkeys((*CITE, *play.cite)))
        made = s.Scenario("init" if guest else "none", "fuzz", name, tuple(steps), cite, *where)
        return made._replace(vendors=(vendor,), fresh=fresh)

    def _next(self, play: Play, last: str) -> str:
        """The next move after ``last``."""
        share, pairs = 1 + self._taken / 100, self.pairs
        may = [(name, weight / (1 + pairs[last, name] / share) ** 0.5) for name, weight, asks in self._moves if asks(play)]
        names, weights = zip(*may, strict=True)
        name: str = play.random.choices(names, weights)[0]
        self.pairs[last, name] += 1
        self._last.append((last, name))
        self._taken += 1
        return name
