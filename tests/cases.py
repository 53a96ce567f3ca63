# SPDX-License-Identifier: GPL-2.0-only
"""Cases of the plan by name, and what is judged of one of them or of a check."""

from __future__ import annotations

from typing import Any

from kvmtest.checks import DEFAULT_EFFORT, Check, Effort, Observation
from kvmtest.engine import plan
from kvmtest.engine.machine import Machines
from kvmtest.engine.run import run_case
from kvmtest.judge.book import Book
from kvmtest.judge.cases import judge
from kvmtest.judge.evidence import Basis, Look
from kvmtest.model import case as named
from kvmtest.model import record
from kvmtest.model.host import Host
from kvmtest.model.record import Result

__all__ = ("CASES", "NOBODY", "by_item", "by_view", "judged", "judged_check", "ran")

#: By ``<event>.<trigger>.<view>/<words>``: a case's name is the same in both views.
CASES: dict[str, plan.Case] = {f"{case.prefix}/{case.words}": case for case in plan.plan()}
#: A host of which no deviation is listed.
NOBODY = Host("6.1.0", "unknown", "unknown", "unknown", {})


def ran(case: plan.Case, machines: Machines, timeout_s: float = 1.0, effort: Effort = DEFAULT_EFFORT) -> list[Result]:
    """All results of one run of ``case``."""
    return _flat(run_case(case, machines, timeout_s, effort))


def by_view(case: plan.Case, machines: Machines, timeout_s: float = 1.0) -> dict[tuple[str, str], Result]:
    """The results of one run of ``case`` by view and item."""
    return {(result.view, result.item): result for result in ran(case, machines, timeout_s)}


def by_item(case: plan.Case, machines: Machines, timeout_s: float = 1.0) -> dict[str, Result]:
    """The results of one run of ``case`` in its own view, by item."""
    return {result.item: result for result in ran(case, machines, timeout_s) if result.view == case.view}


def judged(case: plan.Case, host: Host, seen: Any, *bases: Basis) -> list[Result]:
    """What was ``seen`` of ``case``, judged by a book of its own."""
    return _flat(judge(Book(), case.look(), host, bases, seen))


def judged_check(check: Check, seen: str | Observation, host: Host = NOBODY, vendor: str = "") -> Result:
    """The one result of what a ``check`` has ``seen``."""
    where = (check.event, check.trigger, check.view, vendor, check.target)
    look = Look(named.Case("case"), *where, "check", (check.name,), {check.name: check.cite})
    (result,) = _flat(judge(Book(), look, host, (), check.checked(seen)))
    return result


def _flat(observations: list[record.Observation]) -> list[Result]:
    return [result for seen in observations for result in seen.results]
