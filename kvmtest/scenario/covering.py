# SPDX-License-Identifier: GPL-2.0-only
"""The combinations of parameters to try: all that the facts allow, or a covering array, in which each pair of values occurs."""

from __future__ import annotations

import heapq
import random
from collections.abc import Hashable, Iterable, Iterator, Sequence
from functools import cache
from itertools import combinations, product
from operator import itemgetter, or_
from typing import Any, NamedTuple, TypeVar

from kvmtest.scenario.items import LEAVE, Item
from kvmtest.scenario.needs import NEEDS, Need
from kvmtest.scenario.setup import VENDORS
from kvmtest.scenario.states import GUEST_PLANTS, STATES
from kvmtest.scenario.triggers import TRIGGERS
from kvmtest.state.values import APIC_MODES, PLANTS

__all__ = ("Tried", "allowed", "covering", "inits", "leaves", "paired")

_TARGETS = ("bsp", "ap")
#: The guest starts in both of these; with a plant with a pending triple fault, which KVM does not undo, no guest runs.
_GUEST_MODES, _NO_GUEST = ("xapic", "x2apic"), ("b",)
#: Beyond pairs: what a rule, a state or a way in depends on together.
_TRIPLES = (
    ("trigger", "target", "state"),
    ("trigger", "target", "plant"),
    ("vendor", "target", "plant"),
    ("vendor", "target", "state"),
    ("trigger", "mode", "plant"),
    ("trigger", "vendor", "plant"),
    ("state", "plant", "target"),
    ("state", "guest", "target"),
)
_T = TypeVar("_T", bound=tuple[Any, ...])
#: The order in which combinations are looked at spreads the parameters; any other one would do.
_SEED = 1


class Tried(NamedTuple):
    """One combination."""

    trigger: str
    target: str
    vendor: str
    mode: str
    plant: str
    state: str
    guest: bool

    def item(self, event: str) -> Item:
        """The case's parameters."""
        return Item(event, self.trigger, self.target, self.mode, self.plant, self.state, None, self.guest)


def allowed(event: str, one: Tried) -> bool:
    """Return True if the tables of triggers and states allow this combination."""
    trigger, state = TRIGGERS[one.trigger], STATES[one.state]
    guest = one.plant in GUEST_PLANTS
    if one.mode not in trigger.modes or trigger.plants and one.plant not in trigger.plants:
        return False
    if trigger.states and one.state not in trigger.states or one.target not in state.targets or event in state.drops:
        return False
    if trigger.outside and state.on_thread:
        return False
    if state.plants and one.plant not in state.plants or guest and one.mode not in _GUEST_MODES:
        return False
    if state.only and one.plant not in state.only or any(need.vendor not in ("", one.vendor) for need in _needs(one.state)):
        return False
    if one.guest:
        return one.mode in _GUEST_MODES and one.plant not in _NO_GUEST
    # A boot processor that runs is seen to restart by what the guest says first.
    return not (one.target == "bsp" and (state.on_thread or state.runs or trigger.runs))


#: Positions of fields.
_COMBINATIONS = (
    *combinations(range(len(Tried._fields)), 2),
    *(tuple(map(Tried._fields.index, names)) for names in _TRIPLES),
)


@cache
def _needs(state: str) -> tuple[Need, ...]:
    return tuple(need for name in STATES[state].needs for need in NEEDS[name])


@cache
def inits() -> tuple[Tried, ...]:
    """All combinations for INIT to one vCPU."""
    triggers = [name for name, trigger in TRIGGERS.items() if "init" in trigger.events and not trigger.many]
    states = [name for name, state in STATES.items() if not state.events or "init" in state.events]
    every = product(triggers, _TARGETS, VENDORS, APIC_MODES, (*PLANTS, *GUEST_PLANTS), states, (True, False))
    return tuple(one for one in map(Tried._make, every) if allowed("init", one))


def leaves() -> Iterator[Tried]:
    """Each state that holds events until it is left: it can be left without one, too."""
    for name, state in STATES.items():
        if state.holds and not state.runs:
            for target, vendor in product(state.targets, VENDORS):
                if all(need.vendor in ("", vendor) for need in _needs(name)):
                    yield Tried(LEAVE, target, vendor, "xapic", (state.plants or PLANTS)[0], name, False)


def covering(every: Iterable[_T], together: Iterable[tuple[int, ...]] = _COMBINATIONS) -> list[_T]:
    """Some of ``every``, in order: what the fields at the positions ``together`` are in one of them, they are in one of these.

    Of the parameters of item cases that is each pair, and some triples.
    """
    tried, count = list(every), 0
    # One bit for each combination; column by column, as there are many rows.
    shows = [0] * len(tried)
    for fields in together:
        column = list(map(itemgetter(*fields), tried))
        bits = {values: 1 << number for number, values in enumerate(dict.fromkeys(column), count)}
        count += len(bits)
        shows = list(map(or_, shows, map(bits.__getitem__, column)))
    return [tried[number] for number in _fewest(shows, (1 << count) - 1)]


def _fewest(shows: list[int], missing: int) -> list[int]:
    """Numbers, in order, of some of ``shows`` that have all bits of ``missing``: each time the one with most of the missing bits.

    What one adds never grows, so that an outdated count is looked at again only when it comes first.
    """
    spread = list(range(len(shows)))
    random.Random(_SEED).shuffle(spread)
    ahead = [(-shows[number].bit_count(), place, number) for place, number in enumerate(spread)]
    heapq.heapify(ahead)
    chosen = []
    while missing:
        counted, place, number = ahead[0]
        new = (shows[number] & missing).bit_count()
        if new == -counted:
            heapq.heappop(ahead)
            chosen.append(number)
            missing &= ~shows[number]
        else:
            heapq.heapreplace(ahead, (-new, place, number))
    return sorted(chosen)


def paired(*tables: Sequence[tuple[Hashable, ...]]) -> list[int]:
    """Numbers, in order, of some rows of ``tables``, which show the same rows by other values: in these each value, in its place,
    comes with each last one of its table that it comes with.
    """
    numbers: dict[Hashable, int] = {}
    shows = []
    for row in zip(*tables, strict=True):
        bits = 0
        for table, (*values, one) in enumerate(row):
            for place, value in enumerate(values):
                bits |= 1 << numbers.setdefault((table, place, value, one), len(numbers))
        shows.append(bits)
    return _fewest(shows, (1 << len(numbers)) - 1)
