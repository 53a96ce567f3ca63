# SPDX-License-Identifier: GPL-2.0-only
"""Judge the results of a scenario: each expectation, and the whole table where it was read.

The first expectation that does not hold ends the scenario: what comes after it is not judged.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterable, Iterator
from functools import cache, partial
from itertools import repeat
from typing import Any

from kvmtest import spec
from kvmtest.judge import alone, kept, migration
from kvmtest.judge.cache import Cache
from kvmtest.judge.differing import differences, unproven
from kvmtest.judge.evidence import Basis, Ended, Exited, Look, Played, Untried
from kvmtest.judge.item import BOTH_VIEWS, excused
from kvmtest.judge.many import merged
from kvmtest.judge.migration import apic_mode
from kvmtest.model.host import Host
from kvmtest.model.record import OUT_OF_TIME, Block, Observation, Record
from kvmtest.model.value import Expected, Value
from kvmtest.model.verdict import Verdict
from kvmtest.scenario import looks as of
from kvmtest.scenario import memory
from kvmtest.scenario import step as s
from kvmtest.scenario.text import vcpus
from kvmtest.spec import emulators
from kvmtest.spec.kept import AS_WRITTEN, priority
from kvmtest.spec.real_mode import unemulated
from kvmtest.state.guest_view import ITEMS, Report
from kvmtest.state.sections import Snapshot
from kvmtest.uapi.names import EXITS

__all__ = ("played",)

_Key = tuple[str, str, str]
#: The sign that the reporting guest runs: it begins where the event, or the SIPI after it, has put the vCPU.
_COMES_OUT, _STARTS = "the first instruction at the reset vector", "the first instruction at the SIPI's vector"
#: The hypervisor's refusal to enter the guest: what KVM has made of the vCPU is no state that it can run in.
_NO_ENTRY = re.compile(r"KVM_EXIT_FAIL_ENTRY( \w+=0x[0-9a-f]+)*")
#: What a guest does that KVM runs again and again without an instruction of it.
_EXECUTES_NOTHING = "executes nothing"
#: Steps that write nothing: if the vCPU ran before one of them, and cannot be entered after it, that was already so.
_WATCH = (s.Observe, s.Expect, s.Require, s.Until, s.Guest)
#: The expectation of `Same`.
_NOTHING = "nothing changed"
_PPR = "lapic.ppr"
#: The expectation of `Filled`.
_WRITTEN = "what was written"


@cache
def _held(item: str) -> Record:
    """The record of an expectation that holds, without what was expected."""
    return Record(item, Verdict.PASS)


class _Judge:
    def __init__(self, cache: Cache, look: Look, host: Host, bases: tuple[Basis, ...]) -> None:
        assert look.scenario
        self.scenario, self.looks = look.scenario, of.looks(look.scenario)
        self.cache, self.look, self.host, self.bases = cache, look, host, bases
        self.basis = bases[0] if bases else None
        self.blocks: dict[_Key, list[Block]] = {}
        self.records: dict[_Key, dict[str, Record]] = {}
        self.guest = ""
        self.end: Ended | None = None
        #: The vector of the last event.
        self.vector: int | None = None
        #: The expectation of ``runs`` that held, and what was expected, as long as nothing is written.
        self.ran: tuple[of.Look, s.Expect, Value] | None = None

    def observations(self) -> list[Observation]:
        """All that was judged, one observation for each event, trigger and view."""
        keys = dict.fromkeys((*self.records, *self.blocks))
        return [Observation(self.look.case, *key, (*self._behaviours(key), *self.blocks.get(key, ()))) for key in keys]

    def _behaviours(self, key: _Key) -> tuple[Block, ...]:
        records = self.records.get(key)
        return (self.cache.block(records.values()),) if records else ()

    # One step

    def expect(
        self, look: of.Look, step: s.Expect, observed: Value, wanted: Value, reason: str = "", others: tuple[Value, ...] = ()
    ) -> bool:
        """The record of an expectation; whether it holds. ``others`` are values that would do as well."""
        holds = observed in (wanted, *others)
        if holds and look.item == "runs":
            self.ran = look, step, wanted
        undefined = self.scenario.undefined or (step.undefined if step.vendor in ("", self.look.vendor) else "")
        if holds and self.cache.brief and not undefined:
            self.records.setdefault((look.event, look.trigger, look.view), {})[look.item] = _held(look.item)
            return True
        verdict = Verdict.INFO if undefined else Verdict.PASS if holds else Verdict.FAIL
        expected = None if undefined else Expected((wanted, *others))
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

    def rest(self, step: int, verdict: Verdict, why: str) -> None:
        """Note as not observed everything from ``step`` on."""
        for one in self.looks:
            if one.step >= step:
                self.untried(one, verdict, why)

    def untried(self, look: of.Look, verdict: Verdict, why: str) -> None:
        """Note ``look`` as not observed."""
        key = (look.event, look.trigger, look.view)
        if look.item != of.TABLE:
            # Also where an earlier expectation of the item held: it did not come to the last one.
            self.records.setdefault(key, {})[look.item] = Record(look.item, verdict, reason=why, cite=self.scenario.cite)
        elif key not in self.blocks:
            names = self.look.names(look.view, look.event)
            kind = ("missing", look.view, look.event, look.trigger == "plant", self.look.vendor, self.host.backend)
            self.blocks[key] = [self.cache.same((*kind, names, verdict, why), lambda: self.missing(names, look, verdict, why))]

    def missing(self, items: tuple[str, ...], look: of.Look, verdict: Verdict, why: str) -> Iterator[Record]:
        """The records of items of the table that could not be observed."""
        vendor, backend = self.look.vendor or "intel", self.host.backend
        cite: tuple[str, ...] = AS_WRITTEN if look.trigger == "plant" else (BOTH_VIEWS,)
        of_rule = look.trigger != "plant" and look.view != "views"
        for item in items:
            own = spec.rule_for(item, look.event, vendor, backend).cite if of_rule else cite
            yield Record(item, verdict, reason=why, cite=own)

    def host_table(self, look: of.Look, rule: str, befores: list[Snapshot], afters: list[Snapshot]) -> str:
        """The whole table in the host's view, of each vCPU; why there is none, where nothing proves that the event happened."""
        prefix = f"{rule or look.event}.{look.trigger}.host"
        blocks, brief = [], self.cache.brief and len(afters) == 1
        for basis, before, after in zip(self.bases, befores or repeat(None), afters, strict=False):
            ctx, layout, baseline, plant = basis
            if before is not None and (why := unproven(layout, look.event, before, after, silent=self.scenario.silent)):
                return f"vcpu {ctx.apic_id}: {why}" if len(afters) > 1 else why
            known = before is not None or look.event == "reset"
            mode = apic_mode(before or after, layout, ctx.apic_mode)
            ctx = ctx._replace(prefix=prefix, before=known, vector=self.vector, apic_mode=mode)
            blocks.append(self.cache.tables(ctx, layout).host(ctx, baseline, plant, before, after, brief=brief))
        ids = [basis.ctx.apic_id for basis in self.bases[: len(blocks)]]
        shown = merged("vcpus", ids, blocks, self.cache) if len(blocks) > 1 else blocks[0]
        self.blocks[look.event, look.trigger, "host"] = list(shown)
        return ""

    def migrated(self, step: int, order: str, values: list[Any]) -> bool:
        """The whole table of each vCPU before and after a migration; False if KVM refused to restore something."""
        end = self.end if self.end and self.end.step == step else None
        if end and end.verdict != "fail":
            return True
        for record in migration.behaviours(end, values, len(self.bases)):
            self.keep(of.Look(step, *of.MIGRATION, record.item), record)
        if blocks := migration.tables(self.cache, self.bases, order, values):
            self.blocks[of.MIGRATION] = list(blocks)
        return not end

    def plant_table(self, seen: list[Snapshot]) -> None:
        """The whole table of each vCPU that was planted, as it was written and as it is read."""
        writing = of.written(self.scenario)
        assert writing
        pairs = zip(self.bases, seen, strict=False)
        blocks = [kept.table(self.cache, self.host, basis, writing, one) for basis, one in pairs]
        ids = [basis.ctx.apic_id for basis in self.bases[: len(blocks)]]
        self.blocks[of.PLANT] = list(merged("vcpus", ids, blocks, self.cache) if len(blocks) > 1 else blocks[0])

    def guest_table(self, look: of.Look, before: Snapshot | None, after: Snapshot | None, report: Report) -> None:
        """The whole table in the guest's view, and both compared."""
        assert self.basis
        ctx, layout, baseline, plant = self.basis
        snapshot = before or after
        mode = apic_mode(snapshot, layout, ctx.apic_mode) if snapshot else ctx.apic_mode
        ctx = ctx._replace(prefix=f"{look.event}.{look.trigger}.guest", apic_mode=mode)
        names = self.look.names("guest", look.event)
        if (last := after or before) and any(isinstance(step, s.Migrate) for step in self.scenario.steps[: look.step]):
            report = migration.reported(report, self.host, layout, last)
        report = self._reported(report, look, names)
        guest, both = self.cache.tables(ctx, layout).guest(ctx, names, baseline, plant, before, after, report)
        self.blocks[look.event, look.trigger, "guest"] = list(guest)
        self.blocks[look.event, look.trigger, "views"] = list(both)

    def _reported(self, report: Report, look: of.Look, names: tuple[str, ...]) -> Report:
        """The ``report``, after the record of whether the guest runs, where that is asked.

        If the guest reported nothing, that one item has the error, not all of them.
        """
        runs, asked = look._replace(item="runs"), look._replace(item="runs") in self.looks
        if report.values or not report.problem:
            if asked:
                self._runs(runs, "")
            if not (why := self.stopped(report.problem)):
                return report
            missing = dict.fromkeys((item for item in ITEMS if item not in report.values), why) | report.missing
            return report._replace(missing=missing, problem="")
        why = f"the guest reported nothing: {report.problem}"
        if asked and look.event == "shutdown" and self.host.backend != "svm":
            why = f"a vCPU in shutdown executes nothing: {report.problem}"
            self.untried(runs, Verdict.SKIP, why)
        elif asked and self._instead(report, runs):
            why = f"the guest does not run after {look.event.upper()}: {report.problem}"
        elif asked:
            self.untried(runs, Verdict.ERROR, why)
        else:
            bears = "rip" if "rip" in names else names[0]
            return Report({}, {item: why for item in ITEMS if item != bears}, why, late=report.late)
        return Report({}, dict.fromkeys(ITEMS, why), "")

    def stopped(self, problem: str) -> str:
        """Note that a guest which ran does not if KVM could not enter it later; return why nothing more is seen, "" if it could.

        Where KVM emulates the first instructions, as with unrestricted_guest=0, VM entry fails after them.
        """
        entry = _NO_ENTRY.search(problem)
        if not entry or not self.ran:
            return ""
        look, step, wanted = self.ran
        self.expect(look, step, entry[0], wanted)
        return f"the guest does not run after {look.event.upper()}: {problem}"

    def _runs(self, look: of.Look, instead: str) -> Verdict:
        """Keep the record of whether the reporting guest runs, or what its vCPU does ``instead``, and return its verdict."""
        vector = [step.vector for step in self.scenario.steps[: look.step] if isinstance(step, s.Reporter)][-1]
        begins = _COMES_OUT if vector is None else _STARTS
        self.expect(look, s.Expect(s.Word("RESET")), instead or begins, begins)
        return self.records[look.event, look.trigger, look.view][look.item].verdict

    def _instead(self, report: Report, look: of.Look) -> bool:
        """Keep the record of what a vCPU does whose guest reported nothing; False where that cannot be determined.

        A guest that is out of time may be a slow one: that it is not, a listed deviation has to say. A shutdown is the exception
        that not every KVM makes an INIT of. kvm_amd does; before 265e43530cb2 ("KVM: SVM: Emulate #INIT in response to triple
        fault shutdown") it made a new VMCB and left the rest, and the guest takes an exception at the reset vector.
        """
        if report.late:
            return self._runs(look, _EXECUTES_NOTHING) is Verdict.KNOWN
        if look.event == "shutdown":
            instead = report.problem.partition(" after ")[0]
        else:
            entry = _NO_ENTRY.search(report.problem)
            instead = entry[0] if entry else ""
        if instead:
            self._runs(look, instead)
        return bool(instead)

    # Conditions in words

    def shown(self, exited: Exited, item: str, wanted: Exited, step: s.Expect) -> Value:
        """Describe what a vCPU did next instead of, or as, the awaited exit ``wanted``."""
        if exited.kind == "quiet":
            return s.Quiet().says
        if exited.kind == "out":
            for name, says in memory.words(self.guest):
                if memory.number(self.guest, f"PORT_{name}") == exited.number:
                    if (meaning := _says(step.condition)) and exited[:3] == wanted[:3]:
                        return meaning
                    if exited.value is not None and exited.number == wanted.number:
                        if (text := dict(step.says).get(exited.value)) or item != "runs":
                            return text or exited.value
                    return memory.said(self.guest, name, says, exited.value)
        return exited.text

    def words(self, words: Iterable[s.Word], exits: Iterable[Exited]) -> str:
        """Describe the values of the words that a guest wrote, up to the first exit that is none of them."""
        said: list[str] = []
        for word, exited in zip(words, exits, strict=False):
            port = memory.number(self.guest, f"PORT_{word.name}")
            if (exited.kind, exited.number) != ("out", port):
                return ", ".join((*said, str(self.shown(exited, "runs", exited, s.Expect(word._replace(says=""))))))
            if word.value is not None and exited.value is not None:
                said.append(_said(word, exited.value & word.mask))
        return ", ".join(said)


def played(cache: Cache, look: Look, host: Host, bases: tuple[Basis, ...], seen: Played | Untried) -> list[Observation]:
    """Judge the results of a program."""
    judge = _Judge(cache, look, host, bases)
    scenario = judge.scenario
    if isinstance(seen, Untried):
        judge.rest(0, Verdict(seen.verdict), seen.reason)
        return judge.observations()
    if why := emulators.misleads(host.names, host.parameters, scenario.trigger):
        judge.rest(0, Verdict.SKIP, why)
        return judge.observations()
    judge.end = seen.end
    results: dict[int, list[Any]] = {}
    for number, value in seen.evidence:
        results.setdefault(number, []).append(value)
    at = {one.step: one for one in judge.looks if one.view != "views"}
    #: The last observation of each vCPU that steps name, and that before the event.
    last: dict[s.Who, list[Snapshot]] = {}
    before: dict[s.Who, list[Snapshot]] = {}
    for number, step in enumerate(scenario.steps):
        values = results.get(number, [])
        if not isinstance(step, _WATCH):
            judge.ran = None
        if isinstance(step, s.Load) and step.guest not in (memory.SMRAM, "sender"):
            judge.guest = step.guest
        elif isinstance(step, s.Send) and step.judged or isinstance(step, s.Event):
            before = dict(last)
            judge.vector = step.vector if isinstance(step, s.Send) else None
        if number in at and values and not _one(judge, at[number], step, values, before, last):
            return judge.observations()
        if values and isinstance(values[-1], Snapshot) and isinstance(step, (s.Observe, s.Expect)):
            last[step.who] = values
        elif isinstance(step, s.Migrate) and values:
            last, before = (migration.since(judge.bases, seen, values) for seen in (last, before))
    if seen.end:
        verdict = Verdict(seen.end.verdict)
        why = f"{OUT_OF_TIME}: {seen.end.why}" if seen.end.late and verdict is Verdict.ERROR else seen.end.why
        if unable := unemulated(host.backend, host.parameters, why) or judge.stopped(why):
            verdict, why = Verdict.SKIP, unable
        judge.rest(seen.end.step, verdict, why)
    return judge.observations()


_Seen = dict[s.Who, list[Snapshot]]


def _one(judge: _Judge, look: of.Look, step: s.Step, values: list[Any], before: _Seen, last: _Seen) -> bool:
    """Judge the results of one step; return False for an expectation that failed."""
    value = values[-1]
    if isinstance(step, s.Observe) and look.trigger == "plant":
        judge.plant_table(values)
        return True
    if isinstance(step, s.Observe):
        why = judge.host_table(look, step.rule, before.get(step.who, []), values)
        if why:
            judge.rest(look.step, Verdict.ERROR, why)
        return not why
    if isinstance(step, s.Migrate):
        return judge.migrated(look.step, step.order, values)
    if isinstance(step, s.Guest):
        # Of several vCPUs the first is the target.
        old, new = (next(iter(seen.get("target") or seen.get("each") or ()), None) for seen in (before, last))
        judge.guest_table(look, old, new if new is not old else None, value)
        return True
    if isinstance(step, s.Do):
        for item, wanted in step.expected:
            count, why = value.counts[item]
            judge.expect(look._replace(item=item), s.Expect(s.Is(item, wanted)), count, wanted, why)
        return True
    assert isinstance(step, s.Expect)
    if isinstance(step.condition, (s.Words, s.Reached)):
        value = values
    return _expected(judge, look, step, value, last.get(step.who, [])) or not step.ends


def _expected(judge: _Judge, look: of.Look, step: s.Expect, value: Any, last: list[Snapshot]) -> bool:
    """Judge an expectation; False where it does not hold."""
    condition = step.condition
    if isinstance(condition, s.Same):
        assert judge.basis
        layout, old = judge.basis.layout, last[-1]
        lost = (seen.lost(layout, section) for section in layout.by_section for seen in (old, value))
        if why := next(filter(None, lost), ""):
            judge.untried(look, Verdict.ERROR, f"cannot determine if anything changed: {why}")
            return True
        moved = any(isinstance(one, s.Migrate) for one in judge.scenario.steps)
        found = differences(layout, old, value, (*condition.but, *(migration.aside(layout) if moved else ())))
        found = [item for item in found if not emulators.lost(judge.host.names, item)]
        # KVM computes it when the vCPU runs: before, it may be that of an older TPR or ISR.
        if value.get(layout, _PPR) == priority(partial(value.get, layout)):
            found = [item for item in found if item != _PPR]
        return judge.expect(look, step, f"{', '.join(found)} changed" if found else _NOTHING, _NOTHING)
    if isinstance(condition, s.Written):
        assert judge.basis
        lost = (seen.lost(judge.basis.layout, section) for section in judge.basis.layout.by_section for seen in (last[-1], value))
        if why := next(filter(None, lost), ""):
            judge.untried(look, Verdict.ERROR, f"cannot determine if anything changed: {why}")
            return True
        return judge.expect(look, step, alone.departs(judge.basis, condition.section, last[-1], value), alone.AS_ASKED)
    if isinstance(condition, s.Zero):
        assert judge.basis
        read = {item: value.get(judge.basis.layout, item) for item in condition.items}
        for item in (item for item, seen in read.items() if seen is None):
            why = value.why(judge.basis.layout, item) if item in judge.basis.layout.fields else ""
            judge.untried(look._replace(item=item), Verdict.ERROR if why else Verdict.SKIP, why or "not readable here")
        shown = [judge.expect(look._replace(item=item), step, seen, 0) for item, seen in read.items() if seen is not None]
        return all(shown)
    if isinstance(condition, s.Reached):
        if len(value) < len(condition.of):
            return True  # the program ended here
        got = vcpus(id for id, seen in zip(condition.of, value, strict=True) if seen == condition.value & condition.mask)
        either = tuple(vcpus((id,)) for id in condition.ids) if condition.one else (vcpus(condition.ids),)
        return judge.expect(look, step, got, either[0], others=either[1:])
    if isinstance(condition, s.Words):
        asked = ", ".join(_said(word, word.value) for word in condition.words if word.value is not None)
        return judge.expect(look, step, judge.words(condition.words, value), asked)
    if isinstance(condition, s.Quiet) and value.kind == "quiet":
        return judge.expect(look, step, condition.says, condition.says)
    if isinstance(value, Exited):
        wanted = _wanted(judge, condition, value)
        observed, expected = (judge.shown(one, look.item, wanted, step) for one in (value, wanted))
        return judge.expect(look, step, observed, expected)
    if isinstance(condition, s.Answer):
        said = dict(step.says)
        return judge.expect(look, step, said.get(value, _answer(value)), said.get(condition.value, _answer(condition.value)))
    if isinstance(condition, s.Filled):
        differ, first = value
        return judge.expect(look, step, f"{differ} other bytes, the first at {first:#x}" if differ else _WRITTEN, _WRITTEN)
    if isinstance(condition, s.Past):
        since = "what was written" if condition.of is None else "the other vCPU's"
        on = f"counts on from {since}"
        far = f"less than {since}" if value < condition.least else f"far more than {since}"
        return judge.expect(look, step, on if condition.least <= value < condition.most else far, on)
    assert isinstance(condition, (s.Is, s.Holds))
    wanted_value = condition.value & condition.mask if isinstance(condition, s.Is) else condition.value
    says = dict(step.says)
    return judge.expect(look, step, says.get(value, value), says.get(wanted_value, wanted_value))


def _said(word: s.Word, value: int) -> str:
    return (word.says or f"{word.name} {{:#x}}").format(value)


def _wanted(judge: _Judge, condition: s.Condition, seen: Exited) -> Exited:
    """The exit that ``condition`` waits for; a word's value counts where the condition gives one."""
    if isinstance(condition, s.Word):
        number = memory.number(judge.guest, f"PORT_{condition.name}")
        same = seen.kind == "out" and seen.number == number
        meant = same and seen.value is not None and not (seen.value ^ (condition.value or 0)) & condition.mask
        value = seen.value if meant or same and condition.value is None else condition.value
        return Exited("out", number, value, f"PORT_{condition.name}")
    if isinstance(condition, s.Exit):
        same = (seen.kind, seen.number) == ("exit", condition.reason)
        named = condition.says or EXITS.get(condition.reason, f"exit reason {condition.reason}")
        return Exited("exit", condition.reason, None, seen.text if same else named)
    if isinstance(condition, s.Fails):
        return Exited("errno", condition.error, None, f"KVM_RUN: {errno.errorcode[condition.error]}")
    return Exited("exit", 0, None, condition.says if isinstance(condition, s.Quiet) else "")


def _says(condition: s.Condition) -> str:
    return condition.says if isinstance(condition, s.Word) else ""


def _answer(value: int) -> str:
    return "accepted" if value >= 0 else errno.errorcode.get(-value, str(-value))
