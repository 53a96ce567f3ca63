# SPDX-License-Identifier: GPL-2.0-only
"""Cases by name, and what is judged of one of them, of made-up evidence or of a run."""

from __future__ import annotations

from typing import Any

from kvmtest.engine import plan
from kvmtest.engine.machine import Machines
from kvmtest.engine.plan import SPARSE, Case, Setup
from kvmtest.engine.run import run_case
from kvmtest.judge.cache import Cache
from kvmtest.judge.cases import judge
from kvmtest.judge.evidence import Basis, Played
from kvmtest.model import record
from kvmtest.model.host import Host
from kvmtest.model.record import Result
from kvmtest.scenario import step as s
from kvmtest.scenario.program import DEFAULT_ROUNDS, StressRounds
from kvmtest.scenario.states import STATES
from kvmtest.state.guest_view import Report
from kvmtest.state.sections import Snapshot

__all__ = ("CASES", "NOBODY", "by_item", "by_view", "judged", "ran", "shown", "the")

#: By ``<event>.<trigger>.<view>/<words>``.
CASES: dict[str, plan.Case] = {f"{case.prefix}/{case.words}": case for case in plan.plan()}
#: A host of which no deviation is listed.
NOBODY = Host("6.1.0", "unknown", "unknown", "unknown", {})
#: One vCPU before the event and after it; None where that was not looked at.
_Pair = tuple[Snapshot | None, Snapshot | None]
_MODES = ("xapic", "xapic-flat", "x2apic", "relocated", "disabled")


def the(name: str) -> plan.Case:
    """The case ``<event>.<trigger>.<view>/<words>``, whether it is in the plan or not. Raises ValueError for another name."""
    (event, trigger, view), (target, *words) = (part.split(sep) for part, sep in zip(name.split("/"), ".,", strict=True))
    setup: dict[str, Any] = {"irqchip": "full", "mce": view == "host" and trigger != "create"}
    found: dict[str, Any] = {}
    for word in words:
        head, _, rest = word.partition("-")
        if rest == "irqchip":
            setup["irqchip"] = {"no": "none"}.get(head, head)
        elif word in ("intel", "amd", "no-cpuid"):
            setup["vendor"] = "" if word == "no-cpuid" else word
        elif head == "boot":
            setup["boot_id"] = int(rest.removeprefix("id-"))
        elif rest == "vcpus" or word == "sparse-ids":
            setup["vcpus"] = int(head) if rest == "vcpus" else SPARSE
        elif word in _MODES:
            found["apic_mode"] = word
        elif head == "plant":
            found["plant"] = rest
        elif head == "vector" and rest.isalnum() and len(rest) == 2:
            found["vector"] = int(rest, 16)
        elif word in STATES:
            found["state"] = word
        elif head == "migrated":
            found["migrated"] = rest
        elif word == "logical":
            found["how"] = word
        else:
            raise ValueError(f"no word of a case: {word!r}")
    setup["memory"] = setup.get("vcpus", 2) not in (2, 8) or (trigger, view) == ("vmm-reset", "guest")
    setup["mce"] = setup["mce"] and not setup["memory"]
    setup["x2apic_ids"] = setup.get("vcpus") == SPARSE and found.get("apic_mode") == "x2apic"
    return Case(event, trigger, view, Setup(**setup), target, **found)


def ran(case: plan.Case, machines: Machines, timeout_s: float = 1.0, rounds: StressRounds = DEFAULT_ROUNDS) -> list[Result]:
    """All results of one run of ``case``, but for what KVM keeps of a plant."""
    return _flat(run_case(case, machines, timeout_s, rounds))


def by_view(case: plan.Case, machines: Machines, timeout_s: float = 1.0) -> dict[tuple[str, str], Result]:
    """The results of one run of ``case`` by view and item."""
    return {(result.view, result.item): result for result in ran(case, machines, timeout_s)}


def by_item(case: plan.Case, machines: Machines, timeout_s: float = 1.0) -> dict[str, Result]:
    """The results of one run of ``case`` in its own view, by item."""
    return {result.item: result for result in ran(case, machines, timeout_s) if result.view == case.view}


def judged(case: plan.Case, host: Host, seen: Any, *bases: Basis, plants: bool = False) -> list[Result]:
    """Judge what was ``seen`` of ``case`` with a cache of its own; with ``plants`` also what KVM keeps of a plant."""
    return _flat(judge(Cache(), case.look(), host, bases, seen), plants=plants)


def shown(case: plan.Case, *targets: _Pair, report: Report | None = None, sender: _Pair | None = None) -> Played:
    """Return the evidence of ``case`` with its ``targets`` before and after the event, the ``sender``, and the ``report``."""
    assert case.scenario
    reported: list[tuple[int, Any]] = []
    sent = False
    for number, step in enumerate(case.scenario.steps):
        if isinstance(step, s.Event) or isinstance(step, s.Send) and step.judged:
            sent = True
        elif isinstance(step, s.Guest) and report:
            reported.append((number, report))
        elif isinstance(step, s.Observe) or isinstance(step, s.Expect) and isinstance(step.condition, s.Same):
            pairs = (sender,) if step.who == "other" and sender else targets
            reported += [(number, pair[sent]) for pair in pairs if pair[sent]]
    return Played(tuple(reported))


def _flat(observations: list[record.Observation], *, plants: bool = False) -> list[Result]:
    return [result for seen in observations if plants or seen.trigger != "plant" for result in seen.results]
