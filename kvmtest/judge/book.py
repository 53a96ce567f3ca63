# SPDX-License-Identifier: GPL-2.0-only
"""Judge what is new, and know the rest again: questions, records and blocks that are each made once in a run.

A section whose bytes are those of another case, before and after, with the same questions and the same plant, has that case's
block. Of what is new only the items with other values are judged.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from functools import cached_property
from typing import NamedTuple

from kvmtest import spec
from kvmtest.judge.evidence import Evidence, Planted
from kvmtest.judge.item import Context, Question, Seen, answer, ask, ask_views, compare_views
from kvmtest.model.record import Block, Record
from kvmtest.model.value import text
from kvmtest.model.verdict import Verdict
from kvmtest.spec.kept import explained
from kvmtest.spec.rule import Rule
from kvmtest.spec.untouched import COUNTERS
from kvmtest.state.guest_view import Report, shown
from kvmtest.state.layout import Layout
from kvmtest.state.sections import Snapshot
from kvmtest.x86.cpuid import FOLLOWS

__all__ = ("Book", "Sheet")

#: Judged by themselves: what counts, and what names the vCPU, differs in each case and on each vCPU.
_OWN = COUNTERS | {"lapic.id", "lapic.ldr"}
_UNSEEN = "the vCPU ran on before the host could read it"
_TABLES = tuple(item for item in spec.ENTRIES if item not in spec.SYNTHETIC)


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

    def same(self, *values: int | str | None) -> Record:
        """The record for the two views' values, as `compare_views` takes them."""
        found = self._known.get(values)
        if found is None:
            found = self._known[values] = compare_views(self.question, *values)  # type: ignore[arg-type]
        return found


class _Part:
    """One section of a layout: its items but for those that are judged by themselves."""

    def __init__(self, layout: Layout, section: str) -> None:
        names = layout.by_section[section]
        self.items = tuple(item for item in names if item not in _OWN)
        self.own = tuple(item for item in names if item in _OWN)
        self._fields = [layout.fields[item] for item in self.items]
        self._spans = [(layout.fields[item].offset, layout.fields[item].size) for item in self.own]
        self._values: dict[bytes, tuple[int | None, ...]] = {}

    def key(self, data: bytes) -> bytes:
        """``data`` without the items that are judged by themselves."""
        for at, size in self._spans:
            data = data[:at] + bytes(len(data[at : at + size])) + data[at + size :]
        return data

    def values(self, data: bytes) -> tuple[int | None, ...]:
        """The values of the items; ``data`` is a key."""
        found = self._values.get(data)
        if found is None:
            found = self._values[data] = tuple([field.get(data) for field in self._fields])
        return found


class _Parts:
    """The sections of one layout."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.by_section = {section: _Part(layout, section) for section in layout.by_section}
        known = layout.fields
        self.rest = tuple(item for item in _TABLES if item not in known)

    def keys(self, snapshot: Snapshot | None) -> Hashable:
        """What tells the sections of ``snapshot`` from others."""
        if snapshot is None:
            return None
        parts = self.by_section
        keys = [parts[name].key(data) if name in parts else data for name, data in snapshot.sections.items()]
        return (*snapshot.sections, *keys, *snapshot.unreadable.items())


class Book:
    """All that was judged in a run."""

    def __init__(self) -> None:
        self._answers: dict[Question, _Answers] = {}
        self._blocks: dict[Hashable, Block] = {}
        self._sheets: dict[Hashable, Sheet] = {}
        self._parts: dict[int, _Parts] = {}
        self._plants: dict[int, tuple[Planted, dict[Hashable, int]]] = {}
        self._numbers: dict[Hashable, int] = {}

    def sheet(self, ctx: Context, layout: Layout, own: Callable[[str], Rule | None] | None = None, key: Hashable = None) -> Sheet:
        """The sheet for cases like that of ``ctx``. ``own`` gives the case's own rules, and ``key`` tells them from others."""
        name = (ctx.kind, id(layout), key)
        found = self._sheets.get(name)
        if found is None:
            found = self._sheets[name] = Sheet(self, ctx, self.parts(layout), own)
        return found

    def answers(self, question: Question) -> _Answers:
        """The answers to ``question``, whoever asked it first."""
        return self._answers.setdefault(question, _Answers(question))

    def block(self, records: Iterable[Record], key: Hashable = None) -> Block:
        """The block of ``records``, of which equal ones are one."""
        made = tuple(records)
        key = made if key is None else key
        found = self._blocks.get(key)
        if found is None:
            found = self._blocks[key] = Block(made)
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

    def parts(self, layout: Layout) -> _Parts:
        """The sections of ``layout``."""
        found = self._parts.get(id(layout))
        if found is None:
            found = self._parts[id(layout)] = _Parts(layout)
        return found


class _Vcpu(NamedTuple):
    """One vCPU's state at creation, its plant, and its state before and after the event."""

    baseline: Snapshot | None
    plant: Planted | None
    before: Snapshot | None
    after: Snapshot | None


class Sheet:
    """The judge of all cases that differ in nothing that a rule depends on."""

    def __init__(self, book: Book, ctx: Context, parts: _Parts, own: Callable[[str], Rule | None] | None) -> None:
        self._book = book
        self._ctx = ctx
        self._parts = parts
        self._layout = parts.layout
        self._own = own
        self._asked: dict[tuple[str, ...], tuple[int, list[_Answers]]] = {}
        self._compared: dict[str, _Answers] = {}

    # The host's view

    def host(
        self, ctx: Context, baseline: Snapshot | None, plant: Planted | None, before: Snapshot | None, after: Snapshot
    ) -> tuple[Block, ...]:
        """The blocks of one vCPU that is as ``ctx`` says, by what the host's ioctls showed."""
        vcpu = _Vcpu(baseline, plant, before, after)
        found = []
        for section, part in self._parts.by_section.items():
            found.append(self._section(section, part, vcpu))
            found += [self._book.block((self._alone(item, ctx, self._seen(item, vcpu)),)) for item in part.own]
        if self._parts.rest:
            found.append(self._rest)
        return tuple(found)

    @cached_property
    def _rest(self) -> Block:
        """The block of what no ioctl shows."""
        _, asked = self._answers(self._parts.rest)
        return self._book.block(answers.of(self._missing(answers.question.item)) for answers in asked)

    def _missing(self, item: str) -> Seen:
        return Seen(None, None, None, unreadable=self._layout.missing.get(item, "no ioctl shows it"))

    def _section(self, section: str, part: _Part, vcpu: _Vcpu) -> Block:
        number, asked = self._answers(part.items)
        wanted = self._book.asked(vcpu.plant, part.items)
        datas = [None if one is None else one.sections.get(section) for one in (vcpu.baseline, vcpu.before, vcpu.after)]
        lost = [one for one in (vcpu.before, vcpu.after) if one is not None and (one.unreadable or section not in one.sections)]
        if lost:
            return self._book.block(answers.of(self._seen(answers.question.item, vcpu)) for answers in asked)
        keys = [None if data is None else part.key(data) for data in datas]
        key = (number, wanted, *keys)
        found = self._book.known(key)
        if found is None:
            nothing = (None,) * len(part.items)
            rows = zip(asked, *(nothing if data is None else part.values(data) for data in keys), strict=True)
            records = [
                answers.of(self._values(answers.question.item, vcpu, created, planted, observed))
                for answers, created, planted, observed in rows
            ]
            found = self._book.block(records, key)
        return found

    def _answers(self, items: tuple[str, ...]) -> tuple[int, list[_Answers]]:
        """The questions of ``items``, and a number for all of them."""
        found = self._asked.get(items)
        if found is None:
            answers = [self._book.answers(ask(item, self._ctx, self._rule(item))) for item in items]
            found = self._asked[items] = (self._book.number(tuple(map(id, answers))), answers)
        return found

    def _rule(self, item: str) -> Rule | None:
        return self._own(item) if self._own else None

    def _alone(self, item: str, ctx: Context, seen: Seen) -> Record:
        record = answer(ask(item, ctx, self._rule(item)), seen)
        if item in COUNTERS and record.verdict in (Verdict.PASS, Verdict.INFO):
            # Where a counter stood says nothing, and would make each case's records its own.
            return record._replace(planted=None, expected=None, observed=None)
        return record

    def _seen(self, item: str, vcpu: _Vcpu) -> Seen:
        """The values of ``item``, whatever of them could be read."""
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
        return self._seen(item, vcpu) if shown.report is None else self._told(item, vcpu, shown.report)

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
        shared = tuple([item for item in items if item not in _OWN])
        states = tuple(self._parts.keys(one) for one in (baseline, before, after))
        told = tuple([report.values.get(item) for item in shared])
        wanted = (self._book.asked(plant, shared), told, *report.missing.items(), report.problem, report.narrow, *states)
        number, asked = self._answers(shared)
        key, both = ("guest", number, wanted), ("views", number, wanted)
        one, two = self._book.known(key), self._book.known(both)
        if one is None or two is None:
            one = self._book.block([answers.of(self._told(answers.question.item, vcpu, report)) for answers in asked], key)
            two = self._book.block([self._views(item, vcpu, report) for item in shared], both)
        alone = [item for item in items if item in _OWN]
        return (
            (one, *(self._book.block((self._alone(item, ctx, self._told(item, vcpu, report)),)) for item in alone)),
            (two, *(self._book.block((self._views(item, vcpu, report, ctx),)) for item in alone)),
        )

    def _told(self, item: str, vcpu: _Vcpu, report: Report) -> Seen:
        """The values of ``item`` where the guest's ``report`` is what was observed."""
        layout, narrow = self._layout, report.narrow
        planted = vcpu.before.get(layout, item) if vcpu.before else None
        created = vcpu.baseline.get(layout, item) if vcpu.baseline else None
        observed, missing, failed = report.values.get(item), report.missing.get(item, ""), ""
        if observed is None and not missing:
            failed = report.problem or "the guest did not tell"
        elif not missing and vcpu.before is not None and planted is None and item in layout.fields:
            failed = vcpu.before.why(layout, item)
        refused = self._refusal(item, vcpu.plant, planted)
        return Seen(shown(item, planted, narrow), shown(item, created, narrow), observed, refused, missing, failed)

    def _views(self, item: str, vcpu: _Vcpu, report: Report, ctx: Context | None = None) -> Record:
        """The record of comparing what the host read of ``item`` with the guest's ``report``."""
        answers = self._compared.get(item)
        if answers is None or ctx is not None:
            views = (ctx or self._ctx)._replace(prefix=f"{self._ctx.prefix.rpartition('.')[0]}.views")
            answers = self._compared[item] = self._book.answers(ask_views(item, views))
        told, missing = report.values.get(item), report.missing.get(item, "")
        unread = lost = ""
        host = None
        if vcpu.after is None:
            unread = _UNSEEN
        elif item not in self._layout.fields:
            unread = self._layout.missing.get(item, "")
        else:
            host = shown(item, vcpu.after.get(self._layout, item), report.narrow)
            lost = vcpu.after.why(self._layout, item) if host is None else ""
        return answers.same(host, told, report.problem if told is None else "", missing if told is None else "", unread, lost)

    def _refusal(self, item: str, plant: Planted | None, planted: int | None) -> str:
        """Why ``item`` does not hold what ``plant`` asked for; "" where it does."""
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
            return "" if planted == asked else f"{text(item, asked)} was planted, and could not be read back"
        host = self._ctx.host
        fact = explained(item, planted, host.backend, host.version, self._ctx.vendor, plant.asked.get)
        return f"KVM kept {text(item, planted)} when {text(item, asked)} was planted{f': {fact.says}' if fact else ''}"
