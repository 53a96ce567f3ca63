# SPDX-License-Identifier: GPL-2.0-only
"""Judge what a scenario told: each expectation, and the whole table where it was read.

The first expectation that does not hold ends the scenario: what comes after it is not judged.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from typing import Any

from kvmtest.judge.book import Book
from kvmtest.judge.evidence import Basis, Exited, Look, Played, Untried
from kvmtest.judge.item import excused
from kvmtest.model.host import Host
from kvmtest.model.record import OUT_OF_TIME, Block, Observation, Record
from kvmtest.model.value import Expected, Value
from kvmtest.model.verdict import Verdict
from kvmtest.scenario import looks as of
from kvmtest.scenario import memory
from kvmtest.scenario import step as s
from kvmtest.spec.untouched import COUNTERS
from kvmtest.state.guest_view import Report
from kvmtest.state.layout import Layout
from kvmtest.state.sections import Snapshot

__all__ = ("differences", "played")

_Key = tuple[str, str, str]
#: What `Same` expects.
_NOTHING = "nothing changed"
_APIC_EN, _APIC_EXTD = 1 << 11, 1 << 10


def differences(layout: Layout, before: Snapshot, after: Snapshot, but: Iterable[str] = ()) -> list[str]:
    """The items whose values differ, without those that count on by themselves and those of ``but``."""
    left_out = COUNTERS.union(but)
    found = []
    for section, names in layout.by_section.items():
        if before.sections.get(section) != after.sections.get(section):
            found += [item for item in names if before.get(layout, item) != after.get(layout, item)]
    return [item for item in found if item not in left_out]


def _apic_mode(snapshot: Snapshot, layout: Layout) -> str:
    """The mode of the local APIC, as rules depend on it."""
    base = snapshot.get(layout, "apic_base")
    if base is None or base & _APIC_EN:
        return "x2apic" if base and base & _APIC_EXTD else "xapic"
    return "disabled"


class _Judge:
    def __init__(self, book: Book, look: Look, host: Host, basis: Basis | None) -> None:
        assert look.scenario
        self.scenario = look.scenario
        self.book, self.look, self.host, self.basis = book, look, host, basis
        self.blocks: dict[_Key, list[Block]] = {}
        self.records: dict[_Key, dict[str, Record]] = {}
        self.guest = ""
        #: That of the last event.
        self.vector: int | None = None

    def observations(self) -> list[Observation]:
        """All that was judged, one observation for each event, trigger and view."""
        keys = dict.fromkeys((*self.records, *self.blocks))
        return [Observation(self.look.case, *key, (*self._behaviours(key), *self.blocks.get(key, ()))) for key in keys]

    def _behaviours(self, key: _Key) -> tuple[Block, ...]:
        records = self.records.get(key)
        return (self.book.block(records.values()),) if records else ()

    # One step

    def expect(self, look: of.Look, condition: s.Condition, observed: Value, wanted: Value, reason: str = "") -> bool:
        """The record of an expectation; whether it holds."""
        holds = observed == wanted
        undefined = self.scenario.undefined
        verdict = Verdict.INFO if undefined else Verdict.PASS if holds else Verdict.FAIL
        expected = None if undefined else Expected((wanted,))
        reason = "; ".join(filter(None, (undefined, reason)))
        record = Record(look.item, verdict, None, expected, observed, reason, self.scenario.cite)
        self.keep(look, record)
        return holds

    def keep(self, look: of.Look, record: Record) -> None:
        """Keep the record of a behaviour; a deviation that is listed may explain it."""
        where = f"{look.event}.{look.trigger}.{look.view}"
        vendor, target = self.look.vendor, self.look.target
        record = excused(record, f"{where}.{record.item}", self.host, look.event, vendor, target, look.view, self.look.case.name)
        self.records.setdefault((look.event, look.trigger, look.view), {})[record.item] = record

    def untried(self, look: of.Look, verdict: Verdict, why: str) -> None:
        """What could not be observed."""
        key = (look.event, look.trigger, look.view)
        if look.item != of.TABLE:
            if look.item not in self.records.get(key, {}):
                self.records.setdefault(key, {})[look.item] = Record(look.item, verdict, reason=why, cite=self.scenario.cite)
        elif key not in self.blocks:
            names = of.table(look.view, look.event)
            self.blocks[key] = [self.book.block(Record(name, verdict, reason=why) for name in names)]

    def host_table(self, look: of.Look, rule: str, before: Snapshot | None, after: Snapshot) -> None:
        """The whole table in the host's view."""
        assert self.basis
        ctx, layout, baseline, plant = self.basis
        mode = _apic_mode(before or after, layout)
        prefix = f"{rule or look.event}.{look.trigger}.host"
        ctx = ctx._replace(prefix=prefix, before=before is not None, vector=self.vector, apic_mode=mode)
        sheet = self.book.sheet(ctx, layout)
        self.blocks[look.event, look.trigger, "host"] = list(sheet.host(ctx, baseline, plant, before, after))

    def guest_table(self, look: of.Look, before: Snapshot | None, after: Snapshot | None, report: Report) -> None:
        """The whole table in the guest's view, and both compared."""
        assert self.basis
        ctx, layout, baseline, plant = self.basis
        ctx = ctx._replace(prefix=f"{look.event}.{look.trigger}.guest")
        names = of.table("guest", look.event)
        told, both = self.book.sheet(ctx, layout).guest(ctx, names, baseline, plant, before, after, report)
        self.blocks[look.event, look.trigger, "guest"] = list(told)
        self.blocks[look.event, look.trigger, "views"] = list(both)

    # Conditions in words

    def shown(self, exited: Exited, item: str) -> Value:
        """What a vCPU did next."""
        if exited.kind == "quiet":
            return s.Quiet().says
        if exited.kind == "out":
            for name, says in memory.words(self.guest):
                if memory.number(self.guest, f"PORT_{name}") == exited.number:
                    if item != "runs" and exited.value is not None:
                        return exited.value
                    return says if exited.value is None or name in memory.PLAIN else f"{says} {exited.value:#x}"
        return exited.text


def played(book: Book, look: Look, host: Host, basis: Basis | None, seen: Played | Untried) -> list[Observation]:
    """What a program told, judged."""
    judge = _Judge(book, look, host, basis)
    scenario = judge.scenario
    if isinstance(seen, Untried):
        for one in of.looks(scenario):
            judge.untried(one, Verdict(seen.verdict), seen.reason)
        return judge.observations()
    told: dict[int, list[Any]] = {}
    for number, value in seen.told:
        told.setdefault(number, []).append(value)
    at = {one.step: one for one in of.looks(scenario) if one.view != "views"}
    last: dict[s.Who, Snapshot] = {}
    before: dict[s.Who, Snapshot] = {}
    for number, step in enumerate(scenario.steps):
        values = told.get(number, [])
        if isinstance(step, s.Load) and step.guest != memory.SMRAM:
            judge.guest = step.guest
        elif isinstance(step, s.Send) and step.judged or isinstance(step, s.Event):
            before = dict(last)
            judge.vector = step.vector if isinstance(step, s.Send) else None
        who = getattr(step, "who", "target")
        if number in at and values and not _one(judge, at[number], step, values[-1], before.get(who), last.get(who)):
            return judge.observations()
        if values and isinstance(values[-1], Snapshot):
            last[who] = values[-1]
    if seen.end:
        verdict = Verdict(seen.end.verdict)
        why = f"{OUT_OF_TIME}: {seen.end.why}" if seen.end.late and verdict is Verdict.ERROR else seen.end.why
        for one in of.looks(scenario):
            if one.step >= seen.end.step:
                judge.untried(one, verdict, why)
    return judge.observations()


def _one(judge: _Judge, look: of.Look, step: s.Step, value: Any, before: Snapshot | None, last: Snapshot | None) -> bool:
    """Judge what one step told; False for an expectation that does not hold."""
    if isinstance(step, s.Observe):
        judge.host_table(look, step.rule, before, value)
        return True
    if isinstance(step, s.Guest):
        judge.guest_table(look, before, last if last is not before else None, value)
        return True
    assert isinstance(step, s.Expect)
    condition = step.condition
    if isinstance(condition, s.Same):
        assert judge.basis and last
        layout = judge.basis.layout
        lost = filter(None, (one.lost(layout, section) for section in layout.by_section for one in (last, value)))
        if why := next(lost, ""):
            judge.untried(look, Verdict.ERROR, why)
            return True
        found = differences(layout, last, value, condition.but)
        return judge.expect(look, condition, f"{', '.join(found)} changed" if found else _NOTHING, _NOTHING)
    if isinstance(condition, s.Zero):
        assert judge.basis
        read = {item: value.get(judge.basis.layout, item) for item in condition.items}
        for item in (item for item, seen in read.items() if seen is None):
            why = value.why(judge.basis.layout, item) if item in judge.basis.layout.fields else ""
            judge.untried(look._replace(item=item), Verdict.ERROR if why else Verdict.SKIP, why or "not readable here")
        shown = [judge.expect(look._replace(item=item), condition, seen, 0) for item, seen in read.items() if seen is not None]
        return all(shown)
    if isinstance(value, Exited):
        wanted = _wanted(judge, condition, value)
        return judge.expect(look, condition, judge.shown(value, look.item), judge.shown(wanted, look.item))
    if isinstance(condition, s.Answer):
        return judge.expect(look, condition, _answer(value), _answer(condition.value))
    assert isinstance(condition, (s.Is, s.Holds))
    return judge.expect(
        look, condition, value, condition.value & condition.mask if isinstance(condition, s.Is) else condition.value
    )


def _wanted(judge: _Judge, condition: s.Condition, seen: Exited) -> Exited:
    """The exit that ``condition`` waits for; a word's value counts where the condition gives one."""
    if isinstance(condition, s.Word):
        number = memory.number(judge.guest, f"PORT_{condition.name}")
        same = seen.kind == "out" and seen.number == number
        value = condition.value if condition.value is not None else seen.value if same else None
        return Exited("out", number, value, f"PORT_{condition.name}")
    if isinstance(condition, s.Exit):
        same = (seen.kind, seen.number) == ("exit", condition.reason)
        return Exited("exit", condition.reason, None, seen.text if same else condition.says)
    return Exited("quiet", 0, None, "")


def _answer(value: int) -> str:
    return "accepted" if value >= 0 else errno.errorcode.get(-value, str(-value))
