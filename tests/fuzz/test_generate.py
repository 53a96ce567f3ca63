# SPDX-License-Identifier: GPL-2.0-only
"""Random scenarios: the same for the same seed, lowerable, kept by a file, and such as the automaton expects them."""

from __future__ import annotations

from itertools import islice
from random import Random

import pytest

from kvmtest.fuzz import values
from kvmtest.fuzz.generate import STATES, Generator
from kvmtest.fuzz.model import BLOCKS, HALTS, RUNS, WAITS, Vcpu, rule
from kvmtest.fuzz.moves import BETWEEN, MOVES, read_once
from kvmtest.fuzz.shrink import consistent
from kvmtest.scenario import file
from kvmtest.scenario import step as s
from kvmtest.scenario.places import fields

_SOME = 400


def some(seed: int = 1, states: frozenset[str] = frozenset(STATES)) -> list[s.Scenario]:
    """The first scenarios of a seed."""
    return list(islice(Generator(seed, states=states).each(), _SOME))


def test_a_seed_makes_the_same_scenarios_again() -> None:
    assert some(3) == some(3)
    assert some(3) != some(4)


def test_each_scenario_comes_back_from_its_file() -> None:
    for scenario in some():
        assert file.loads(file.dump(scenario)) == scenario


def test_each_scenario_expects_what_the_automaton_says() -> None:
    assert [scenario.sequence for scenario in some() if not consistent(scenario)] == []


def test_a_sipi_that_is_taken_without_its_init_is_inconsistent() -> None:
    steps = (s.Plant(), s.Observe(), s.Send("sipi", vector=1), s.Observe())
    scenario = s.Scenario("none", "fuzz", "one", steps, ("x",))
    assert not consistent(scenario)
    assert consistent(scenario._replace(steps=(steps[0], s.Set((("mp_state", WAITS),)), *steps[1:])))


def test_every_move_is_taken_and_each_pair_of_the_frequent_ones() -> None:
    made = Generator(1)
    list(islice(made.each(), _SOME))
    assert {name for pair in made.pairs for name in pair} >= {name for name, move in MOVES.items() if move.weight > 1}
    assert made.pairs["init", "sipi"] and made.pairs["sipi", "init"] and made.pairs["values", "blocked"]


def _with_an_interrupt(reached: bool) -> int:
    made, count = Generator(1), 0
    for scenario in islice(made.each(), _SOME):
        if any(isinstance(step, s.Call) and step.kind == "kvm_msi" for step in scenario.steps):
            count += 1
            if reached:
                made.reached()
    return count


def test_moves_that_reached_new_code_come_more_often() -> None:
    assert _with_an_interrupt(True) > _with_an_interrupt(False) > 0


def test_what_is_not_asked_for_is_not_tried() -> None:
    made = islice(Generator(1, events=frozenset(("nmi",)), states=frozenset()).each(), _SOME)
    sent = {step.event for one in made for step in one.steps if isinstance(step, s.Send) and step.to == "target"}
    assert sent == {"nmi"}
    assert not any(scenario.needs for scenario in some(states=frozenset()))


def test_items_have_places_and_values_that_fit() -> None:
    random = Random(1)
    for _ in range(_SOME):
        for item, value in values.items(random):
            assert item.startswith("msr.") or item in fields()
            assert 0 <= value < 1 << (64 if item.startswith("msr.") else 8 * fields()[item][2])


@pytest.mark.parametrize(
    ("event", "vcpu", "becomes", "activity"),
    [
        ("init", Vcpu(True), "taken", RUNS),
        ("init", Vcpu(False), "taken", WAITS),
        ("init", Vcpu(False, HALTS), "taken", WAITS),
        *(("init", Vcpu(False, block=name), "held", RUNS) for name in BLOCKS),
        *(("sipi", Vcpu(False, WAITS, block=name), "dropped", WAITS) for name in BLOCKS),
        ("sipi", Vcpu(False, WAITS), "taken", RUNS),
        ("sipi", Vcpu(False), "dropped", RUNS),
        ("sipi", Vcpu(False, HALTS), "dropped", HALTS),
    ],
)
def test_the_automaton(event: str, vcpu: Vcpu, becomes: str, activity: int) -> None:
    assert rule(event, vcpu) == (becomes, activity)


def test_what_is_written_reaches_every_section() -> None:
    random = Random(1)
    seen = {values.section_of(item) for _ in range(_SOME) for item, _ in values.items(random)}
    assert seen == {"regs", "sregs", "debugregs", "xcrs", "lapic", "msrs"}


def test_what_a_host_changes_is_written_and_not_checked() -> None:
    made = Generator(1)
    made.unchecked.add("msr.star")
    sets = [step for one in islice(made.each(), 4 * _SOME) for step in one.steps if isinstance(step, s.Set)]
    checked = {item: step.check for step in sets for item, _ in step.items if item.startswith("msr.")}
    assert not checked.pop("msr.star") and all(checked.values())


def test_what_follows_from_what_is_written_is_not_compared() -> None:
    assert {"msr.efer", "msr.fs_base", "lapic.tpr", "fs.limit", "fs.g"} <= set(values.follow(("fs.limit",)))
    assert {"msr.gs_base", "gs.base"} <= set(values.follow(("msr.gs_base",)))
    # Other MSRs are compared, but for those that are the same register.
    assert "msr.star" not in values.follow(("msr.gs_base", "msr.pat"))
    assert {"msr.pmc3", "msr.pmc3_full"} <= set(values.follow(("msr.pmc3",))) == set(values.follow(("msr.pmc3_full", "msr.pmc3")))
    assert "cs.base" not in values.follow(("fs.limit",))


def test_a_sipi_is_sent_by_ioctl_in_wait_for_sipi_alone() -> None:
    sent = [
        (step.vector, consistent(scenario))
        for scenario in islice(Generator(2).each(), 4 * _SOME)
        for step in scenario.steps
        if isinstance(step, s.Send) and step.by == "mp-state"
    ]
    assert sent and all(vector and good for vector, good in sent)


def test_masked_interrupt_controllers_are_migrated() -> None:
    made = islice(Generator(1).each(), 8 * _SOME)
    found = [one for one in made if any(isinstance(step, s.Set) and "pic_master.imr" in dict(step.items) for step in one.steps)]
    assert found and all(one.fresh and any(isinstance(step, s.Migrate) for step in one.steps) for one in found)


def test_what_nothing_has_happened_to_is_read_once() -> None:
    same, mp_state = s.Expect(s.Same()), s.Set((("mp_state", 0),))
    steps = (BETWEEN, s.Plant(), BETWEEN, s.Observe(), mp_state, same, BETWEEN, s.Observe(), s.Send("init"), s.Observe())
    assert read_once((*steps, BETWEEN, s.Observe(), mp_state, same)) == (
        *steps[:7], s.Send("init"), s.Observe(), BETWEEN, mp_state, same,
    )  # fmt: skip
    other = (s.Observe(), s.Observe(who="other"), s.Observe())
    assert read_once(other) == other
