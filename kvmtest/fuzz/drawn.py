# SPDX-License-Identifier: GPL-2.0-only
"""INIT in any state, by any trigger, with random parameters: any of the cases that the plan has a covering array of."""

from __future__ import annotations

from random import Random

from kvmtest.scenario.covering import Tried, allowed
from kvmtest.scenario.items import scenario
from kvmtest.scenario.migrated import migrated, ways
from kvmtest.scenario.setup import VENDORS, Setup
from kvmtest.scenario.states import GUEST_PLANTS, STATES
from kvmtest.scenario.step import Scenario
from kvmtest.scenario.triggers import TRIGGERS
from kvmtest.state.values import APIC_MODES, PLANTS

__all__ = ("drawn",)

_TRIGGERS = tuple(name for name, trigger in TRIGGERS.items() if "init" in trigger.events and not trigger.many)
_STATES = tuple(name for name, state in STATES.items() if not state.events or "init" in state.events)
_PLANTS, _MODES = (*PLANTS, *GUEST_PLANTS), tuple(APIC_MODES)
#: The block that asks for the same as a state's need.
_BLOCK = {"smm": "smm", "svm": "gif", "vmx": "vmx"}
#: The share of scenarios with a migration.
_MIGRATED = 0.3


def drawn(random: Random, blocks: frozenset[str], *, migrates: bool) -> Scenario:
    """A scenario with random parameters, which its sequence names: deviations are known by them.

    Of the states that block INIT, or are of nested guests, it has those of ``blocks``.
    """
    while True:
        places = (random.choice(("bsp", "ap")), random.choice(VENDORS), random.choice(_MODES), random.choice(_PLANTS))
        one = Tried(random.choice(_TRIGGERS), *places, random.choice(_STATES), random.random() < 0.5)
        if all(_BLOCK[need] in blocks for need in STATES[one.state].needs) and allowed("init", one):
            break
    made = scenario(one.item("init"))
    setup = Setup(TRIGGERS[one.trigger].irqchip, mce=not one.guest)
    words = "-".join(filter(None, (f"plant-{one.plant}", one.state, one.trigger.partition("/")[2])))
    made = made._replace(sequence=words, setup=setup, vendors=(one.vendor,), fresh=made.fresh or one.guest)
    how = random.choice(ways(made) or [""]) if migrates and random.random() < _MIGRATED else ""
    moved = migrated(made, how) if how else None
    return moved._replace(sequence=f"{words}-migrated-{how}", fresh=True) if moved else made
