# SPDX-License-Identifier: GPL-2.0-only
"""Judging with a cache: questions, records and blocks are each made once in a run.

A section whose bytes are those of another case, before and after, with the same questions and the same plant, has that case's
block. Of what is new only the items with other values are judged.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from functools import cached_property
from typing import NamedTuple

from kvmtest import spec
from kvmtest.judge.bits import Bits
from kvmtest.judge.evidence import Evidence, Planted
from kvmtest.judge.item import Context, Question, Seen, answer, ask, ask_views, compare_views
from kvmtest.judge.parts import OWN, Part, Parts, Values
from kvmtest.model.record import Block, Record
from kvmtest.model.value import text
from kvmtest.model.verdict import Verdict
from kvmtest.spec.deviations import CASES_OF
from kvmtest.spec.kept import explained
from kvmtest.spec.rule import Rule
from kvmtest.spec.untouched import COUNTERS
from kvmtest.state.guest_view import Report, shown
from kvmtest.state.layout import Layout
from kvmtest.state.sections import Snapshot
from kvmtest.x86.cpuid import FOLLOWS

__all__ = ("Cache", "Tables")

_UNSEEN = "the vCPU ran on before the host could read it"
#: Items that depend on a SIPI's vector.
_OF_VECTOR = frozenset(
    item for item, entry in spec.ENTRIES.items() if any(str(rule.value).startswith("SIPI.") for rule in entry.rules["sipi"])
)


class _Answers:
    """The answers to one question."""

    __slots__ = ("_known", "question")

    def __init__(self, question: Question) -> None:
        self.question = question
        self._known: dict[Hashable, Record] = {}

    def of(self, seen: Seen) -> Record:
        """The record for the values ``seen``."""
        found = self._known.get(seen)
        if found is None:
            found = self._known[seen] = answer(self.question, seen)
        return found

    def forget(self) -> None:
        """Forget all records."""
        self._known.clear()

    def same(self, *values: int | str | None) -> Record:
        """The record for the two views' values, in the form of `compare_views`."""
        found = self._known.get(values)
        if found is None:
            found = self._known[values] = compare_views(self.question, *values)  # type: ignore[arg-type]
        return found


class Cache:
    """All questions, records and blocks of a run.

    With ``brief`` the table of a single vCPU in the host's view has no records for items that cannot depart, and the record of an
    expectation that holds has no values.
    """

    def __init__(self, *, brief: bool = False) -> None:
        self.brief = brief
        self._answers: dict[Question, _Answers] = {}
        self._questions: dict[Hashable, _Answers] = {}
        self._lists: dict[Hashable, tuple[int, list[_Answers]]] = {}
        self._cases: dict[tuple[str, ...], tuple[str, ...]] = {}
        self._of_one: dict[Hashable, Question] = {}
        self._blocks: dict[Hashable, Block] = {}
        self._tables: dict[Hashable, Tables] = {}
        self._parts: dict[int, Parts] = {}
        self._plants: dict[int, tuple[Planted, dict[Hashable, int]]] = {}
        self._numbers: dict[Hashable, int] = {}

    def tables(
        self, ctx: Context, layout: Layout, own: Callable[[str], Rule | None] | None = None, key: Hashable = None
    ) -> Tables:
        """The tables for cases like that of ``ctx``. ``own`` gives the case's own rules, and ``key`` identifies them."""
        name = (ctx.kind, id(layout), key)
        found = self._tables.get(name)
        if found is None:
            found = self._tables[name] = Tables(self, ctx, self.parts(layout), own)
        return found

    def answers(self, question: Question) -> _Answers:
        """The answers to ``question``, shared by all that ask it."""
        return self._answers.setdefault(question, _Answers(question))

    def alone(self, item: str, ctx: Context, layout: Layout, own: Rule | None) -> Question:
        """The question of ``item`` for one vCPU."""
        key = (item, ctx.kind, id(layout), ctx.apic_id, ctx.cycles, own)
        found = self._of_one.get(key)
        if found is None:
            found = self._of_one[key] = ask(item, ctx, own)
        return found

    def asks(self, items: tuple[str, ...], ctx: Context) -> tuple[int, list[_Answers]]:
        """The answers to the questions of ``items`` by the manuals' rules, in cases like that of ``ctx``, and their number."""
        cases = self._cases.get(items)
        if cases is None:
            cases = self._cases[items] = tuple(dict.fromkeys(part for item in items for part in CASES_OF.get(item, ())))
        plain = ctx.plain
        key = (items, plain, ctx.parts(cases), None if _OF_VECTOR.isdisjoint(items) else ctx.vector)
        known = self._lists.get(key)
        if known is None:
            made = [self._of(item, ctx, plain) for item in items]
            known = self._lists[key] = (self.number(tuple(map(id, made))), made)
        return known

    def _of(self, item: str, ctx: Context, plain: tuple[object, ...]) -> _Answers:
        key = (item, plain, ctx.parts(CASES_OF.get(item, ())), ctx.vector if item in _OF_VECTOR else None)
        found = self._questions.get(key)
        if found is None:
            found = self._questions[key] = self.answers(ask_views(item, ctx) if ctx.view == "views" else ask(item, ctx))
        return found

    def compared(self, item: str, ctx: Context) -> _Answers:
        """The answers to whether both views of ``item`` agree; ``ctx`` is that of the view ``views``."""
        return self._of(item, ctx, ctx.plain)

    def block(self, records: Iterable[Record], key: Hashable = None) -> Block:
        """The block of ``records``; equal ones share one block."""
        made = tuple(records)
        key = made if key is None else key
        found = self._blocks.get(key)
        if found is None:
            found = self._blocks[key] = Block(made)
        return found

    def same(self, key: Hashable, records: Callable[[], Iterable[Record]]) -> Block:
        """The block of ``records``, which are those of any other with this ``key``."""
        found = self._blocks.get(key)
        if found is None:
            found = self._blocks[key] = self.block(records())
        return found

    def known(self, key: Hashable) -> Block | None:
        """The block that was made with this ``key``."""
        return self._blocks.get(key)

    def number(self, value: Hashable) -> int:
        """A number that equal values share."""
        return self._numbers.setdefault(value, len(self._numbers))

    def asked(self, plant: Planted | None, items: tuple[str, ...]) -> int:
        """A number for what ``plant`` asked of ``items``, and what KVM refused."""
        if plant is None:
            return -1
        _, found = self._plants.setdefault(id(plant), (plant, {}))
        number = found.get(items)
        if number is None:
            wanted: list[Hashable] = [plant.refused.get(item) or plant.asked.get(item, plant.reason(item)) for item in items]
            number = found[items] = self.number((items, *wanted))
        return number

    def forget(self) -> None:
        """Drop the answers, if values hardly recur; keep the questions."""
        self._blocks.clear()
        self._plants.clear()
        for answers in self._answers.values():
            answers.forget()
        for parts in self._parts.values():
            for part in parts.by_section.values():
                part.forget()

    def parts(self, layout: Layout) -> Parts:
        """The sections of ``layout``."""
        found = self._parts.get(id(layout))
        if found is None:
            found = self._parts[id(layout)] = Parts(layout)
        return found


class _Vcpu(NamedTuple):
    """One vCPU's state at creation, its plant, and its state before and after the event."""

    baseline: Snapshot | None
    plant: Planted | None
    before: Snapshot | None
    after: Snapshot | None


class Tables:
    """The tables of items in cases that are equal in all that a rule depends on."""

    def __init__(self, cache: Cache, ctx: Context, parts: Parts, own: Callable[[str], Rule | None] | None) -> None:
        self._cache = cache
        self._ctx = ctx
        self._parts = parts
        self._layout = parts.layout
        self._own = own
        self._asked: dict[tuple[str, ...], tuple[int, list[_Answers]]] = {}
        self._compared: dict[str, _Answers] = {}

    # The host's view

    def host(
        self,
        ctx: Context,
        baseline: Snapshot | None,
        plant: Planted | None,
        before: Snapshot | None,
        after: Snapshot,
        *,
        brief: bool = False,
    ) -> tuple[Block, ...]:
        """The blocks of one vCPU that is as ``ctx`` says, by what the host's ioctls showed.

        ``brief``, where all was read, only what may depart has records.
        """
        vcpu = _Vcpu(baseline, plant, before, after)
        found = []
        for section, part in self._parts.by_section.items():
            short = self._departing(section, part, vcpu) if brief and part.plain else None
            found.append(self._section(section, part, vcpu) if short is None else short)
            found += [self._cache.block((self._alone(item, ctx, self._seen(item, vcpu)),)) for item in part.own]
        if self._parts.rest:
            found.append(self._rest)
        return tuple(found)

    @cached_property
    def _rest(self) -> Block:
        """The block of what no ioctl shows."""
        _, asked = self._answers(self._parts.rest)
        return self._cache.block(answers.of(self._missing(answers.question.item)) for answers in asked)

    def _missing(self, item: str) -> Seen:
        return Seen(None, None, None, unreadable=self._layout.missing.get(item, "no ioctl shows it"))

    def _section(self, section: str, part: Part, vcpu: _Vcpu) -> Block:
        number, asked = self._answers(part.items)
        wanted = self._cache.asked(vcpu.plant, part.items)
        datas = [None if one is None else one.sections.get(section) for one in (vcpu.baseline, vcpu.before, vcpu.after)]
        lost = [one for one in (vcpu.before, vcpu.after) if one is not None and (one.unreadable or section not in one.sections)]
        if lost:
            return self._cache.block(answers.of(self._seen(answers.question.item, vcpu)) for answers in asked)
        keys = [None if data is None else part.key(data) for data in datas]
        key = (number, wanted, *keys)
        found = self._cache.known(key)
        if found is None:
            nothing = (None,) * len(part.items)
            rows = zip(asked, *(nothing if data is None else part.values(data) for data in keys), strict=True)
            records = [
                answers.of(self._values(answers.question.item, vcpu, created, planted, observed))
                for answers, created, planted, observed in rows
            ]
            found = self._cache.block(records, key)
        return found

    def _departing(self, section: str, part: Part, vcpu: _Vcpu) -> Block | None:
        """The block of what may depart of ``part``; None where not all of it was read."""
        before, after = (one.sections.get(section) if one and not one.unreadable else None for one in (vcpu.before, vcpu.after))
        number, asked = self._answers(part.items)
        bits = part.bits.get(number)
        if bits is None:
            bits = part.bits[number] = Bits(part.fields, [answers.question for answers in asked])
        if before is None or after is None or min(len(before), len(after)) < bits.size:
            return None
        chosen = [asked[number] for number in bits.departing(before, after)]
        return self._cache.block([answers.of(self._seen(answers.question.item, vcpu)) for answers in chosen])

    def _answers(self, items: tuple[str, ...]) -> tuple[int, list[_Answers]]:
        """The questions of ``items``, and a number for all of them."""
        found = self._asked.get(items)
        if found is None:
            own = self._own
            if own is None:
                found = self._cache.asks(items, self._ctx)
            else:
                answers = [self._cache.answers(ask(item, self._ctx, own(item))) for item in items]
                found = (self._cache.number(tuple(map(id, answers))), answers)
            self._asked[items] = found
        return found

    def _alone(self, item: str, ctx: Context, seen: Seen) -> Record:
        record = answer(self._cache.alone(item, ctx, self._layout, self._own(item) if self._own else None), seen)
        if item in COUNTERS and record.verdict in (Verdict.PASS, Verdict.INFO):
            # A counter's position is not compared, and would make each case's records unique.
            return record._replace(planted=None, expected=None, observed=None)
        return record

    def _seen(self, item: str, vcpu: _Vcpu) -> Seen:
        """The values of ``item``, as far as they could be read."""
        if item not in self._layout.fields:
            return self._missing(item)
        assert vcpu.after
        created = vcpu.baseline.get(self._layout, item) if vcpu.baseline else None
        planted = vcpu.before.get(self._layout, item) if vcpu.before else None
        return self._values(item, vcpu, created, planted, vcpu.after.get(self._layout, item))

    def _values(self, item: str, vcpu: _Vcpu, created: int | None, planted: int | None, observed: int | None) -> Seen:
        failed = ""
        if observed is None and vcpu.after is not None:
            failed = vcpu.after.why(self._layout, item)
        elif planted is None and vcpu.before is not None:
            failed = vcpu.before.why(self._layout, item)
        return Seen(planted, created, observed, self._refusal(item, vcpu.plant, planted), failed=failed)

    def seen(self, item: str, baseline: Snapshot | None, plant: Planted | None, shown: Evidence) -> Seen:
        """The values of ``item`` that a vCPU has ``shown``, as they are judged."""
        vcpu = _Vcpu(baseline, plant, shown.before, shown.after)
        return self._seen(item, vcpu) if shown.report is None else self._reported(item, vcpu, self._read(vcpu), shown.report)

    # The guest's view, and both

    def guest(
        self,
        ctx: Context,
        items: tuple[str, ...],
        baseline: Snapshot | None,
        plant: Planted | None,
        before: Snapshot | None,
        after: Snapshot | None,
        report: Report,
    ) -> tuple[tuple[Block, ...], tuple[Block, ...]]:
        """The blocks of ``items`` by what the guest reported, and those of comparing that with what the host read."""
        vcpu = _Vcpu(baseline, plant, before, after)
        shared = tuple([item for item in items if item not in OWN])
        states = tuple(self._parts.keys(one) for one in (baseline, before, after))
        reported = tuple([report.values.get(item) for item in shared])
        wanted = (self._cache.asked(plant, shared), reported, *report.missing.items(), report.problem, report.narrow, *states)
        number, asked = self._answers(shared)
        key, both = ("guest", number, wanted), ("views", number, wanted)
        one, two, read = self._cache.known(key), self._cache.known(both), self._read(vcpu)
        if one is None or two is None:
            seen = [(answers, self._reported(answers.question.item, vcpu, read, report)) for answers in asked]
            one = self._cache.block([answers.of(values) for answers, values in seen], key)
            two = self._cache.block([self._views(item, vcpu, read, report) for item in shared], both)
        alone = [item for item in items if item in OWN]
        return (
            (one, *(self._cache.block((self._alone(item, ctx, self._reported(item, vcpu, read, report)),)) for item in alone)),
            (two, *(self._cache.block((self._views(item, vcpu, read, report, ctx),)) for item in alone)),
        )

    def _read(self, vcpu: _Vcpu) -> Values:
        return Values(*map(self._parts.read, (vcpu.baseline, vcpu.before, vcpu.after)))

    def _reported(self, item: str, vcpu: _Vcpu, read: Values, report: Report) -> Seen:
        """The values of ``item`` with the guest's ``report`` as the observation."""
        layout, narrow = self._layout, report.narrow
        planted, created = read.planted.get(item), read.created.get(item)
        observed, missing, failed = report.values.get(item), report.missing.get(item, ""), ""
        if observed is None and not missing:
            failed = report.problem or "the guest did not report it"
        elif not missing and vcpu.before is not None and planted is None and item in layout.fields:
            failed = vcpu.before.why(layout, item)
        refused = self._refusal(item, vcpu.plant, planted)
        return Seen(shown(item, planted, narrow), shown(item, created, narrow), observed, refused, missing, failed)

    def _views(self, item: str, vcpu: _Vcpu, read: Values, report: Report, ctx: Context | None = None) -> Record:
        """The record of comparing what the host read of ``item`` with the guest's ``report``."""
        answers = self._compared.get(item)
        if answers is None or ctx is not None:
            views = (ctx or self._ctx)._replace(prefix=f"{self._ctx.prefix.rpartition('.')[0]}.views")
            answers = self._compared[item] = self._cache.compared(item, views)
        reported, missing = report.values.get(item), report.missing.get(item, "")
        unread = lost = ""
        host = None
        if vcpu.after is None:
            unread = _UNSEEN
        elif item not in self._layout.fields:
            unread = self._layout.missing.get(item, "")
        else:
            host = shown(item, read.observed.get(item), report.narrow)
            lost = vcpu.after.why(self._layout, item) if host is None else ""
        problem = report.problem if reported is None else ""
        return answers.same(host, reported, problem, missing if reported is None else "", unread, lost)

    def _refusal(self, item: str, plant: Planted | None, planted: int | None) -> str:
        """Return why ``item`` does not have the value that ``plant`` asked for; "" if it has."""
        if plant is None:
            return ""
        layout = self._layout
        if why := layout.missing.get(item) or layout.missing_sections.get(FOLLOWS.get(item, "")):
            return why
        if item in plant.refused:
            return plant.refused[item]
        asked = plant.asked.get(item)
        if asked is None:
            return plant.reason(item)
        if planted is None or planted == asked:
            return "" if planted == asked else f"{text(item, asked)} was planted, but could not be read back"
        host = self._ctx.host
        fact = explained(item, planted, host.backend, host.version, self._ctx.vendor, plant.asked.get)
        found = f"{text(item, asked)} was planted, but KVM_GET_* returned {text(item, planted)} before the event"
        return f"{found}{f': {fact.says}' if fact else ''}"
