# SPDX-License-Identifier: GPL-2.0-only
"""The judge of each kind of case, and of cases that could not be tried."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from kvmtest.judge.cache import Cache, Tables
from kvmtest.judge.differing import differences
from kvmtest.judge.evidence import Again, Basis, Look, ResetSeen, Untried
from kvmtest.judge.item import BOTH_VIEWS, Context
from kvmtest.judge.many import merged
from kvmtest.judge.scenario import played
from kvmtest.judge.tries import second
from kvmtest.model.host import Host
from kvmtest.model.record import Block, Observation, Record
from kvmtest.model.verdict import Verdict
from kvmtest.spec.cite import KVM_API
from kvmtest.spec.rule import Rule, cited, formula, undefined
from kvmtest.spec.untouched import COUNTERS
from kvmtest.state.guest_view import Report
from kvmtest.state.layout import Layout
from kvmtest.state.sections import Snapshot
from kvmtest.x86.cpuid import FOLLOWS
from kvmtest.x86.msr import IN_SREGS

__all__ = ("RESTS_ON", "Judging", "differences", "judge")

#: Judges the evidence of a case on a host, for its vCPUs; for none if it could not be tried.
Judging = Callable[[Look, Host, tuple[Basis, ...], Any], list[Observation]]
#: The source for comparing a vCPU that was reset with a new one.
_AS_NEW = ("a vCPU that was reset is as a new one", KVM_API)
_TSC = cited(formula("TSC-new", "counts on from what was written"), *_AS_NEW)
_COUNTS = cited(undefined("it counts by itself"), *_AS_NEW)
#: By section those without which it cannot be written back as it was (kvmtest.state.vmm_reset, CONSTRAINTS).
RESTS_ON = {
    "lapic": ("sregs", "nested"),
    **dict.fromkeys(("sregs", "msrs", "regs", "debugregs", "events"), ("nested",)),
}


def judge(cache: Cache, look: Look, host: Host, bases: tuple[Basis, ...], seen: Any) -> list[Observation]:
    """Judge what was ``seen`` of a case, in each of its views."""
    if isinstance(seen, Again):
        return [_again(cache, one, seen.first) for one in judge(cache, look, host, bases, seen.seen)]
    if look.scenario:
        return played(cache, look, host, bases, seen)
    found: dict[str, tuple[Block, ...]]
    if isinstance(seen, Untried):
        found = _untried(cache, look, seen)
    else:
        found = _reset(cache, look, bases[0], seen)
    return [Observation(look.case, look.event, look.trigger, view, blocks) for view, blocks in found.items()]


def _again(cache: Cache, seen: Observation, first: str) -> Observation:
    """An observation of a second try."""
    return seen._replace(blocks=tuple(cache.block(second(record, first) for record in block.records) for block in seen.blocks))


def _untried(cache: Cache, look: Look, seen: Untried) -> dict[str, tuple[Block, ...]]:
    """One record for each item in each view."""
    verdict, reason = Verdict(seen.verdict), seen.reason
    made = [Record(item, verdict, reason=reason, cite=_AS_NEW) for item in look.items]
    found: dict[str, tuple[Block, ...]] = {look.view: (cache.block(made),)}
    if look.view == "guest":
        found["views"] = (cache.block(record._replace(cite=(BOTH_VIEWS,)) for record in made),)
    return found


# Resets by ioctls


def _reset(cache: Cache, look: Look, basis: Basis, seen: ResetSeen) -> dict[str, tuple[Block, ...]]:
    """The worst of each item over all orders, in each of the case's views."""
    ctx, layout, baseline, plant = basis
    assert baseline
    labels = [">".join(one.order) for one in seen.tries]
    views: dict[str, list[tuple[Block, ...]]] = {}
    for _, refused, (before, after, report) in seen.tries:
        why = partial(_refused, layout, refused, seen.read_only)
        if seen.new is None:
            assert after
            tables = cache.tables(ctx, layout, partial(_as_new, layout, baseline), ("new", *baseline.sections.values()))
            shown = tables.host(ctx, baseline, plant, before, after)
            views.setdefault("host", []).append(_explained(cache, shown, why))
        else:
            assert report
            guest, both = _reported(cache, ctx, look, basis, seen.new, before, after, report)
            views.setdefault("guest", []).append(_explained(cache, guest, why))
            views.setdefault("views", []).append(_explained(cache, both, partial(_still, layout, refused)))
    return {view: merged("orders", labels, blocks, cache) for view, blocks in views.items()}


def _reported(
    cache: Cache,
    ctx: Context,
    look: Look,
    basis: Basis,
    new: Report,
    before: Snapshot | None,
    after: Snapshot | None,
    report: Report,
) -> tuple[tuple[Block, ...], tuple[Block, ...]]:
    """Compare the guest's report after a reset with its report on the ``new`` vCPU."""
    key = ("new", *new.values.items(), *new.missing.items(), new.problem)
    tables: Tables = cache.tables(ctx, basis.layout, partial(_as_reported, new), key)
    about = (basis.baseline, basis.plant, before, after)
    guest, both = tables.guest(ctx, look.items, *about, report)
    lost = [item for item in look.items if item not in new.values]
    if lost:
        # Without a value to compare with there is nothing to judge, whatever the guest reports now.
        values = {item: value for item, value in report.values.items() if item in new.values}
        missing = {item: reason for item, reason in report.missing.items() if item in new.values}
        why = {item: new.missing[item] for item in lost if item in new.missing}
        problem = report.problem if len(why) == len(lost) else new.problem or "the guest did not report it"
        compared = report._replace(values=values, missing=missing | why, problem=problem)
        guest, _ = tables.guest(ctx, look.items, *about, compared)
    return guest, both


def _as_new(layout: Layout, baseline: Snapshot, item: str) -> Rule:
    if item == "msr.tsc":
        return _TSC
    new = baseline.get(layout, item)
    # The local APIC's timer counts no more: RESET stops it.
    if new is None or item in COUNTERS and item != "lapic.timer_current":
        return _COUNTS
    return Rule("value", value=new, cite=_AS_NEW)


def _as_reported(new: Report, item: str) -> Rule:
    if item == "msr.tsc":
        return _TSC
    return _COUNTS if item in COUNTERS else Rule("value", value=new.values.get(item) or 0, cite=_AS_NEW)


def _refused(
    layout: Layout, refused: Mapping[str, str], read_only: Mapping[str, str], record: Record
) -> Record:
    """The ``record``; of what failed it says why it was not written. It is an error where KVM refused the whole section that it
    lies in, follows or rests on, a skip where this KVM does not show that: there was nothing to write back.
    """
    item = record.item
    if record.verdict is Verdict.ERROR:
        return _half_done(layout, refused, record)
    if record.verdict is not Verdict.FAIL:
        return record
    if why := layout.missing.get(item) or layout.missing_sections.get(FOLLOWS.get(item, "")):
        return record._replace(verdict=Verdict.SKIP, reason=why)
    section = FOLLOWS.get(item) or layout.fields[item].section
    for one in (section, *RESTS_ON.get(section, ()), *(("sregs",) if item in IN_SREGS else ())):
        if one in refused:
            return record._replace(verdict=Verdict.ERROR, reason=refused[one])
    return record._replace(reason=refused.get(item) or read_only.get(item, ""))


def _still(layout: Layout, refused: Mapping[str, str], record: Record) -> Record:
    """The ``record`` of comparing both views; an error where KVM refused the section, as what is left there may change meanwhile,
    and shows no deviation of RESET's values.
    """
    if record.verdict is Verdict.ERROR:
        return _half_done(layout, refused, record)
    if record.verdict not in (Verdict.FAIL, Verdict.FIXED) or (section := layout.fields[record.item].section) not in refused:
        return record
    return record._replace(verdict=Verdict.ERROR, reason=refused[section], deviation=None)


def _half_done(layout: Layout, refused: Mapping[str, str], record: Record) -> Record:
    """The ``record`` of what a guest did not report: it may lack a section that KVM refused."""
    sections = [why for name, why in refused.items() if name in layout.by_section]
    return record._replace(reason=f"{sections[0]}; {record.reason}") if sections else record


def _explained(cache: Cache, blocks: tuple[Block, ...], refused: Callable[[Record], Record]) -> tuple[Block, ...]:
    """``blocks``, with what KVM refused said of each record that it may explain."""
    such = (Verdict.FAIL, Verdict.ERROR, Verdict.FIXED)
    changed = [any(block.counts[one] for one in such) for block in blocks]
    return tuple(cache.block(map(refused, one.records)) if new else one for one, new in zip(blocks, changed, strict=True))
