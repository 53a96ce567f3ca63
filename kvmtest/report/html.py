# SPDX-License-Identifier: GPL-2.0-only
"""One page that opens offline: what was tested, what needs attention, and all results as a matrix to filter and search.

The results go along as JSON in which each string, each set of values and each id stands once; the page makes rows of them as
they are scrolled to (``page/page.js``). It is written at the end of the run.
"""

from __future__ import annotations

import functools
import hashlib
import json
from array import array
from base64 import b64encode
from collections import Counter
from collections.abc import Sequence
from importlib import resources
from typing import Any, NamedTuple, TextIO

import jinja2
from markupsafe import Markup

from kvmtest.engine.result import VERDICTS, CaseTime, Host, Result
from kvmtest.report.blocks import Block, Blocks
from kvmtest.report.runs import ONE, Run
from kvmtest.report.show import difference, lines, named, printable, repeat
from kvmtest.report.tally import ATTENTION, WORST

__all__ = ("Html",)

#: How many blocks, and how many values and cases of each, stand on the page itself; the matrix has all.
_BLOCKS, _VALUES, _CASES = 100, 3, 6
#: One character beside the colour.
_MARKS = {"fail": "F", "error": "E", "fixed": "X", "known": "K", "pass": "\u2022", "info": "i", "skip": "\u2013"}


class _Table:
    """Values by number, each but once."""

    def __init__(self) -> None:
        self._numbers: dict[Any, int] = {}

    def number(self, value: Any) -> int:
        return self._numbers.setdefault(value, len(self._numbers))

    @property
    def values(self) -> list[Any]:
        return list(self._numbers)


class _Ran(NamedTuple):
    """A run on the page. ``rows`` are the numbers of id, case and details of one result after the other."""

    run: Run
    host: Host
    started: str
    rows: array[int]
    time: list[float]
    totals: Counter[str]


class Html:
    """The writer of ``--format html``."""

    def __init__(self, out: TextIO, runs: Sequence[Run] = ONE) -> None:
        self.out = out
        self._runs = runs
        self._ran: list[_Ran] = []
        self._blocks = Blocks()
        self._strings = _Table()
        self._groups, self._items, self._ids, self._cases, self._details, self._cites = (_Table() for _ in range(6))
        self._seen: dict[tuple[Any, ...], int] = {}
        self._text("")

    def begin(self, host: Host, started: str, cases: int) -> None:
        """One more run."""
        self._ran.append(_Ran(self._runs[len(self._ran)], host, started, array("I"), [], Counter()))

    def running(self, case: str) -> None:
        """Nothing."""

    def result(self, result: Result) -> None:
        """Three numbers, and what they stand for where it is new."""
        ran = self._ran[-1]
        ran.totals[result.verdict] += 1
        group = self._groups.number((result.event, result.trigger, result.view))
        number = self._ids.number((group, self._items.number(result.item)))
        ran.rows.extend((number, self._cases.number(result.case), self._detail(result)))
        self._blocks.add(result, ran.run.name)

    def case(self, case: CaseTime) -> None:
        """Nothing."""

    def end(self, duration_s: float, totals: Counter[str]) -> None:
        """The page, after the last run."""
        self._ran[-1].time.append(duration_s)
        if len(self._ran) == len(self._runs):
            self.out.writelines(self._page())
            self.out.flush()

    def _text(self, text: str | None) -> int:
        return self._strings.number(printable(text or ""))

    def _detail(self, result: Result) -> int:
        item, expected, observed = result.item, result.expected, result.observed
        values = (result.planted, expected, observed)
        key = (item, *values, result.verdict, result.reason, result.cite, result.deviation)
        if key not in self._seen:
            said = [named(item, value) if value is not None else "" for value in values]
            said.append(difference(item, expected, observed) if result.verdict in ATTENTION else "")
            # A kernel's log has many lines.
            said += ["\n".join(lines(result.reason)), printable(result.deviation or "")]
            cite = self._cites.number(tuple(self._text(text) for text in result.cite))
            row = (WORST.index(result.verdict), *(self._strings.number(text) for text in said), cite)
            self._seen[key] = self._details.number(row)
        return self._seen[key]

    def _data(self) -> dict[str, Any]:
        return {
            "verdicts": WORST,
            "marks": [_MARKS[verdict] for verdict in WORST],
            "attention": len(ATTENTION),
            "strings": self._strings.values,
            "groups": self._groups.values,
            "items": self._items.values,
            "ids": self._ids.values,
            "cases": [printable(case) for case in self._cases.values],
            "details": self._details.values,
            "cites": self._cites.values,
            "runs": [
                {"name": printable(ran.run.name), "command": repeat(ran.host, "X").removesuffix("X"), "rows": ran.rows.tolist()}
                for ran in self._ran
            ],
        }

    def _page(self) -> Any:
        style, script = _file("page.css"), _file("page.js")
        totals: Counter[str] = sum((ran.totals for ran in self._ran), Counter())
        found = [block for verdict in ("fail", "error", "fixed", "known") for block in self._blocks.of(verdict)]
        return _template().generate(
            ran=[_head(ran) for ran in self._ran],
            several=len(self._ran) > 1,
            totals=totals,
            verdicts=VERDICTS,
            order=WORST,
            marks=_MARKS,
            unexpected=totals["fail"] + totals["error"],
            blocks=[self._block(block) for block in found[:_BLOCKS]],
            more=max(0, len(found) - _BLOCKS),
            style=Markup(style),
            script=Markup(script),
            # The page fetches nothing and runs nothing but what came with it.
            policy=f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'",
            data=Markup(_embedded(self._data())),
        )

    def _block(self, block: Block) -> dict[str, Any]:
        first = block.first
        cases = list(block.cases)
        hosts = {ran.run.name: ran.host for ran in self._ran}
        sets = [
            [
                ("planted", named(first.item, planted)),
                ("expected", named(first.item, expected)),
                ("observed", named(first.item, observed)),
                ("differs", difference(first.item, expected, observed)),
            ]
            for planted, expected, observed in list(block.values)[:_VALUES]
            if not planted is expected is observed is None
        ]
        return {
            "verdict": first.verdict,
            "name": printable(block.name),
            "find": f"{first.event}.*.{first.view}.{first.item}",
            "results": block.results,
            "runs": [printable(name) for name in block.runs],
            "sets": sets,
            "more_sets": max(0, len(block.values) - _VALUES),
            "reason": lines(first.reason) if first.reason else [],
            "deviation": printable(first.deviation or ""),
            "cite": [printable(text) for text in first.cite] if first.verdict != "error" else [],
            "cases": [printable(case) for case in cases[:_CASES]],
            "more_cases": max(0, len(cases) - _CASES),
            "command": repeat(hosts[next(iter(block.runs))], first.id),
        }


def _head(ran: _Ran) -> dict[str, Any]:
    host = ran.host
    # kvm.ko's own parameters are many and say little here.
    parameters = " ".join(f"{k}={v}" for k, v in host.parameters.items() if v and not k.startswith("kvm."))
    facts = [("kernel", host.kernel), ("backend", host.backend), ("CPU", f"{host.cpu_vendor}, {host.cpu_model}")]
    if host.lab:
        facts.append(("lab", f"{host.lab['emulator']}, CPU {host.lab['cpu']}"))
        facts.append(("source", str(host.lab["kernel_source"])))
    if parameters:
        facts.append(("module", parameters))
    facts.append(("started", f"{ran.started}, took {ran.time[0]:.1f} s"))
    facts.append(("kvmtest", ran.run.version))
    return {"name": printable(ran.run.name), "facts": [(k, printable(v)) for k, v in facts], "totals": ran.totals, "host": host}


@functools.cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["printable"] = printable
    return environment.from_string(_file("page.html"))


def _file(name: str) -> str:
    return (resources.files(__package__) / "page" / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """What a Content-Security-Policy calls the text of an element."""
    return f"sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _embedded(data: Any) -> str:
    """JSON for a script element: in ASCII, and with nothing in it that could end the element."""
    text = json.dumps(data, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
