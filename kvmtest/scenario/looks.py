# SPDX-License-Identifier: GPL-2.0-only
"""The items that a scenario observes, after which event, and in which view; from its steps alone."""

from __future__ import annotations

from functools import cache
from itertools import chain
from typing import NamedTuple

from kvmtest.scenario import step as s
from kvmtest.spec import ENTRIES, SYNTHETIC
from kvmtest.state import guest_view
from kvmtest.state.values import PLANTS, SIPI

__all__ = (
    "BEHAVIOURS", "HOST", "MIGRATION", "PLANT", "TABLE", "Look", "Writing", "item_of", "looks", "table", "together", "written",
)  # fmt: skip

#: The items of the host's view.
HOST = tuple(item for item in ENTRIES if item not in SYNTHETIC)

#: In the place of an item: the whole table.
TABLE = ""
#: Event, trigger and view of what a migration shows.
MIGRATION = ("none", "migrate", "host")
#: The same of what KVM keeps of a plant.
PLANT = ("none", "plant", "host")
#: The behaviours that a migration shows.
BEHAVIOURS = ("refused", "irqchip", "clock")


class Look(NamedTuple):
    """One item, or the TABLE, that a step of a scenario observes."""

    step: int
    event: str
    trigger: str
    view: str
    item: str


def item_of(expect: s.Expect) -> str:
    """The item whose record an expectation is: a behaviour, or what the condition names."""
    if expect.item:
        return expect.item
    condition = expect.condition
    if isinstance(condition, (s.Is, s.Past)):
        return condition.item
    if isinstance(condition, s.Answer):
        return "refused"
    if isinstance(condition, s.Filled):
        return "memory"
    return "delivered" if isinstance(condition, (s.Same, s.Written, s.Reached)) else "runs"


class Writing(NamedTuple):
    """A plant by ioctls, and ``items`` written after it, as the step ``observed`` finds them: nothing else comes between."""

    plant: s.Plant
    items: dict[str, int]
    observed: int


#: Steps that do nothing to a vCPU.
_ASIDE = (s.Load, s.Poke, s.Page, s.Fill, s.Reporter)


def written(scenario: s.Scenario) -> Writing | None:
    """Return the last plant of the target, or of each vCPU, if it is read back before anything else happens; else None."""
    steps = scenario.steps
    plants = [number for number, step in enumerate(steps) if isinstance(step, s.Plant) and step.who in ("target", "each")]
    if not plants:
        return None
    plant = steps[plants[-1]]
    assert isinstance(plant, s.Plant)
    # Guest code plants by itself; with EFER.SVME KVM_SET_MSRS ends at what a vCPU with SVM refuses.
    if plant.name not in (*PLANTS, SIPI) or plant.keep:
        return None
    items: dict[str, int] = {}
    for number, step in enumerate(steps[plants[-1] + 1 :], plants[-1] + 1):
        if isinstance(step, s.Observe) and step.who == plant.who:
            return Writing(plant, items, number)
        if isinstance(step, s.Set) and step.check and step.who == plant.who:
            for item, value in step.items:
                if isinstance(value, str):
                    return None
                items[item] = value
        elif not isinstance(step, _ASIDE):
            return None
    return None


def looks(scenario: s.Scenario) -> tuple[Look, ...]:
    """All looks of ``scenario``, in order."""
    event, trigger = scenario.event, scenario.trigger
    found: list[Look] = []
    sent, writing = False, written(scenario)
    for number, step in enumerate(scenario.steps):
        if isinstance(step, (s.Send, s.Event)) and (not isinstance(step, s.Send) or step.judged):
            event, trigger = step.event, step.by.partition("/")[0] if isinstance(step, s.Send) else step.trigger
            # A trigger that is not an event has single expectations; its table is the next event's start.
            sent = isinstance(step, s.Send) or event != "none"
        elif isinstance(step, s.Expect) and isinstance(step.condition, s.Zero):
            found += [Look(number, event, trigger, scenario.view, item) for item in step.condition.items]
        elif isinstance(step, s.Expect):
            found.append(Look(number, event, trigger, scenario.view, item_of(step)))
        elif isinstance(step, s.Migrate):
            found += [Look(number, *MIGRATION, item) for item in (*BEHAVIOURS, TABLE)]
        elif isinstance(step, s.Do):
            found += [Look(number, event, trigger, scenario.view, item) for item, _ in step.expected]
        elif isinstance(step, s.Observe) and sent:
            found.append(Look(number, event, trigger, "host", TABLE))
        elif writing and number == writing.observed:
            found.append(Look(number, *PLANT, TABLE))
        elif isinstance(step, s.Guest):
            runs = Look(number, event, trigger, "guest", "runs")
            # Once, where the steps before it have not seen that already.
            if event in ("init", "shutdown") and not any(one[1:] == runs[1:] for one in found):
                found.append(runs)
            found += [Look(number, event, trigger, view, TABLE) for view in ("guest", "views")]
    return tuple(found)


@cache
def together(*parts: tuple[str, ...]) -> tuple[str, ...]:
    """The items of ``parts``, each once."""
    return tuple(dict.fromkeys(chain.from_iterable(parts)))


def table(view: str, event: str, apic_mode: str = "xapic", vector: int | None = None) -> tuple[str, ...]:
    """The items that a view shows of one vCPU after ``event``; the host may show more MSRs."""
    return HOST if view == "host" else guest_view.items(apic_mode, vector, event)
