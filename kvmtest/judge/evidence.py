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
    """The part of a plant that judging needs: the values written, and KVM's refusals, by item."""

    asked: dict[str, int]
    refused: dict[str, str]

    def reason(self, item: str) -> str:
        """Return the reason for having no value for ``item``."""


class Look(NamedTuple):
    """The part of a case that one of its views judges.

    The steps of its ``scenario`` say the rest. It is None where a vCPU is written back to RESET; then ``items`` are the items of
    the project's tables that the view judges.
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
    """Facts about one vCPU before a case runs: the context of the rules, the layout of the items, its state at creation and its
    plant, both None for a new vCPU.
    """

    ctx: Context
    layout: Layout
    baseline: Snapshot | None
    plant: Planted | None


class Evidence(NamedTuple):
    """Evidence of one vCPU: its state ``before`` the event, None for a new vCPU, and ``after`` it, None if it ran on at once;
    and the guest's ``report``, if requested.
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
    """Evidence of a VMM's reset: the guest's report on the ``new`` vCPU (None in the host's view), the ``read_only`` MSRs with
    the error, and the state after each order of ioctls.
    """

    new: Report | None
    read_only: dict[str, str]
    tries: tuple[ResetTry, ...]


class Exited(NamedTuple):
    """The next thing that a vCPU did.

    ``kind`` is ``out``, ``in``, ``mmio``, ``exit``, ``quiet`` or ``errno``; ``number`` the port, the guest-physical address,
    KVM_EXIT_* or the errno, ``value`` the value of an OUT, ``text`` the whole exit in a line.
    """

    kind: str
    number: int
    value: int | None
    text: str


class Ended(NamedTuple):
    """The early end of a program: at an op of ``step``, with the ``verdict`` that results.

    ``late`` is set if something did not come in time.
    """

    step: int
    verdict: str
    why: str
    late: bool = False


class Played(NamedTuple):
    """The results of a program, in order: the number of the step, and a value, an Exited, a Snapshot, a Report or a Measured."""

    evidence: tuple[tuple[int, Any], ...]
    end: Ended | None = None


class Measured(NamedTuple):
    """Counts by item: the number, and a description of it."""

    counts: dict[str, tuple[int, str]]


class Untried(NamedTuple):
    """In the place of evidence: every item of the case gets this ``verdict``, ``skip`` or ``error``.

    ``late`` is whether something did not come in time.
    """

    verdict: str
    reason: str
    late: bool = False


class Again(NamedTuple):
    """Evidence of a second try (``seen``), with what the ``first`` one lacked."""

    seen: Any
    first: str
