# SPDX-License-Identifier: GPL-2.0-only
"""Reduce findings: Hypothesis leaves out moves and single steps, as long as the rest shows the same.

What is left has to be a scenario that the manuals still say something of: without its INIT a SIPI is dropped, and that it is not
accepted is not a departure. The automaton knows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import combinations, islice
from random import Random

from kvmtest.fuzz.model import BLOCKS, HALTS, RUNS, Vcpu, rule
from kvmtest.fuzz.moves import BETWEEN, READ, read_once
from kvmtest.scenario import step as s

__all__ = ("Shows", "consistent", "shrunk")

_PENDING = "events.smi_latched_init"
#: Tries; and of how many numbers one leaves a part out: most first tries have to keep nearly all.
_TRIES, _ONE_OF = 400, 40
#: The numbers of parts, and of scenarios that are made of so few, of the tries afterwards.
_FEW, _MOST = 4, 200
#: The items that show that an event came.
_COMES = {"nmi": "events.nmi_pending", "smi": "events.smi_pending"}
#: Parts that are left out together at most, after each was alone.
_BARE = 7
Part = tuple[s.Step, ...]
#: Numbers of steps of a scenario.
Numbers = tuple[int, ...]
#: A test which of some scenarios show the departure.
Shows = Callable[[Sequence[s.Scenario]], Sequence[bool]]


def _moves(steps: Iterable[s.Step]) -> list[Part]:
    """The moves in ``steps``; the steps before the first one count as a move."""
    found: list[list[s.Step]] = [[]]
    for step in steps:
        if step == BETWEEN:
            found.append([])
        found[-1].append(step)
    return [tuple(part) for part in found if part]


def _parts(steps: Sequence[s.Step]) -> list[Numbers]:
    """Return the parts that can be left out alone, as numbers of ``steps``: a move, each item of a move that only writes some,
    what makes a vCPU differ before an event, and the look before an event whose table is read after it.
    """
    found: list[Numbers] = []
    first = 0
    for move in _moves(steps):
        numbers = range(first, first + len(move))
        first += len(move)
        if any(isinstance(step, s.Migrate) for step in move) and not any(isinstance(step, s.Send) for step in move):
            found += _around(numbers, move)
            continue
        writes = len(move) > 1 and move[0] == BETWEEN and all(_writes(step) for step in move[1:])
        look = _first_look(move)
        alone = [
            number
            for number, step in zip(numbers, move, strict=True)
            if _differs(step) or number - numbers[0] == look or writes and (_alters(step) or _reads(step))
        ]
        rest = tuple(number for number in numbers if number not in alone)
        found += [(number,) for number in alone]
        # Without its items a move that writes some is nothing; with a look before them and one after, these two are left.
        found += [rest] if not writes or len(rest) > 1 else []
    return found


def _around(numbers: range, move: Part) -> list[Numbers]:
    """The parts of a ``move`` with a migration and no event: a look and the next one that compares with it belong together."""
    found: list[Numbers] = []
    looks = list[int]()
    for number, step in zip(numbers, move, strict=True):
        if step == s.Observe():
            looks.append(number)
        elif isinstance(step, s.Expect) and isinstance(step.condition, s.Same) and looks:
            found.append((looks.pop(), number))
        elif step != BETWEEN:
            found.append((number,))
    return [*found, *((number,) for number in looks)]


def _first_look(move: Part) -> int:
    """The number of the look before the only event of ``move``, after which the table is read; -1 if there is none."""
    kinds = [type(step) for step in move]
    if kinds[-3:] != [s.Observe, s.Send, s.Observe] or s.Expect in kinds or s.Migrate in kinds:
        return -1
    return len(move) - 3


def _writes(step: s.Step) -> bool:
    same = isinstance(step, s.Expect) and isinstance(step.condition, s.Same)
    return _alters(step) or _reads(step) or same or step == s.Observe()


def _alters(step: s.Step) -> bool:
    return isinstance(step, (s.Set, s.SetBits))


def _differs(step: s.Step) -> bool:
    return isinstance(step, s.Set) and [item for item, _ in step.items] == ["rbx"]


def _reads(step: s.Step) -> bool:
    return isinstance(step, s.Expect) and isinstance(step.condition, s.Is)


def _activity(step: s.Step) -> int | None:
    """The activity state that ``step`` expects."""
    condition = step.condition if isinstance(step, s.Expect) else None
    return condition.value if isinstance(condition, s.Is) and condition.item == "mp_state" else None


def consistent(scenario: s.Scenario) -> bool:
    """Return True if the expectations of each move of ``scenario`` agree with the automaton."""
    vcpu = Vcpu(scenario.target == "bsp")
    planted, written, of_vm = False, dict[str, int | str](), dict[str, int | str]()
    for move in _moves(scenario.steps):
        for number, step in enumerate(move):
            who = getattr(step, "who", getattr(step, "to", "target"))
            if who == "vm" and isinstance(step, s.Set):
                of_vm |= step.items
            elif who == "vm" and isinstance(step, s.Expect) and isinstance(step.condition, s.Is):
                if of_vm.get(step.condition.item) != step.condition.value:
                    return False
            if who != "target":
                continue
            if isinstance(step, s.Plant):
                planted, vcpu.block = True, ""
                written.clear()
                vcpu.activity = RUNS if step.name == "b" else HALTS
            elif isinstance(step, s.Set):
                vcpu.activity = dict(step.items).get("mp_state", vcpu.activity)  # type: ignore[assignment]
                written |= step.items
            elif isinstance(step, s.Send) and step.event in _COMES:
                written[_COMES[step.event]] = 1
            elif isinstance(step, s.Expect) and not _written(step.condition, written):
                return False
            elif _activity(step) not in (None, vcpu.activity):
                return False
            elif isinstance(step, s.Send) and step.event in ("init", "sipi"):
                if not planted:
                    return False
                vcpu.block = _block(move, number)
                found = rule(step.event, vcpu)
                looked = isinstance(move[-1], s.Observe) or any(isinstance(one, s.Guest) for one in move)
                if step.event == "sipi" and step.judged and (found.becomes == "taken") != looked:
                    return False
                if step.event == "init" or step.judged:
                    vcpu.activity = found.activity
                if found.becomes == "held":
                    vcpu.activity = rule("init", Vcpu(vcpu.bsp)).activity
    return planted and any(isinstance(step, (s.Expect, s.Observe, s.Guest, s.Migrate)) for step in scenario.steps)


def _written(condition: s.Condition, written: dict[str, int | str]) -> bool:
    """Return True unless ``condition`` expects of an item of KVM_SET_VCPU_EVENTS another value than was ``written``."""
    return not (isinstance(condition, s.Is) and condition.item in READ) or written.get(condition.item) == condition.value


def _block(move: Part, number: int) -> str:
    """Return the name of the state that blocks INIT at a step of ``move``: it is entered before the step, and left after it."""
    for name, block in BLOCKS.items():
        if all(step in move[:number] for step in block.facts.prepare):
            return name
    return ""


def _judges(step: s.Step) -> bool:
    return isinstance(step, s.Expect) or step == s.Observe()


def _judging(steps: Sequence[s.Step]) -> list[Numbers]:
    """The parts of ``steps`` that judge and change nothing. A look goes with the comparisons with it, and stays after an event:
    without it the next event would be judged by what was there before both.
    """
    found, looks = list[Numbers](), dict[int, list[int]]()
    sent, last = False, -1
    for number, step in enumerate(steps):
        sent = sent or isinstance(step, s.Send)
        if step == s.Observe():
            last = number
            if not sent:
                looks[last] = [last]
            sent = False
        elif isinstance(step, s.Expect):
            found.append((number,))
            if isinstance(step.condition, s.Same) and last in looks:
                looks[last].append(number)
    return [*found, *map(tuple, looks.values())]


def _without(kept: tuple[bool, ...]) -> Iterator[tuple[bool, ...]]:
    """Yield ``kept`` with one or two more parts left out."""
    there = [number for number, keep in enumerate(kept) if keep]
    for count in (1, 2):
        for out in combinations(there, count):
            yield tuple(keep and number not in out for number, keep in enumerate(kept))


def _size(scenario: s.Scenario) -> int:
    """The number of steps that do something."""
    return len(scenario.steps) - scenario.steps.count(BETWEEN)


class _Tries:
    """The tries with parts of ``scenario`` left out, and the ``best`` one: that with the fewest steps that shows the same."""

    def __init__(self, scenario: s.Scenario, shows: Shows, progress: Callable[[int], None], ahead: int) -> None:
        self.best, self._scenario, self._shows, self._progress, self._ahead = scenario, scenario, shows, progress, ahead
        self.parts = _parts(scenario.steps)
        self._seen: dict[tuple[bool, ...], bool] = {}
        self._tries = 0

    def does(self, numbers: Sequence[int]) -> bool:
        """Return True if the scenario without some parts still shows it: parts with the number 0 are left out."""
        kept = tuple(number > 0 for number in numbers)
        if kept not in self._seen:
            news = [kept, *(one for one in islice(_without(kept), self._ahead) if one not in self._seen)]
            made = {one: self._made(one) for one in news}
            tried = {one: scenario for one, scenario in made.items() if consistent(scenario)}
            self._seen |= dict.fromkeys(made, False) | dict(zip(tried, self.show(list(tried.values())), strict=True))
        return self._seen[kept]

    def smaller(self) -> None:
        """Try a few parts alone, if they are smaller than the best one: left out one by one, others may have been left."""
        size, count = _size(self.best), len(self.parts)
        chosen = (some for few in range(1, _FEW + 1) for some in combinations(range(count), few))
        kept = (tuple(number in some for number in range(count)) for some in chosen)
        made = (self._made(one) for one in kept if one not in self._seen)
        small = [one for one in made if _size(one) < size and consistent(one)]
        small.sort(key=_size)
        self.show(small[:_MOST])

    def plainer(self) -> None:
        """Replace each INIT that was held until its block was left by one that nothing blocks."""
        moves, tried = _moves(self.best.steps), []
        for number, move in enumerate(moves):
            inits = [at for at, step in enumerate(move) if isinstance(step, s.Send) and step[:1] == ("init",)]
            if move[0] == BETWEEN and move[-1] == s.Observe() and any(_block(move, at) for at in inits):
                # That an item was kept shows only after a look before the event.
                for look in ((), (s.Observe(),)):
                    init: Part = (BETWEEN, *look, move[inits[-1]], s.Observe())
                    steps = (step for one in (*moves[:number], init, *moves[number + 1 :]) for step in one)
                    tried.append(self.best._replace(steps=tuple(steps)))
        self.show([one for one in tried if consistent(one)])

    def barer(self) -> None:
        """Leave out what follows the departure, and looks and expectations without which it shows."""
        scenario, count = self.best, len(self.best.steps)
        ends = [tuple(range(number, count)) for number in range(1, count) if _judges(scenario.steps[number - 1])]
        alone = self._leave_out(scenario, [*ends, *_judging(scenario.steps)])
        # Of what follows the most that does; the rest is tried with it and with each other.
        some = [*[part for part in alone if part in ends][:1], *[part for part in alone if part not in ends]][:_BARE]
        self._leave_out(scenario, [sum(of, ()) for few in range(2, len(some) + 1) for of in combinations(some, few)])

    def _leave_out(self, scenario: s.Scenario, parts: Iterable[Numbers]) -> list[Numbers]:
        """Return those of ``parts``, numbers of steps, without which ``scenario`` shows the same."""
        made = {part: tuple(step for number, step in enumerate(scenario.steps) if number not in part) for part in parts}
        left = {part: scenario._replace(steps=steps) for part, steps in made.items()}
        tried = {part: one for part, one in left.items() if consistent(one)}
        shows = self.show(list(tried.values()))
        return [part for part, does in zip(tried, shows, strict=True) if does]

    def show(self, scenarios: Sequence[s.Scenario]) -> Sequence[bool]:
        """Try ``scenarios``, and return for each whether it shows the same."""
        if not scenarios:
            return ()
        found = self._shows(scenarios)
        self._tries += len(scenarios)
        self._progress(self._tries)
        small = [one for one, does in zip(scenarios, found, strict=True) if does]
        self.best = min((self.best, *small), key=lambda one: (_size(one), len(one.steps)))
        return found

    def _made(self, kept: Sequence[bool]) -> s.Scenario:
        numbers = sorted(number for part, keep in zip(self.parts, kept, strict=True) if keep for number in part)
        return self._scenario._replace(steps=tuple(self._scenario.steps[number] for number in numbers))


def shrunk(
    scenario: s.Scenario, shows: Shows, progress: Callable[[int], None] = lambda tries: None, *, ahead: int = 0
) -> s.Scenario:
    """The smallest scenario found that ``shows`` the same as ``scenario`` does, and is `consistent`.

    ``progress`` is called with the number of tries. ``ahead`` is how many that
    may be asked for next are tried with each, where asking at all takes longer than trying. Raises ImportError without
    Hypothesis.
    """
    from hypothesis import HealthCheck, Phase, find, settings
    from hypothesis import strategies as st
    from hypothesis.errors import NoSuchExample

    tries = _Tries(scenario, shows, progress, ahead)
    quiet = settings(
        max_examples=_TRIES, database=None, deadline=None, suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink),
    )  # fmt: skip
    try:
        find(st.tuples(*[st.integers(0, _ONE_OF)] * len(tries.parts)), tries.does, settings=quiet, random=Random(1))
    except NoSuchExample:
        return scenario
    tries.smaller()
    tries.plainer()
    tries.barer()
    # Between moves nothing happens: before the first or only move nothing needs to separate them.
    steps = tries.best.steps
    plain = [tuple(step for step in steps if step != BETWEEN), steps[steps[0] == BETWEEN :]]
    tries.show([tries.best._replace(steps=read_once(steps)) for steps in plain])
    return tries.best
