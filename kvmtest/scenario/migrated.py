# SPDX-License-Identifier: GPL-2.0-only
"""Any scenario with a migration before its event, or after it."""

from __future__ import annotations

from kvmtest.scenario import step as s
from kvmtest.scenario.orders import ORDERS
from kvmtest.uapi.kvm import KVM_EXIT_SHUTDOWN

__all__ = ("MIGRATIONS", "migrated", "ways")

#: The time and the order of the migration: ``before-kvm``.
MIGRATIONS = tuple(f"{when}-{order}" for order in ORDERS for when in ("before", "after"))
#: Steps that leave nothing in a VM that the next plant does not write.
_PLANTING = {s.Plant, s.Observe, s.Reporter, s.Load, s.Send, s.Settle, s.Event, s.Complete}
_NEXT = (s.Word, s.Words, s.In, s.Mmio, s.Exit, s.Quiet, s.Fails)


class _Position:
    """The state of a VM between two steps."""

    def __init__(self) -> None:
        self.running: set[s.Who] = set()
        self.asked: set[s.Who] = set()
        self.down: set[s.Who] = set()

    def past(self, step: s.Step) -> None:
        """Go past ``step``."""
        condition, who = getattr(step, "condition", None), getattr(step, "who", "target")
        if isinstance(step, s.Start):
            self.running.add(who)
        elif isinstance(condition, _NEXT):
            self.running.discard(who)
            self.asked.discard(who)
        if isinstance(condition, (s.In, s.Mmio)):
            # The read has to be completed before the state is whole (KVM API, struct kvm_run).
            self.asked.add(who)
        elif isinstance(condition, s.Exit) and condition.reason == KVM_EXIT_SHUTDOWN:
            self.down.add(who)
        elif isinstance(step, s.Complete):
            self.asked.discard(who)
        elif isinstance(step, s.Send):
            self.down.discard(step.to)

    def stands(self, following: s.Step | None) -> bool:
        """Return True if all state can be saved here: no read is outstanding, and saving does not disturb the next check."""
        owed = isinstance(getattr(following, "condition", None), s.Answer)
        # KVM_GET_MP_STATE, with which saving begins, makes KVM accept the INIT.
        pending = isinstance(following, (s.Until, s.Require)) and following.condition == s.Is("events.smi_latched_init", 1)
        return not self.asked and not self.down and not owed and not pending


def _event(scenario: s.Scenario) -> int | None:
    """The first judged event."""
    for number, step in enumerate(scenario.steps):
        if isinstance(step, s.Event) or isinstance(step, s.Send) and step.judged:
            return number
    return None


def ways(scenario: s.Scenario) -> list[str]:
    """Those of MIGRATIONS that ``scenario`` allows."""
    event = _event(scenario)
    moments = {when for when in ("before", "after") if _place(scenario, when, event) is not None}
    return [how for how in MIGRATIONS if how.partition("-")[0] in moments and _restorable(scenario, how)]


def migrated(scenario: s.Scenario, how: str) -> s.Scenario | None:
    """``scenario`` with a migration as ``how`` says; None where its VM can nowhere be saved."""
    when, _, order = how.partition("-")
    number = _place(scenario, when, _event(scenario))
    if number is None or not _restorable(scenario, how):
        return None
    steps = scenario.steps
    # A state that was entered is left in the new VM only.
    entered = {type(one) for one in steps[:number]} - _PLANTING
    made = (*steps[:number], s.Migrate(order), *steps[number:])
    return scenario._replace(steps=made, fresh=scenario.fresh or bool(entered))


def _restorable(scenario: s.Scenario, how: str) -> bool:
    return set(ORDERS[how.partition("-")[2]].lacks).isdisjoint(scenario.needs)


def _place(scenario: s.Scenario, when: str, event: int | None) -> int | None:
    """The number of the step before which its VM can be saved, ``before`` or ``after`` its ``event``."""
    steps = scenario.steps
    if event is None or any(isinstance(step, s.Do) for step in steps):
        return None
    position = _Position()
    for number, step in enumerate((*steps, None)):
        here = number == event if when == "before" else number > event and not position.running
        if here and position.stands(step):
            return number
        if step is None or when == "before" and number == event:
            return None
        position.past(step)
    return None
