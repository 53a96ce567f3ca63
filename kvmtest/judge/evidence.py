# SPDX-License-Identifier: GPL-2.0-only
"""Evidence: what a case showed, before anybody judges it. Raw sections, and what guests reported."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

from kvmtest.judge.item import Context
from kvmtest.model.case import Case
from kvmtest.scenario.looks import table
from kvmtest.scenario.step import Scenario
from kvmtest.state.guest_view import Report
from kvmtest.state.layout import Layout
from kvmtest.state.sections import Snapshot

__all__ = (
    "Again",
    "Basis",
    "Ended",
    "Evidence",
    "Exited",
    "Look",
    "Measured",
    "Planted",
    "Played",
    "ResetSeen",
    "ResetTry",
    "Untried",
)



class Planted(Protocol):
    """As much of a plant as judging needs: the values asked for, and KVM's refusals, by item."""

    asked: dict[str, int]
    refused: dict[str, str]

    def reason(self, item: str) -> str:
        """Why it has no value for ``item``."""


class Look(NamedTuple):
    """What is to be judged of a case, in one of its views.

    The steps of its ``scenario`` say the rest; it has none where a vCPU is written back to RESET. Then ``items`` are those of the
    project's tables that the view judges.
    """

    case: Case
    event: str
    trigger: str
    view: str
    vendor: str
    target: str
    items: tuple[str, ...]
    scenario: Scenario | None = None
    apic_mode: str = "xapic"
    vector: int | None = None

    def names(self, view: str, event: str) -> tuple[str, ...]:
        """The items that a scenario's ``view`` shows after ``event``; ``vector`` is that of the SIPI that starts its guest."""
        return table(view, event, self.apic_mode, self.vector)


class Basis(NamedTuple):
    """What is known of one vCPU of a case before it runs: what rules depend on, where items lie, its state at creation and its
    plant, both None for a new vCPU.
    """

    ctx: Context
    layout: Layout
    baseline: Snapshot | None
    plant: Planted | None


class Evidence(NamedTuple):
    """What one vCPU showed: its state ``before`` the event, None for a new vCPU, and ``after`` it, None where it ran on at once;
    the guest's ``report`` where it was asked for one.
    """

    before: Snapshot | None
    after: Snapshot | None
    report: Report | None = None


class ResetTry(NamedTuple):
    """A used vCPU that was written back in one ``order`` of the ioctls; ``refused`` is KVM's error by section or item."""

    order: tuple[str, ...]
    refused: dict[str, str]
    seen: Evidence


class ResetSeen(NamedTuple):
    """What the guest reported on the ``new`` vCPU (None in the host's view), the MSRs that are ``read_only`` with the error, and
    what each order left.
    """

    new: Report | None
    read_only: dict[str, str]
    tries: tuple[ResetTry, ...]


class Exited(NamedTuple):
    """What a vCPU did next.

    ``kind`` is ``out``, ``in``, ``mmio``, ``exit``, ``quiet`` or ``errno``; ``number`` the port, the guest-physical address,
    KVM_EXIT_* or the errno, ``value`` what an OUT wrote, ``text`` the whole exit in a line.
    """

    kind: str
    number: int
    value: int | None
    text: str


class Ended(NamedTuple):
    """Where a program ended before its end: at an op of ``step``, with the ``verdict`` that this gives.

    ``late`` is whether something did not come in time.
    """

    step: int
    verdict: str
    why: str
    late: bool = False


class Played(NamedTuple):
    """What a program ``told``, in order: the number of the step, and a value, an Exited, a Snapshot, a Report or a Measured."""

    told: tuple[tuple[int, Any], ...]
    end: Ended | None = None


class Measured(NamedTuple):
    """What was counted, by item: the number, and what goes with it in words."""

    counts: dict[str, tuple[int, str]]


class Untried(NamedTuple):
    """In the place of evidence: every item of the case gets this ``verdict``, ``skip`` or ``error``.

    ``late`` is whether something did not come in time.
    """

    verdict: str
    reason: str
    late: bool = False


class Again(NamedTuple):
    """What was ``seen`` at the second try, and what the ``first`` one lacked."""

    seen: Any
    first: str
