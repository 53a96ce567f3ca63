# SPDX-License-Identifier: GPL-2.0-only
"""One page that opens offline: the host under test, the findings, and all results as a matrix to filter and search.

The results go along as JSON in which everything stands once: a run is the numbers of its observations, an observation those of
its records, as spans. So a run costs what it differs in from those before it. The page makes rows of them as they are scrolled to
(``page/``). It is written at the end of the last run.
"""

from __future__ import annotations

import functools
import hashlib
import json
from array import array
from base64 import b64encode
from collections import Counter
from collections.abc import Iterable, Sequence
from importlib import resources
from itertools import groupby
from typing import Any, NamedTuple, TextIO

import jinja2
from markupsafe import Markup

from kvmtest.judge.findings import EFFECTS, Finding
from kvmtest.model.case import Case
from kvmtest.model.host import Host
from kvmtest.model.record import EVENTS, Block, Observation, Record, Result
from kvmtest.model.run import Head
from kvmtest.model.verdict import ATTENTION, VERDICTS, Verdict, overall
from kvmtest.report import End
from kvmtest.report.finding import details, title
from kvmtest.report.plan import MARKS, ORDER, Place, Table, Tried, tables
from kvmtest.report.show import difference, lines, named, printable, repeat
from kvmtest.results.lines import spans

__all__ = ("Html",)

#: The number of findings of a kind on the page itself; the matrix has the records of all.
_MOST = 200
#: The names of the effects in `EFFECTS`.
_EFFECTS = dict(
    zip(
        EFFECTS,
        ("The guest does not run, or an event is lost", "The guest sees wrong state", "Only the host sees it, by ioctl"),
        strict=True,
    )
)


#: The state of a target of which a case says none.
_PLAIN = "plain"
#: The first number and the last.
_Span = tuple[int, int]


class _Table:
    """Values by number, each but once."""

    def __init__(self) -> None:
        self._numbers: dict[Any, int] = {}

    def number(self, value: Any) -> int:
        return self._numbers.setdefault(value, len(self._numbers))

    @property
    def values(self) -> list[Any]:
        return list(self._numbers)


class _Ran:
    """A run on the page: the numbers of its observations, and an observation for each way in which a block needs attention."""

    def __init__(self, head: Head) -> None:
        self.head = head
        self.seen = array("I")
        self.attention: dict[tuple[str, str, Block], Observation] = {}
        self.end = End(0.0, None, Counter(), ())


class _Row(NamedTuple):
    """A finding, in all runs that have it: cases by run. ``records`` are the numbers of those that it is made of."""

    first: Finding
    host: Host
    cases: Counter[int]
    views: dict[str, None]
    records: set[int]


class Html:
    """The writer of ``--format html``."""

    def __init__(self, out: TextIO, runs: int = 1) -> None:
        self.out = out
        self._runs = runs
        self._ran: list[_Ran] = []
        self._rows: dict[tuple[object, ...], _Row] = {}
        self._strings, self._groups, self._items, self._cases, self._cites, self._states = (_Table() for _ in range(6))
        self._records, self._looks, self._seen = (_Table() for _ in range(3))
        #: The numbers of a block's records. Blocks are kept, so a record of theirs is known by its address.
        self._blocks: dict[Block, tuple[_Span, ...]] = {}
        self._addresses: dict[int, int] = {}
        self._look_of: dict[tuple[Block, ...], int] = {}
        #: The verdict of a look that has records, as its place in `ORDER`.
        self._verdict_of: dict[int, int] = {}
        self._strings.number("")
        self._states.number(_PLAIN)

    def begin(self, head: Head, cases: int) -> None:
        """One more run."""
        self._ran.append(_Ran(head))

    def case(self, case: Case) -> None:
        """Nothing."""

    def observed(self, seen: Sequence[Observation]) -> None:
        """Numbers for values: each distinct value gets one."""
        ran = self._ran[-1]
        for one in seen:
            look = self._look_of.get(one.blocks)
            if look is None:
                parts = (span for block in one.blocks for span in self._spans(block))
                look = self._look_of[one.blocks] = self._looks.number(_joined(parts))
                if verdicts := {verdict for block in one.blocks for verdict in block.counts}:
                    self._verdict_of[look] = ORDER.index(overall(verdicts))
            case = self._cases.number(self._case(one.case))
            ran.seen.append(self._seen.number((self._groups.number((one.event, one.trigger, one.view)), case, look)))
            for block in one.blocks:
                if block.attention:
                    ran.attention.setdefault((one.event, one.view, block), one)

    def end(self, end: End) -> None:
        """The findings of the run; the page, after the last one."""
        number, ran = len(self._ran) - 1, self._ran[-1]
        ran.end = end
        by_item: dict[tuple[str, str], list[tuple[Finding, _Row]]] = {}
        for finding in end.findings:
            made = _Row(finding, ran.head.host, Counter(), {}, set())
            row = self._rows.setdefault(finding.key, made)
            row.cases[number] += finding.cases
            row.views.update(dict.fromkeys(finding.views))
            for item in finding.items:
                by_item.setdefault((finding.event, item), []).append((finding, row))
        for (event, _, block), one in ran.attention.items():
            for record in block.attention:
                for finding, row in by_item.get((event, record.item), ()):
                    if finding.has(Result(one, record)):
                        row.records.add(self._addresses[id(record)])
        ran.attention.clear()
        if len(self._ran) == self._runs:
            self.out.writelines(self._page())
            self.out.flush()

    def _spans(self, block: Block) -> tuple[_Span, ...]:
        found = self._blocks.get(block)
        if found is None:
            known = self._addresses
            for record in block.records:
                if id(record) not in known:
                    known[id(record)] = self._records.number(record)
            found = self._blocks[block] = _joined((known[id(record)],) * 2 for record in block.records)
        return found

    def _case(self, case: Case | None) -> tuple[str, int]:
        """The name of a case and the number of the target's state, -1 outside of any."""
        if case is None:
            return "", -1
        return printable(case.name), self._states.number(printable(str(case.get("state") or _PLAIN)))

    def _text(self, text: str | None) -> int:
        return self._strings.number(printable(text or ""))

    def _record(self, record: Record) -> list[int]:
        """A row of numbers: verdict, item, and what is said of it."""
        # A result's text does not depend on where it was made.
        item, result = record.item, Result(_NOWHERE, record)
        values = (result.planted, result.expected, result.observed)
        said = [named(item, value) if value is not None else "" for value in values]
        said.append(difference(record) if record.verdict.attention else "")
        # A kernel's log has many lines.
        said += ["\n".join(lines(record.reason)), printable(record.deviation or "")]
        cite = self._cites.number(tuple(self._text(text) for text in record.cite))
        return [ORDER.index(record.verdict), self._items.number(item), *(self._strings.number(text) for text in said), cite]

    def _tried(self, ran: _Ran) -> Tried:
        """Count the cases of a run by place and verdict. A case with two observations counts once, with the worse verdict."""
        observed, cases = self._seen.values, self._cases.values
        worst: dict[tuple[Place, int], int] = {}
        for group, case, look in (observed[number] for number in ran.seen):
            state, verdict = cases[case][1], self._verdict_of.get(look)
            if state >= 0 and verdict is not None:
                at = ((group, state), case)
                worst[at] = min(verdict, worst.get(at, verdict))
        found: dict[Place, Counter[int]] = {}
        for (place, _), verdict in worst.items():
            found.setdefault(place, Counter())[verdict] += 1
        return found

    def _data(self, rows: Iterable[_Row], maps: Sequence[Table]) -> dict[str, Any]:
        records = [self._record(record) for record in self._records.values]
        cells, charts = _Table(), _Table()
        chart: list[int] = []
        if self._runs > 1:  # the map as HTML is that of all runs
            shown = [[whole, *each] for table in maps for _, _, row in table.rows for whole, each in row if whole]
            chart = [charts.number(tuple(cells.number(cell) for cell in of)) for of in zip(*shown, strict=True)]
        return {
            "verdicts": ORDER,
            "events": EVENTS,
            "marks": [MARKS[verdict] for verdict in ORDER],
            "attention": len(ATTENTION),
            "strings": self._strings.values,
            "groups": self._groups.values,
            "items": self._items.values,
            "cases": [name for name, _ in self._cases.values],
            "states": [state for _, state in self._cases.values],
            "cites": self._cites.values,
            "records": records,
            "looks": [[first if first == last else (first, last) for first, last in look] for look in self._looks.values],
            "seen": self._seen.values,
            "cells": cells.values,
            "charts": charts.values,
            "chart": chart,
            "findings": [[title(row.first), row.first.event, list(row.views), spans(sorted(row.records))] for row in rows],
            "runs": [
                [printable(ran.head.name), repeat(ran.head.host, "X").removesuffix("X"), spans(ran.seen)] for ran in self._ran
            ],
        }

    def _page(self) -> Any:
        style, script = _file("page.css"), _file("data.js") + _file("page.js")
        rows = sorted(self._rows.values(), key=self._rank)
        kinds = []
        shown: list[_Row] = []
        for kind, found in groupby(rows, key=self._kind):
            same = list(found)
            begin = len(shown)
            shown += same[:_MOST]
            kinds.append({"name": kind, "open": same[0].first.open, "all": len(same), "rows": range(begin, len(shown))})
        tried = [self._tried(ran) for ran in self._ran]
        maps = tables(tried, self._groups.values, self._states.values)
        totals: Counter[Verdict] = sum((ran.end.totals for ran in self._ran), Counter())
        return _template().generate(
            ran=[_head(ran) for ran in self._ran],
            several=self._runs > 1,
            totals=totals,
            verdicts=ORDER,
            marks=MARKS,
            unexpected=sum(totals[verdict] for verdict in VERDICTS if verdict.unexpected),
            findings=sum(row.first.verdict.unexpected for row in rows),
            kinds=kinds,
            rows=[self._finding(row) for row in shown],
            maps=maps,
            style=Markup(style),
            script=Markup(script),
            # The page fetches nothing and runs nothing but what came with it.
            policy=f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'",
            data=Markup(_embedded(self._data(shown, maps))),
        )

    def _rank(self, row: _Row) -> tuple[int, ...]:
        """Open ones first, the worst effect first; of the others those first that not all runs have."""
        first = row.first
        effect = EFFECTS.index(first.effect)
        if first.open:
            return (0, effect, first.verdict.severity, -len(row.cases), -len(first.items), -row.cases.total())
        return (1, len(row.cases) == self._runs, effect, -len(row.cases), -len(first.items), -row.cases.total())

    def _kind(self, row: _Row) -> str:
        if row.first.open:
            return _EFFECTS[row.first.effect]
        where = "" if self._runs == 1 else " in all runs" if len(row.cases) == self._runs else " in some runs"
        return f"known{where}: admitted by KVM, or fixed in a later kernel"

    def _finding(self, row: _Row) -> dict[str, Any]:
        first = row.first
        return {
            "verdict": first.verdict,
            "title": title(first),
            "cases": row.cases,
            "all_items": ", ".join(first.items) if len(first.items) > 5 else "",
            "where": printable(first.where),
            "details": [(name, said) for name, said in details(first, row.host) if name != "where" or self._runs == 1],
        }


_NOWHERE = Observation(None, "", "", "", ())


def _joined(parts: Iterable[_Span]) -> tuple[_Span, ...]:
    """``parts`` in order, those that follow one another as one."""
    found: list[_Span] = []
    first, last = 0, -2
    for begin, end in parts:
        if begin != last + 1:
            if last >= 0:
                found.append((first, last))
            first = begin
        last = end
    if last >= 0:
        found.append((first, last))
    return tuple(found)


def _head(ran: _Ran) -> dict[str, Any]:
    head, host, end = ran.head, ran.head.host, ran.end
    # kvm.ko's own parameters are many and say little here.
    parameters = " ".join(f"{k}={v}" for k, v in host.parameters.items() if v and not k.startswith("kvm."))
    cpu = f"{host.cpu_vendor}, {host.cpu_model}" + (f" ({host.accel})" if host.accel else "")
    facts = [("host", host.name)] * bool(host.name)
    facts += [("kernel", host.kernel), ("backend", host.backend), ("CPU", cpu)]
    if host.lab:
        facts.append(("lab", f"{host.lab['emulator']}, CPU {host.lab['cpu']}"))
        facts.append(("source", str(host.lab["kernel_source"])))
    if parameters:
        facts.append(("module", parameters))
    cut = {None: ", cut short", True: ", interrupted", False: ""}[end.interrupted]
    facts.append(("started", f"{head.started}, took {end.duration_s:.1f} s{cut}"))
    facts.append(("kvmtest", head.tool.version))
    facts += [("shard", str(head.shard))] * (head.shard is not None)
    return {"name": printable(head.name), "facts": [(k, printable(v)) for k, v in facts], "totals": end.totals, "host": host}


@functools.cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["printable"] = printable
    environment.filters["count"] = "{:,}".format
    return environment.from_string(_file("page.html"))


def _file(name: str) -> str:
    return (resources.files(__package__) / "page" / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """Return the hash of an element's text for the Content-Security-Policy."""
    return f"sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _embedded(data: Any) -> str:
    """JSON for a script element: in ASCII, and with nothing in it that could end the element."""
    text = json.dumps(data, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
