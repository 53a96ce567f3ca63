# SPDX-License-Identifier: GPL-2.0-only
"""Make what was found small: Hypothesis leaves out moves and single steps, as long as the rest shows the same.

What is left has to be a scenario that the manuals still say something of: without its INIT a SIPI is dropped, and that it is not
taken is no departure. The automaton tells.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from random import Random

from kvmtest.fuzz.model import BLOCKS, HALTS, RUNS, Vcpu, rule
from kvmtest.fuzz.moves import BETWEEN
from kvmtest.scenario import step as s

__all__ = ("consistent", "shrunk")

_PENDING = "events.smi_latched_init"
#: Tries; and of how many numbers one leaves a part out: most first tries have to keep nearly all.
_TRIES, _ONE_OF = 400, 40
Part = tuple[s.Step, ...]


def _moves(steps: Iterable[s.Step]) -> list[Part]:
    """The moves that ``steps`` are made of; what comes before the first one is one of them."""
    found: list[list[s.Step]] = [[]]
    for step in steps:
        if step == BETWEEN:
            found.append([])
        found[-1].append(step)
    return [tuple(part) for part in found if part]


def _parts(steps: Iterable[s.Step]) -> list[Part]:
    """What may be left out alone: a move, or of one that only writes items each."""
    found: list[Part] = []
    for move in _moves(steps):
        alone = len(move) > 1 and move[0] == BETWEEN and all(isinstance(step, s.Set) for step in move[1:])
        found += [(step,) for step in move[1:]] if alone else [move]
    return found


def consistent(scenario: s.Scenario) -> bool:
    """Whether what each move of ``scenario`` expects is what the automaton says."""
    vcpu = Vcpu(scenario.target == "bsp")
    planted = False
    for move in _moves(scenario.steps):
        for number, step in enumerate(move):
            if getattr(step, "who", getattr(step, "to", "target")) != "target":
                continue
            if isinstance(step, s.Plant):
                planted, vcpu.block = True, ""
                vcpu.activity = RUNS if step.name == "b" else HALTS
            elif isinstance(step, s.Set):
                vcpu.activity = dict(step.items).get("mp_state", vcpu.activity)  # type: ignore[assignment]
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
    return planted


def _block(move: Part, number: int) -> str:
    """What blocks INIT at a step of ``move``: the state that is entered before it, and left after it."""
    for name, block in BLOCKS.items():
        if all(step in move[:number] for step in block.facts.prepare):
            return name
    return ""


def shrunk(
    scenario: s.Scenario, shows: Callable[[s.Scenario], bool], told: Callable[[int], None] = lambda tries: None
) -> s.Scenario:
    """The smallest scenario found that ``shows`` the same as ``scenario`` does, and is `consistent`.

    ``told`` hears how many were tried. Raises ImportError without Hypothesis.
    """
    from hypothesis import HealthCheck, Phase, find, settings
    from hypothesis import strategies as st
    from hypothesis.errors import NoSuchExample

    parts = _parts(scenario.steps)
    best, tries = scenario, 0
    seen: dict[tuple[bool, ...], bool] = {}

    def made(kept: Sequence[bool]) -> s.Scenario:
        steps = tuple(step for part, keep in zip(parts, kept, strict=True) if keep for step in part)
        return scenario._replace(steps=steps)

    def does(numbers: Sequence[int]) -> bool:
        nonlocal best, tries
        kept = tuple(number > 0 for number in numbers)
        if kept not in seen:
            tries += 1
            told(tries)
            tried = made(kept)
            seen[kept] = consistent(tried) and shows(tried)
            if seen[kept] and len(tried.steps) < len(best.steps):
                best = tried
        return seen[kept]

    quiet = settings(
        max_examples=_TRIES, database=None, deadline=None, suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink),
    )  # fmt: skip
    try:
        find(st.tuples(*[st.integers(0, _ONE_OF)] * len(parts)), does, settings=quiet, random=Random(1))
    except NoSuchExample:
        return scenario
    return best
