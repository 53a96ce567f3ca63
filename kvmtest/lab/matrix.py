# SPDX-License-Identifier: GPL-2.0-only
"""Several cells, as many at once as this machine takes, and what differs between them."""

from __future__ import annotations

import argparse
import codecs
import io
import json
import os
import shutil
import tempfile
import textwrap
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TextIO

from kvmtest.engine.result import UNEXPECTED, VERDICTS, CaseTime, Host, Result
from kvmtest.kvm import Stop
from kvmtest.lab import emulator, initramfs
from kvmtest.lab.cell import Alive, Begin, Booting, Cell, Remark, Spec, Times
from kvmtest.lab.error import Cancelled, LabError, NotFound
from kvmtest.report.json import Json
from kvmtest.report.runs import MATRIX as SCHEMA
from kvmtest.report.tally import WORST

__all__ = ("SCHEMA", "Outcome", "differing", "jobs", "run", "table")

INTERRUPTED = 130
#: Whether it can be tried at all: that two backends differ in this is no news.
_QUIET = frozenset(("skip", "info", "pass", "-"))
_TICK_S = 0.5


class _Kept:
    """The document of a cell in an unnamed file, so that nothing is to be removed, however this ends.

    It is written case by case, and what there was no room for is cut off again: it can be ended at any time.
    """

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(buffering=0)
        self._new = io.StringIO()
        self._json = Json(self._new)
        self._size = 0
        self._totals: Counter[str] = Counter()
        self._before = self._totals.copy()
        self._end = ""

    @classmethod
    def empty(cls, spec: Spec, started: str) -> _Kept:
        """Of a cell that was given up."""
        kept = cls()
        kept.end(_unknown(spec), started, 0.0)
        return kept

    def begin(self, host: Host, started: str, cases: int) -> None:
        """As of a writer of reports; so are the next two."""
        self._json.begin(host, started, cases)
        self._keep()

    def result(self, result: Result) -> None:
        """Kept with its case."""
        self._json.result(result)
        self._totals[result.verdict] += 1

    def case(self, case: CaseTime) -> None:
        """The end of one. Raises LabError."""
        self._json.case(case)
        self._keep()

    def end(self, host: Host, started: str, duration_s: float) -> None:
        """Whatever became of the cell; ``host`` is for one that did not begin. Raises LabError."""
        try:
            self._keep()
        finally:
            if not self._size:
                self._json = Json(self._new)
                self._json.begin(host, started, 0)
            self._json.end(duration_s, self._totals)
            self._end = self._new.getvalue()

    def _keep(self) -> None:
        """Raises LabError."""
        new = memoryview(self._new.getvalue().encode())
        self._new.seek(0)
        self._new.truncate()
        try:
            while new:
                new = new[self._file.write(new) :]
            self._size = self._file.tell()
            self._before = self._totals.copy()
        except OSError as error:
            self._file.truncate(self._size)
            self._file.seek(self._size)
            self._totals = self._before
            raise LabError(f"no more of its results can be kept in {tempfile.gettempdir()}: {error.strerror}") from error

    def copy(self, out: TextIO) -> None:
        """Write the document."""
        self._file.seek(0)
        shutil.copyfileobj(codecs.getreader("utf-8")(self._file), out)
        out.write(self._end)

    def close(self) -> None:
        """Drop it."""
        self._file.close()


class Outcome:
    """What a cell said: a verdict an id, totals, times, and the whole document where it is ``kept``."""

    def __init__(self, spec: Spec, kept: _Kept | None = None) -> None:
        self.spec = spec
        self.kept = kept
        self.verdicts: dict[str, str] = {}
        self.totals: Counter[str] = Counter()
        self.times: Times | None = None
        self.failed = ""

    def add(self, result: Result) -> None:
        """Count one result."""
        self.totals[result.verdict] += 1
        before = self.verdicts.get(result.id)
        if before is None or WORST.index(result.verdict) < WORST.index(before):
            self.verdicts[result.id] = result.verdict


def jobs(specs: list[Spec], asked: int | None) -> int:
    """How many cells to run at once: one a core, within the memory that is free."""
    cores = len(os.sched_getaffinity(0))
    each = max((emulator.for_backend(spec.backend).memory_mib for spec in specs), default=1)
    with open("/proc/meminfo", encoding="ascii") as file:
        free = next((int(line.split()[1]) for line in file if line.startswith("MemAvailable:")), each << 10)
    return max(1, min(asked or cores, free // 1024 // each, len(specs)))


def _unknown(spec: Spec) -> Host:
    return Host(spec.kernel.release, spec.backend, "unknown", "unknown", {})


def _play(cell: Cell, outcome: Outcome, started: str, say: Callable[[str], None]) -> None:
    kept = outcome.kept
    host = _unknown(cell.spec)
    begun = time.monotonic()
    steps = cell.steps()
    try:
        for step in steps:
            if isinstance(step, Result):
                outcome.add(step)
                if kept:
                    kept.result(step)
            elif isinstance(step, Times):
                outcome.times = step
            elif isinstance(step, Alive | Remark) or isinstance(step, Booting) and not step.where:
                say(f"{cell.spec.name}: {step}")
            elif isinstance(step, Begin):
                host, begun = step.host, time.monotonic()
                if kept:
                    kept.begin(host, started, step.cases)
            elif kept and isinstance(step, CaseTime):
                kept.case(step)
    finally:
        steps.close()
        if kept:
            kept.end(host, started, time.monotonic() - begun)


def differing(outcomes: list[Outcome]) -> tuple[dict[str, tuple[str, ...]], int]:
    """A row of verdicts for each id on which the cells do not agree, and how many more differ only in being tried or not."""
    rows: dict[str, tuple[str, ...]] = {}
    quiet = 0
    for name in dict.fromkeys(name for outcome in outcomes for name in outcome.verdicts):
        row = tuple(outcome.verdicts.get(name, "-") for outcome in outcomes)
        if len(set(row)) == 1:
            continue
        if _QUIET.issuperset(row):
            quiet += 1
        else:
            rows[name] = row
    return rows, quiet


def _shown(names: Iterable[str]) -> list[str]:
    """Ids as a shell would write them: those that differ in the trigger alone are one, then those that differ in the item."""
    triggers: dict[tuple[str, str, str], list[str]] = {}
    for name in names:
        event, trigger, view, item = name.split(".", 3)
        triggers.setdefault((event, view, item), []).append(trigger)
    items: dict[tuple[str, str, str], list[str]] = {}
    for (event, view, item), of_item in triggers.items():
        items.setdefault((event, _braces(of_item), view), []).append(item)
    return [f"{event}.{of_items}.{view}.{_braces(found)}" for (event, of_items, view), found in items.items()]


def _braces(names: list[str]) -> str:
    return names[0] if len(names) == 1 else "{" + ",".join(names) + "}"


def _severity(row: tuple[str, ...]) -> tuple[int, ...]:
    """Sorts the rows that say most to the front: those with the worst verdicts, and with most of them."""
    return tuple(-row.count(verdict) for verdict in WORST)


def table(outcomes: list[Outcome], width: int = 100) -> list[str]:
    """The lines of the report: each cell's totals and times, then what differs, grouped by how; ``width`` in characters."""
    return [*_cells(outcomes), "", *_differences(outcomes, width)]


def _cells(outcomes: list[Outcome]) -> Iterator[str]:
    first = max(4, *(len(outcome.spec.name) for outcome in outcomes))
    yield f"{'cell':{first}} {' '.join(f'{v:>6}' for v in VERDICTS)}  {'boot':>7} {'run':>7} {'end':>5}  kernel"
    for outcome in outcomes:
        counts = " ".join(f"{outcome.totals[v] or '.':>6}" for v in VERDICTS)
        times = outcome.times
        took = f"{times.boot_s:6.1f}s {times.run_s:6.1f}s {times.shutdown_s:4.1f}s" if times else f"{'-':>7} {'-':>7} {'-':>5}"
        yield f"{outcome.spec.name:{first}} {counts}  {took}  {outcome.failed or outcome.spec.kernel.release}"


def _differences(outcomes: list[Outcome], width: int) -> Iterator[str]:
    rows, quiet = differing(outcomes)
    by_row: dict[tuple[str, ...], list[str]] = {}
    for name, row in rows.items():
        by_row.setdefault(row, []).append(name)
    if by_row:
        columns = [outcome.spec.name for outcome in outcomes]
        widths = [max(len(column), 6) for column in columns]
        yield f"{len(rows)} ids differ between the cells, in {len(by_row)} ways:"
        yield "  ".join(f"{c:>{w}}" for c, w in zip(columns, widths, strict=True))
        for row in sorted(by_row, key=_severity):
            yield "  ".join(f"{v:>{w}}" for v, w in zip(row, widths, strict=True)) + f"  ({len(by_row[row])})"
            for shown in _shown(by_row[row]):
                # Commas are where a long one may be broken.
                lines = textwrap.wrap(shown.replace(",", ", "), width - 4, break_long_words=False, break_on_hyphens=False)
                yield from (f"{'    ' if i == 0 else '      '}{line}" for i, line in enumerate(lines))
    else:
        yield "No id has a different verdict in one of the cells."
    if quiet:
        yield f"{quiet} more ids differ only in what can be tried or told; --format json has them all"


def _document(outcomes: list[Outcome], out: TextIO) -> None:
    out.write(f'{{"schema": "{SCHEMA}", "cells": [')
    for number, outcome in enumerate(outcomes):
        times = outcome.times._asdict() if outcome.times else {}
        head = {"cell": outcome.spec.name, "failed": outcome.failed, **{k: round(v, 3) for k, v in times.items()}}
        out.write(("," if number else "") + "\n" + json.dumps(head)[:-1] + ', "document": ')
        assert outcome.kept
        outcome.kept.copy(out)
        out.write("}")
    out.write("\n]}\n")
    out.flush()


def run(
    specs: list[Spec],
    args: argparse.Namespace,
    status: Callable[[Counter[str], bool], int],
    output: Callable[[], TextIO],
    say: Callable[[str], None],
    stop: Stop,
    convert: Callable[[str, TextIO], None],
) -> int:
    """``kvmtest lab matrix``: run ``specs`` until ``stop``, write the report, return the exit status.

    ``convert`` writes what is neither text nor json to the file it is given, and what else was asked for, from a document.
    """
    if args.format == "jsonl" or any(name == "jsonl" for name, _ in args.report):
        raise NotFound("a matrix has no --format jsonl, which cannot say which cell a record is of: --format json can")
    kept = args.format != "text" or bool(args.report)
    out = output()
    started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    initramfs.base()
    # The slow ones first, so that the last to end is not one that began last.
    specs = sorted(specs, key=lambda spec: -emulator.for_backend(spec.backend).boot_s)
    at_once = jobs(specs, args.jobs)
    say(f"{len(specs)} cells, {at_once} at once")
    begin = time.monotonic()
    outcomes = [Outcome(spec, _Kept() if kept else None) for spec in specs]
    try:
        _all(outcomes, at_once, started, say, stop)
        outcomes.sort(key=lambda outcome: [spec.name for spec in specs].index(outcome.spec.name))
        if args.format == "json":
            _document(outcomes, out)
        elif args.format == "text":
            width = shutil.get_terminal_size((100, 24)).columns
            out.write("\n".join(table(outcomes, max(60, width))) + "\n")
        if args.report or args.format not in ("text", "json"):
            with tempfile.TemporaryDirectory() as folder:
                path = os.path.join(folder, "matrix.json")
                try:
                    with open(path, "w", encoding="utf-8") as file:
                        _document(outcomes, file)
                except OSError as error:
                    raise LabError(f"no report can be made in {tempfile.gettempdir()}: {error.strerror}") from error
                convert(path, out)
        say(f"all of it: {time.monotonic() - begin:.0f} s")
    finally:
        for outcome in outcomes:
            if outcome.kept:
                outcome.kept.close()
        out.flush()
    if stop.seen:
        say("interrupted; what was measured until then is in the report")
        return INTERRUPTED
    return _status(outcomes, args, status)


def _status(outcomes: list[Outcome], args: argparse.Namespace, status: Callable[[Counter[str], bool], int]) -> int:
    failed = [outcome for outcome in outcomes if outcome.failed]
    if len(failed) == len(outcomes):
        raise LabError(failed[0].failed)
    totals: Counter[str] = Counter()
    for outcome in outcomes:
        totals.update(outcome.totals)
    totals["error"] += len(failed)
    return status(totals, args.strict)


def _all(outcomes: list[Outcome], at_once: int, started: str, say: Callable[[str], None], stop: Stop) -> None:
    """Run all cells; those that have not begun end at once after ``stop``, and those that do not end then are given up."""
    pool = ThreadPoolExecutor(at_once)
    pending: dict[Future[None], Outcome] = {}
    try:
        stop.running = True
        pending |= {pool.submit(_play, Cell(outcome.spec, stop), outcome, started, say): outcome for outcome in outcomes}
        while pending:
            for done in wait(pending, _TICK_S, FIRST_COMPLETED).done:
                _over(done, pending[done], say)
                del pending[done]
    except KeyboardInterrupt:
        stop.seen = True
        for future, outcome in pending.items():
            outcome.failed = "interrupted"
            if kept := outcome.kept:
                outcome.kept = _Kept.empty(outcome.spec, started)
                future.add_done_callback(lambda _, kept=kept: kept.close())  # type: ignore[misc]
    except BaseException:
        stop.seen = True
        raise
    finally:
        pool.shutdown(wait=not pending, cancel_futures=True)


def _over(done: Future[None], outcome: Outcome, say: Callable[[str], None]) -> None:
    try:
        done.result()
    except Cancelled:
        outcome.failed = "interrupted"
    except Exception as error:
        # Whatever it is: the other cells go on, and what is measured of them is written.
        outcome.failed = str(error) if isinstance(error, LabError) else f"{type(error).__name__}: {error}"
        say(f"{outcome.spec.name}: {outcome.failed}")
    else:
        bad = sum(outcome.totals[v] for v in UNEXPECTED)
        say(f"{outcome.spec.name}: {outcome.times}; {sum(outcome.totals.values())} results, {bad} unexpected")
