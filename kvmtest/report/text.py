# SPDX-License-Identifier: GPL-2.0-only
"""Text for people: what KVM this is, what needs attention, totals. Colour and progress on a terminal, none elsewhere."""

from __future__ import annotations

import io
import os
import re
import sys
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, TextIO

from kvmtest.engine.host import title
from kvmtest.engine.result import EVENTS, VERDICTS, VIEWS, CaseTime, Host, Result
from kvmtest.report.blocks import Block, Blocks
from kvmtest.report.runs import ONE, Run
from kvmtest.report.show import columns, difference, lines, named, printable, repeat, short, wrapped

__all__ = ("Text", "blocks")

_COLOURS = {"pass": "32", "fail": "1;31", "known": "33", "fixed": "36", "skip": "90", "error": "1;35", "info": "34"}
_HEX = re.compile("0x[0-9a-f]+")
#: How many cases a block names before it only counts them, and how many reasons the list of skips shows.
_CASES, _REASONS = 3, 12
#: How many sets of values a block shows.
_VALUES = 3
#: How many lines the closing list has for each verdict, and what one of them is.
_LISTED = 12
_KINDS = {"error": "error", "fail": "failure"}


class Text:
    """The writer of ``--format text``."""

    def __init__(
        self, out: TextIO, runs: Sequence[Run] = ONE, progress: TextIO | None = None, colour: str = "auto"
    ) -> None:
        self.out = out
        self._runs = runs
        self._begun = 0
        self._width = columns(out)
        self._colour = colour == "always" or colour == "auto" and _coloured(out)
        self._progress = progress if progress is not None else sys.stderr
        self._bar = _bar(self._progress)
        self._clear()

    def _clear(self) -> None:
        self._blocks = Blocks()
        self._table: dict[tuple[str, str, str], Counter[str]] = {}
        self._skips: dict[str, tuple[set[str], set[str]]] = {}

    def _paint(self, verdict: str, text: str) -> str:
        return f"\x1b[{_COLOURS[verdict]}m{text}\x1b[0m" if self._colour else text

    def _line(self, text: str = "") -> None:
        self.out.write(text + "\n")

    def _wrapped(self, text: str, first: str, hang: str, verdict: str = "") -> None:
        """``text`` in lines of the width; ``first`` begins the first, in the colour of ``verdict``, and ``hang`` the others."""
        filled = wrapped(text, self._width, first, hang)
        self._line(self._paint(verdict, first.rstrip()) + filled[len(first.rstrip()) :] if verdict else filled)

    def begin(self, host: Host, started: str, cases: int) -> None:
        """The header: tool, kernel, backend, CPU, the parameters that are not off or empty."""
        run = self._runs[self._begun]
        if self._begun:
            self._clear()
            self._line()
        self._begun += 1
        self._host = host
        head = [f"run      {run.name}"] if len(self._runs) > 1 else []
        head += [title(host, run.accel), f"kvmtest  {run.version}   {started}   backend {host.backend}, {host.cpu_vendor}"]
        if host.lab:
            head += [f"CPU      {host.cpu_model}, model {host.lab['cpu']}", f"kernel   {host.lab['kernel_source']}"]
        for line in head:
            self._wrapped(printable(line), "", " " * 9)
        if host.parameters:
            # kvm.ko's own parameters are many and say little here: --format json has them.
            shown = " ".join(f"{k}={v}" for k, v in host.parameters.items() if v and not k.startswith("kvm."))
            self._wrapped(printable(shown), "module   ", " " * 9)
        self._line()
        self.out.flush()
        self._bar.begin(cases)

    def running(self, case: str) -> None:
        """Show the case on the progress line."""
        self._bar.running(case)

    def result(self, result: Result) -> None:
        """Count it; keep it where it needs attention."""
        key = (result.event, result.trigger, result.view)
        self._table.setdefault(key, Counter())[result.verdict] += 1
        if result.verdict == "skip":
            reasons, ids = self._skips.setdefault(_HEX.sub("N", result.reason), (set(), set()))
            reasons.add(result.reason)
            ids.add(result.id)
        self._blocks.add(result)

    def case(self, case: CaseTime) -> None:
        """Move the progress on."""
        self._bar.done()

    def end(self, duration_s: float, totals: Counter[str]) -> None:
        """What needs attention, worst first, then the totals."""
        self._bar.end()
        self.show_blocks()
        if self._skips:
            self._show_skips()
        self._show_totals(totals)
        self._show_closing(f"{sum(totals.values())} results in {duration_s:.1f} s")
        self.out.flush()

    def show_blocks(self) -> None:
        """What needs attention, worst first."""
        for verdict in ("error", "fail", "fixed", "known"):
            for block in self._blocks.of(verdict):
                self._show(block)

    def _show(self, block: Block) -> None:
        first = block.first
        self._wrapped(block.name, f"{first.verdict.upper():5} ", " " * 6, first.verdict)
        if first.verdict != "error":
            for planted, expected, observed in list(block.values)[:_VALUES]:
                if planted is expected is observed is None:  # what a kernel says has no value
                    continue
                self._fill("planted", named(first.item, planted))
                self._fill("expected", named(first.item, expected))
                same = "  (as planted)" if observed == planted and planted is not None else ""
                self._fill("observed", named(first.item, observed) + same)
                if differs := difference(first.item, expected, observed):
                    self._fill("differs", differs)
            if len(block.values) > _VALUES:
                self._line(f"      and {_count(len(block.values) - _VALUES, 'more set')} of values; --format json has them all")
        if first.reason:
            self._fill("because", first.reason + (f" [{first.deviation}]" if first.deviation else ""))
        more = f" and {len(block.cases) - _CASES} more" if len(block.cases) > _CASES else ""
        self._fill("cases", "  ".join(list(block.cases)[:_CASES]) + more)
        if first.verdict != "error":
            self._fill("cite", "; ".join(first.cite))
        self._line()

    def _fill(self, name: str, text: str) -> None:
        for line in lines(text):
            self._wrapped(line, f"      {name:9} ", " " * 16)
            name = ""

    def _show_skips(self) -> None:
        self._line("Not tried, by reason:")
        # Reasons that differ in numbers only are one line, with N for the number.
        ranked = [(min(r) if len(r) == 1 else same, ids) for same, (r, ids) in self._skips.items()]
        ranked.sort(key=lambda pair: (-len(pair[1]), pair[0]))
        for reason, ids in ranked[:_REASONS]:
            example = f"{len(ids)} ids, e.g. {min(ids)}" if len(ids) > 1 else min(ids)
            self._wrapped(printable(f"{reason} ({example})"), "  ", " " * 6)
        if len(ranked) > _REASONS:
            rest = len(ranked) - _REASONS
            self._line(f"  and {rest} more reasons; --format json has them all")
        self._line()

    def _show_totals(self, totals: Counter[str]) -> None:
        shown = [v for v in VERDICTS]
        width = max([len("event.trigger.view"), *(len(".".join(key)) for key in self._table)])
        self._line(" ".join([f"{'event.trigger.view':{width}}", *(f"{v:>6}" for v in shown)]))
        for key, counts in sorted(self._table.items(), key=lambda row: _rank(*row[0])):
            cells = [self._cell(v, counts[v]) for v in shown]
            self._line(" ".join([f"{'.'.join(key):{width}}", *cells]))
        self._line(" ".join([f"{'total':{width}}", *(self._cell(v, totals[v]) for v in shown)]))
        self._line()

    def _show_closing(self, counted: str) -> None:
        """What failed, a line each, and the commands that follow: the end is what a terminal still shows."""
        failed = {verdict: list(_failed(self._blocks.of(verdict))) for verdict in ("error", "fail")}
        wide = max((len(one.selector) for found in failed.values() for one in found[:_LISTED]), default=0)
        for verdict, found in failed.items():
            for one in found[:_LISTED]:
                head = f"{verdict.upper():5} {one.selector:{wide}} {one.results:>6}  "
                tail = textwrap.shorten(one.told, max(self._width - len(head), 20), placeholder=" ...")
                self._line(self._paint(verdict, head[:5]) + head[5:] + tail)
            if len(found) > _LISTED:
                self._line(f"      and {_count(len(found) - _LISTED, _KINDS[verdict])} more; all are above")
        told = " and ".join(_count(len(failed[v]), _KINDS[v]) for v in ("fail", "error") if failed[v])
        if not told:
            self._line(f"{counted}: {self._paint('pass', 'nothing unexpected')}")
            return
        results = _count(sum(one.results for found in failed.values() for one in found), "result")
        self._line(f"{counted}: {self._paint('fail', told)} ({results})")
        one = (failed["fail"] or failed["error"])[0]
        self._line(f"  run it again:  {repeat(self._host, one.selector)}")
        self._line(f"  explain it:    kvmtest explain {one.first.id if one.first.view == 'kernel' else one.first.item}")

    def _cell(self, verdict: str, count: int) -> str:
        cell = f"{count or '.':>6}"
        return self._paint(verdict, cell) if count else cell


class _Failed(NamedTuple):
    """A line of the closing list: ``results`` of one item after one event, by whatever triggers, of which ``first`` is one."""

    selector: str
    first: Result
    results: int

    @property
    def told(self) -> str:
        """What went wrong, in a line."""
        first = self.first
        if first.verdict == "error" or first.observed is None:
            return printable(first.reason.partition("\n")[0])
        return f"{short(first.observed)}, not {short(first.expected)}"


def _failed(found: Iterable[Block]) -> Iterator[_Failed]:
    """The lines that blocks of one verdict are: failures of an item are one, errors as many as there are reasons."""
    merged: dict[tuple[str, ...], list[Block]] = {}
    for block in found:
        first = block.first
        why = first.reason if first.verdict == "error" else ""
        merged.setdefault((first.event, first.view, first.item, why), []).append(block)
    for (event, view, item, _), same in merged.items():
        triggers = {trigger for block in same for trigger in block.triggers}
        trigger = triggers.pop() if len(triggers) == 1 else "*"
        yield _Failed(f"{event}.{trigger}.{view}.{item}", same[0].first, sum(block.results for block in same))


def _rank(event: str, trigger: str, view: str) -> tuple[int, str, int]:
    return EVENTS.index(event), trigger, VIEWS.index(view)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' if number != 1 else ''}"


def blocks(results: Iterable[Result]) -> str:
    """Those of ``results`` that need attention, as the report shows them; "" where none does."""
    out = io.StringIO()
    text = Text(out, progress=out)
    for result in results:
        text.result(result)
    text.show_blocks()
    return out.getvalue()


def _coloured(out: TextIO) -> bool:
    """Colour by default: on a terminal that has it, where https://no-color.org/ does not forbid it."""
    return out.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


class _NoBar:
    """Progress where nobody watches."""

    def begin(self, cases: int) -> None: ...

    def running(self, case: str) -> None: ...

    def done(self) -> None: ...

    def end(self) -> None: ...


class _LineBar(_NoBar):
    """One line that is written over, for a terminal without rich."""

    def __init__(self, out: TextIO) -> None:
        self.out = out
        self._cases = self._done = 0

    def begin(self, cases: int) -> None:
        self._cases = cases

    def running(self, case: str) -> None:
        # The last column stays free: some terminals begin the next line with it.
        self.out.write("\r\x1b[K" + f"[{self._done}/{self._cases}] {case}"[: columns(self.out) - 1])
        self.out.flush()

    def done(self) -> None:
        self._done += 1

    def end(self) -> None:
        self.out.write("\r\x1b[K")
        self.out.flush()


class _RichBar(_NoBar):
    """rich's progress bar."""

    def __init__(self, out: TextIO) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
        from rich.table import Column

        name = TextColumn("{task.description}", table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis"))
        shown = (BarColumn(20), MofNCompleteColumn(), TimeElapsedColumn(), name)
        self._progress = Progress(*shown, console=Console(file=out, width=columns(out)), transient=True, expand=True)
        self._task = self._progress.add_task("", total=None)

    def begin(self, cases: int) -> None:
        self._progress.update(self._task, total=cases)
        self._progress.start()

    def running(self, case: str) -> None:
        self._progress.update(self._task, description=case)

    def done(self) -> None:
        self._progress.advance(self._task)

    def end(self) -> None:
        self._progress.stop()


def _bar(out: TextIO) -> _NoBar:
    if not out.isatty() or os.environ.get("TERM") == "dumb":
        return _NoBar()
    try:
        return _RichBar(out)
    except ImportError:
        return _LineBar(out)
