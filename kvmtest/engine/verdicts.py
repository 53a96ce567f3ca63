# SPDX-License-Identifier: GPL-2.0-only
"""From what was observed of a case to its results: pure, so that it also works elsewhere than where the case ran.

What has not changed since the last time keeps its result: sections are compared as raw bytes first, and only the items that
differ are decoded and judged anew.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable
from functools import cache
from typing import Any, NamedTuple, Protocol

from kvmtest import spec
from kvmtest.engine import guest
from kvmtest.engine.judge import Context, Seen, judge, judge_views
from kvmtest.engine.plan import Case, items
from kvmtest.engine.result import Host, Result
from kvmtest.spec.rule import Rule
from kvmtest.state.layout import Layout, text
from kvmtest.state.plant import Plant
from kvmtest.state.snapshot import Snapshot
from kvmtest.x86.cpuid import FOLLOWS

__all__ = ("Basis", "Evidence", "Judge", "Judging", "Verdicts")

_XSTATE_HEADER = range(512, 576)


class Basis(NamedTuple):
    """What is known of one vCPU of a case before it runs: what rules depend on, where items lie, its state at creation and its
    plant, both None for a new vCPU.
    """

    ctx: Context
    layout: Layout
    baseline: Snapshot | None
    plant: Plant | None


class Evidence(NamedTuple):
    """What one vCPU showed: its state ``before`` the event, None for a new vCPU, and ``after`` it, None where it ran on at once;
    the guest's ``report`` where it was asked for one.
    """

    before: Snapshot | None
    after: Snapshot | None
    report: guest.Report | None = None


class _Places:
    """Which item a byte of a section belongs to."""

    def __init__(self, layout: Layout, section: str) -> None:
        placed = sorted((layout.fields[item].offset, item) for item in layout.by_section[section])
        self.items = [item for _, item in placed]
        self._starts = [offset for offset, _ in placed]
        self._ends = [offset + layout.fields[item].size for offset, item in placed]

    def changed(self, section: str, old: bytes, new: bytes) -> set[str]:
        """The items in which ``old`` and ``new`` differ; all of them where the XSAVE header does."""
        found: set[str] = set()
        difference = int.from_bytes(old, "little") ^ int.from_bytes(new, "little")
        while difference:
            byte = (difference & -difference).bit_length() - 1 >> 3
            if section == "xsave" and byte in _XSTATE_HEADER:
                return set(self.items)
            i = bisect_right(self._starts, byte) - 1
            end = byte + 1
            if i >= 0 and byte < self._ends[i]:
                found.add(self.items[i])
                end = self._ends[i]
            difference = difference >> 8 * end << 8 * end
        return found


@cache
def _places(layout: Layout) -> dict[str, _Places]:
    return {section: _Places(layout, section) for section in layout.by_section}


class Verdicts:
    """The results of a case by item, kept up to date from snapshots; ``judged`` names those that the last update judged.

    ``rule`` gives the case's own rules, where it does not go by the manuals'.
    """

    def __init__(self, case: Case, basis: Basis, rule: Callable[[str], Rule | None] = lambda item: None) -> None:
        self.case = case
        self._rule = rule
        self.ctx, self.layout, self.baseline, self.plant = basis
        self.results: dict[str, Result] = {}
        self.judged: Collection[str] = ()
        self._places = _places(self.layout)
        self._before: Snapshot | None = None
        self._after: Snapshot | None = None

    def of(self, seen: Evidence) -> Collection[Result]:
        """The results of the case in each of its views."""
        if seen.report is None:
            assert seen.after
            return self.update(seen.before, seen.after).values()
        names = items(self.case)
        return [
            *(judge(item, self.ctx, self.told(item, seen.before, seen.report), self._rule(item)) for item in names),
            *(self.compared(item, seen.after, seen.report) for item in names),
        ]

    def update(self, before: Snapshot | None, after: Snapshot, anew: Iterable[str] = ()) -> dict[str, Result]:
        """Judge what is new in these snapshots, and ``anew``; all results, in the order of the project's tables."""
        old_before, old_after = self._before, self._after
        first = old_after is None or old_after.unreadable != after.unreadable
        if before is not None and old_before is not None:
            first = first or old_before.unreadable != before.unreadable
        if old_after is None or first:
            known = (item for item in spec.ENTRIES if item not in spec.SYNTHETIC)
            names = dict.fromkeys((*known, *self.layout.fields))
        else:
            changed = self._changed(old_after, after)
            if before is not None and old_before is not None:
                changed |= self._changed(old_before, before)
            names = dict.fromkeys((*changed, *anew))
        for item in names:
            self.results[item] = judge(item, self.ctx, self.seen(item, before, after), self._rule(item))
        self.judged = names
        self._before, self._after = before, after
        return self.results

    def _changed(self, old: Snapshot, new: Snapshot) -> set[str]:
        found: set[str] = set()
        for section, contents in new.sections.items():
            before = old.sections.get(section, b"")
            if contents != before:
                found |= self._places[section].changed(section, before, contents)
        return found

    def seen(self, item: str, before: Snapshot | None, after: Snapshot) -> Seen:
        """The values of ``item`` as the judge takes them."""
        if item not in self.layout.fields:
            return Seen(None, None, None, unreadable=self.layout.missing.get(item, "no ioctl shows it"))
        observed = after.get(self.layout, item)
        seen = self.values(item, before, observed)
        return seen if observed is not None else seen._replace(failed=after.why(self.layout, item))

    def values(self, item: str, before: Snapshot | None, observed: int | None) -> Seen:
        """``observed`` with what was planted and what was there at creation."""
        baseline = self.baseline.get(self.layout, item) if self.baseline else None
        planted = before.get(self.layout, item) if before else None
        lost = before is not None and planted is None and item in self.layout.fields
        failed = before.why(self.layout, item) if before is not None and lost else ""
        return Seen(planted, baseline, observed, self._refusal(item, planted), failed=failed)

    def told(self, item: str, before: Snapshot | None, report: guest.Report) -> Seen:
        """The values of ``item`` where the guest's ``report`` is what was observed."""
        seen = self.values(item, before, report.values.get(item))
        missing = report.missing.get(item, "")
        failed = "" if missing else seen.failed
        if seen.observed is None and not missing:
            failed = report.problem or "the guest did not tell"
        return seen._replace(
            planted=guest.shown(item, seen.planted, report.narrow),
            baseline=guest.shown(item, seen.baseline, report.narrow),
            unreadable=missing,
            failed=failed,
        )

    def _refusal(self, item: str, planted: int | None) -> str:
        if self.plant is None:
            return ""
        if why := self.layout.missing.get(item) or self.layout.missing_sections.get(FOLLOWS.get(item, "")):
            return why
        if item in self.plant.refused:
            return self.plant.refused[item]
        asked = self.plant.asked.get(item)
        if asked is None:
            return self.plant.reason(item)
        if planted != asked:
            return f"KVM kept {text(item, planted)} when {text(item, asked)} was planted"
        return ""

    def compared(self, item: str, after: Snapshot | None, report: guest.Report) -> Result:
        """The result of holding what the host read of ``item`` against the guest's ``report``."""
        both = self.case._replace(view="views")
        ctx = self.ctx._replace(prefix=both.prefix, case=both.name)
        told, missing, problem = report.values.get(item), report.missing.get(item, ""), report.problem
        if after is None:
            return judge_views(item, ctx, None, told, problem, missing, "the vCPU ran on before the host could read it")
        host = guest.shown(item, after.get(self.layout, item), report.narrow)
        if item not in self.layout.fields:
            return judge_views(item, ctx, None, told, problem, missing, self.layout.missing.get(item, ""))
        lost = after.why(self.layout, item) if host is None else ""
        return judge_views(item, ctx, host, told, problem, missing, lost=lost)


class Judge(Protocol):
    """What makes results of the evidence of one case; which kind of evidence depends on the case."""

    def of(self, seen: Any) -> Collection[Result]:
        """The results, as far as they are made here."""


#: Makes the Judge of a case on a host, for the vCPUs that it takes; for none where it could not be tried.
Judging = Callable[[Case, Host, tuple[Basis, ...]], Judge]
