# SPDX-License-Identifier: GPL-2.0-only
"""Takes a snapshot: the engine runs one case, and its observations are kept instead of judged."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from kvmtest.compare.snapshot import Item, State
from kvmtest.engine.bind import BoundCase
from kvmtest.engine.error import TriggerError
from kvmtest.engine.machine import Machines
from kvmtest.engine.plan import Case, plan
from kvmtest.judge.cache import Cache
from kvmtest.judge.differing import unproven
from kvmtest.judge.evidence import Basis, Evidence, Played
from kvmtest.model.value import text
from kvmtest.state.guest_view import Report
from kvmtest.state.sections import Snapshot
from kvmtest.state.values import NEW, PLANTS

__all__ = ("NONE", "NoCase", "Criteria", "candidates", "choose", "named", "take")

#: The name in ``--plant`` of a vCPU without a plant.
NONE = "none"
#: The defaults.
_TRIGGERS = {"reset": "create", "init": "msi", "sipi": "msi", "shutdown": "triple-fault"}
_TARGETS = {"init": "ap", "sipi": "ap"}


class NoCase(ValueError):
    """No case meets the criteria; one line lists the choices."""


class Criteria(NamedTuple):
    """The properties of the case to find; None for any."""

    event: str
    trigger: str | None = None
    view: str | None = None
    target: str | None = None
    mode: str | None = None
    vendor: str | None = None
    plant: str | None = None
    state: str | None = None


@cache
def candidates() -> tuple[Case, ...]:
    """The cases that leave one vCPU with one state: the full plan's, and those that differ from them only in the plant."""
    # The host's ioctls show all that the guest reports.
    both = dict.fromkeys(one for case in plan(full=True) for one in (case._replace(view="host"), case))
    found = [case for case in both if _leaves_one_state(case)]
    by_host = [case for case in found if case.view == "host" and case.plant in PLANTS]
    more = [case._replace(plant=plant) for case in by_host for plant in (*PLANTS, NEW)]
    by_name: dict[tuple[str, str], Case] = {}
    for case in found + more:
        by_name.setdefault((case.prefix, case.words), case)
    return tuple(by_name.values())


def _leaves_one_state(case: Case) -> bool:
    # A broadcast in the host's view has many vCPUs, vmm-reset a state for each order of the ioctls.
    many = case.many and case.view == "host"
    return case.scenario is not None and not case.sequence and case.event in _TRIGGERS and not many


def named(name: str) -> Case:
    """The case that results call ``name``, in the host's view if there is one; with the view after the trigger, in that.

    Raises NoCase.
    """

    def called(case: Case) -> bool:
        return name in (case.name, f"{case.prefix}/{case.words}")

    found = [case for case in candidates() if called(case)]
    if found:
        return min(found, key=lambda case: case.view != "host")
    if any(map(called, plan(full=True))):
        raise NoCase(f"{name} does not end with one state of one vCPU: it has steps of its own, or several vCPUs or orders")
    raise NoCase(f"no case is called {name!r}: kvmtest list --full --cases shows them all")


def choose(criteria: Criteria, vendor: str) -> Case:
    """The case that is as ``criteria``, and usual in what that leaves open; ``vendor`` is the usual one. Raises NoCase."""
    found = list(candidates())
    for option, value in criteria._asdict().items():
        if value is None:
            continue
        fitting = [case for case in found if _part(case, option) == value]
        if not fitting:
            have = ", ".join(sorted({_part(case, option) or NONE for case in found}))
            raise NoCase(f"no such case has --{option} {value}: there is {have}")
        found = fitting
    event = criteria.event
    usual = {
        "trigger": _TRIGGERS[event],
        "view": "host",
        "target": _TARGETS.get(event, "bsp"),
        "mode": "xapic",
        "vendor": vendor,
        "state": "",
        "plant": "a",
    }

    def unusual(case: Case) -> tuple[bool, ...]:
        setup = case.setup
        odd = (setup.irqchip != "full", setup.boot_id != 0, setup.vcpus != 2, bool(case.how))
        return (*(_part(case, option) != value for option, value in usual.items()), *odd)

    return min(found, key=unusual)


def _part(case: Case, option: str) -> str:
    """Return the value of a property of ``case``."""
    if option == "vendor":
        return case.setup.vendor
    if option == "mode":
        return case.apic_mode
    if option == "plant":
        return NONE if case.plant in ("", NEW) else case.plant
    return str(getattr(case, option))


def take(case: Case, machines: Machines, timeout_s: float, taken: str) -> State:
    """Run ``case`` on a new VM. Raises SetupError, TriggerError if it does not finish, and the errors of BoundCase."""
    machine = machines.fresh(case.setup)
    try:
        bound = BoundCase(case, machine, machines.host, timeout_s)
        played = bound.observe()
    finally:
        machine.close()
    if played.end:
        raise TriggerError(played.end.why)
    basis, shown = bound.bases[0], _evidence(case, played)
    if shown.before and shown.after:
        silent = bool(case.scenario and case.scenario.silent)
        if why := unproven(basis.layout, case.event, shown.before, shown.after, silent=silent):
            raise TriggerError(why)
    parts = ("event", "trigger", "view", "target", "mode", "plant", "vendor")
    made = {"case": case.name, **{part: _part(case, part) for part in parts}}
    return State("", machines.host, taken, made, _items(case, basis, shown))


def _evidence(case: Case, played: Played) -> Evidence:
    """The states before and after the event, and the guest's report, from all results."""
    seen = [value for _, value in played.evidence if isinstance(value, Snapshot)]
    report = next((value for _, value in played.evidence if isinstance(value, Report)), None)
    return Evidence(None if case.event == "reset" else seen[0], seen[-1], report if case.view == "guest" else None)


def _items(case: Case, basis: Basis, shown: Evidence) -> dict[str, Item]:
    ctx, layout, baseline, plant = basis
    tables = Cache().tables(ctx, layout)
    found: dict[str, Item] = {}
    names = case.look().names(case.view, case.event)
    for name in names if case.view != "host" else dict.fromkeys((*names, *layout.fields)):
        seen = tables.seen(name, baseline, plant, shown)
        why = "" if seen.observed is not None else seen.failed or seen.unreadable or "not readable here"
        planted = text(name, seen.planted)
        found[name] = Item(text(name, seen.observed), planted, why, seen.refused if planted is not None else "")
    return found
