# SPDX-License-Identifier: GPL-2.0-only
"""Promises that hold whatever is done to kvmtest."""

from __future__ import annotations

import gzip
import json
import os
import re
import signal
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable
from pathlib import Path

from kvmtest.model.run import Run
from kvmtest.results import saved
from tests.torture.child import Ended

__all__ = (
    "STATUSES",
    "Broken",
    "Verdicts",
    "documented",
    "ended",
    "kept",
    "need",
    "need_report",
    "nothing_left",
    "quiet",
    "report",
    "same_verdicts",
    "unbegun",
    "whole",
)

STATUSES = (0, 1, 2, 3, 130)
#: Control characters of a terminal, except line ends and tabs.
_CONTROL = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\x9b]|\xc2[\x80-\x9f]")
#: Control sequences of a progress line.
_PROGRESS = re.compile(rb"\r\x1b\[K|\r\n|\r")


class Broken(AssertionError):
    """A promise that was not kept."""


def _need(holds: object, rule: str, *evidence: object) -> None:
    if not holds:
        raise Broken(f"{rule}: {' '.join(str(one)[:600] for one in evidence)}")


def ended(done: Ended, allowed: Iterable[int] = STATUSES) -> None:
    """It ended by itself, with a status that is documented, and said so as it should."""
    _need(not done.hung, "it ends", done.words, done.err[-300:])
    said = _PROGRESS.sub(b"", done.err)
    _need(b"Traceback" not in said and b"Exception ignored" not in said, "no traceback", done.words, said[-900:])
    _need(b"a fault of kvmtest itself" not in said, "nothing unforeseen", done.words, said[-500:])
    # A signal before anything is measured ends it wherever it is.
    at_once = done.status == 130 and b"the results so far" not in said
    _need(at_once or b"LEAK" not in said, "no descriptor left", done.words, said[-300:])
    for text in (said, done.out):
        found = _CONTROL.search(text)
        near = text[max(0, found.start() - 60) : found.start() + 40] if found else b""
        _need(not found, "no control character", done.words, near)
    _need(done.status in tuple(allowed), "a documented status", done.status, done.words, said[-300:])
    _need(not done.left, "no process left", done.words, done.left)


def unbegun(done: Ended, folder: Path) -> tuple[int, ...]:
    """Its status, if a signal ended it before a line of kvmtest ran, as any program; else nothing."""
    by_signal = done.status in [-number for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    silent = not done.err and not done.out and set(os.listdir(folder)) <= {"tmp"}
    return (done.status,) if by_signal and silent else ()


def nothing_left(folder: Path, expected: Iterable[str], mounts: bytes) -> None:
    """No temporary file, no mount."""
    left = sorted(os.listdir(folder / "tmp")) if (folder / "tmp").exists() else []
    _need(not left, "no temporary file left", left)
    more = sorted(set(os.listdir(folder)) - {"tmp", *expected})
    _need(not more, "no file beside the reports", more)
    # Others mount what they like.
    now, before = ({line for line in said.splitlines() if str(folder.parent).encode() in line} for said in (_mounts(), mounts))
    _need(now == before, "no mount left", now - before)


def _mounts() -> bytes:
    return Path("/proc/mounts").read_bytes()


def report(path: Path) -> list[Run]:
    """The runs in saved results, of which the last line may be cut."""
    notes: list[str] = []
    try:
        return saved.load(str(path), notes.append)
    except saved.SavedError as error:
        raise Broken(f"whole lines are readable: {error}") from None


def _text(path: Path) -> str:
    data = path.read_bytes()
    return (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data).decode()


def whole(path: Path, format: str) -> None:
    """A report that is there is there as a whole."""
    try:
        text = _text(path)
        if format == "junit":
            ElementTree.fromstring(text)
        elif format == "json":
            json.loads(text)
            report(path)
        elif format == "kcidb":
            json.loads(text)
        elif format == "jsonl":
            report(path)
        elif format == "ktap":
            holds = re.search(r"^(ok|not ok) |^1\.\.0$", text, re.MULTILINE) and text.endswith("\n")
            _need(holds, "a report is whole", path, text[-200:])
        elif format == "html":
            _need(text.rstrip().endswith("</html>"), "a report is whole", path, text[-200:])
        elif format == "text":
            _need(" result" in text and text.endswith("\n"), "a report is whole", path, text[-200:])
    except (ValueError, EOFError, OSError, ElementTree.ParseError) as error:
        raise Broken(f"a report is whole: {path.name}, {format}: {error}") from None


Verdicts = dict[tuple[str, str], set[str]]


def quiet(runs: Iterable[Run]) -> Verdicts:
    """The verdicts of each result in undisturbed runs."""
    found: Verdicts = {}
    for run in runs:
        for result in run.results:
            found.setdefault((result.id, result.case), set()).add(str(result.verdict))
    return found


def same_verdicts(run: Run, known: Verdicts, besides: Iterable[str] = ()) -> None:
    """No verdict other than in the quiet runs, but for ``besides``."""
    for result in run.results:
        expected = known.get((result.id, result.case))
        if expected is None:
            _need(str(result.verdict) in ("error", "skip"), "no other verdict", result.id, result.case, result.verdict)
        else:
            allowed = expected | set(besides)
            _need(result.verdict in allowed, "no other verdict", result.id, result.case, result.verdict, expected, result.reason)


def documented(done: Ended, runs: list[Run], interrupted_only: bool = True) -> None:
    """Status and report say the same."""
    for run in runs:
        if done.status == 130:
            _need(run.interrupted, "130 is an interrupted report", done.words, run.interrupted)
        elif done.status in (0, 1):
            _need(run.interrupted is False, "a whole report is not interrupted", done.words, done.status, run.interrupted)
            unexpected = any(run.totals[verdict] for verdict in run.totals if verdict.unexpected)
            _need(unexpected == (done.status == 1), "the status is that of the results", done.words, done.status)


def need(holds: object, rule: str, *evidence: object) -> None:
    """Raise Broken, with its ``evidence``, where ``rule`` does not hold."""
    _need(holds, rule, *evidence)


def kept(counted: int, cases: int, done: Ended) -> None:
    """Require that the report has all that the progress line has counted."""
    _need(cases >= counted, "nothing counted is lost", counted, cases, done.words, done.status)


def need_report(names: set[str], counted: int, done: Ended) -> None:
    """Require the report if anything was measured."""
    _need("main" in names or not counted, "what was measured is in the report", done.words, done.status)
