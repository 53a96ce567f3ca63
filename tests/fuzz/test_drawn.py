# SPDX-License-Identifier: GPL-2.0-only
"""INIT with random parameters: only what the facts allow and what was asked for, and any of the states."""

from __future__ import annotations

from random import Random

from kvmtest.fuzz.drawn import drawn
from kvmtest.fuzz.generate import STATES
from kvmtest.scenario import file
from kvmtest.scenario import step as s

_ALL = frozenset(STATES)


def _some(blocks: frozenset[str] = _ALL, *, migrates: bool = True) -> list[s.Scenario]:
    random = Random(1)
    return [drawn(random, blocks, migrates=migrates) for _ in range(300)]


def test_it_is_the_same_again_and_comes_back_from_its_file() -> None:
    made = [one._replace(sequence="fuzz-1-1") for one in _some()]
    assert made == [one._replace(sequence="fuzz-1-1") for one in _some()]
    assert all(file.loads(file.dump(one)) == one for one in made[:50])


def test_its_sequence_names_plant_and_state() -> None:
    """By them deviations are known, as in the plan."""
    made = _some()
    assert {one.sequence for one in made} > {"plant-guest-long", "plant-guest-long-irq-requested", "plant-a-in-smm"}
    for one in made:
        plants = [step.name for step in one.steps if isinstance(step, s.Plant) and step.who == "target"]
        assert not plants or one.sequence.startswith(f"plant-{plants[-1]}")


def test_it_reaches_running_and_nested_guests() -> None:
    made = _some()
    assert {need for one in made for need in one.needs} == {"smm", "svm", "vmx"}
    assert any(isinstance(step, s.Start) for one in made for step in one.steps)
    assert any(isinstance(step, s.Load) and step.guest == "svm" for one in made for step in one.steps)
    assert any(isinstance(step, s.Guest) for one in made for step in one.steps)


def test_what_is_not_asked_for_is_not_tried() -> None:
    made = _some(frozenset(), migrates=False)
    assert not any(one.needs for one in made)
    assert not any(isinstance(step, s.Migrate) for one in made for step in one.steps)
    assert any(isinstance(step, s.Migrate) for one in _some() for step in one.steps)
