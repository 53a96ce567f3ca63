# SPDX-License-Identifier: GPL-2.0-only
"""``kvmtest report``, and where the commands that run cases write theirs."""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, TextIO

from kvmtest.commands import ending, outcome
from kvmtest.commands.common import OK, RAW, UNEXPECTED, USAGE, Commands, Failed, say
from kvmtest.commands.ending import Ending
from kvmtest.commands.output import Output, forget_output
from kvmtest.model.case import Case
from kvmtest.model.record import Observation
from kvmtest.model.run import Head, Run
from kvmtest.report import FORMATS, End, MissingError, Writer, require, writer
from kvmtest.report.play import Gatherer, play

if TYPE_CHECKING:
    from kvmtest.judge.waivers import Waivers

__all__ = ("add", "check", "checked", "options", "waivers", "write", "writing")

_EPILOG = """\
RESULTS are files written by --format json or jsonl, gzipped or not, of a run or of a lab's matrix; - is standard input. Several
files make one report, which shows the run of each result; the parts of a run (--shard) are one run in it.

  kvmtest report results.json                                       the report that the run printed
  kvmtest report --report junit=r.xml --report html=r.html r.json   two reports, and the text
  kvmtest report --format html -o all.html hostA.json hostB.json    two hosts side by side
  kvmtest report --format json -o r.json part-*.json                the parts of a run as one
  kvmtest report --baseline old.json new.json                       failures that are new, and those that are gone
  kvmtest report --format jsonl --expand r.json                     a self-contained object for each result

Exit status: 0 the report is written, whatever the verdicts in it; with --baseline 1 for failures that the baseline does not
have; 2 a file has no results, or cannot be written.
"""
_ORIGIN = re.compile("[a-z0-9_]+")


def add(commands: Commands) -> None:
    """Add ``report``."""
    what = "make reports from saved results, without KVM"
    parser = commands.add_parser("report", help=what, epilog=_EPILOG, formatter_class=RAW)
    parser.add_argument("results", nargs="+", metavar="RESULTS", help="saved results (see below)")
    options(parser)
    waivers(parser)
    outcome.baseline(parser)
    parser.add_argument("--strict", action="store_true", help="with --baseline: new known deviations fail, too")
    parser.add_argument("--expand", action="store_true", help="jsonl: write each result as a self-contained object")
    parser.add_argument("--origin", type=_origin, metavar="NAME", help="kcidb: the submitter (default: kvmtest)")
    parser.add_argument("--build", type=_build, metavar="ID", help="kcidb: the tested build, ORIGIN:ID")
    parser.set_defaults(function=_report)


def options(parser: argparse.ArgumentParser) -> None:
    """Add the options of all commands that write a report."""
    names = f"{', '.join(FORMATS)} (default: text)"
    parser.add_argument("--format", choices=FORMATS, default="text", metavar="FORMAT", help=names)
    parser.add_argument("-o", "--output", metavar="FILE", help="write to FILE instead of standard output")
    when = "colour the text; auto: on a terminal, unless NO_COLOR is set (default)"
    parser.add_argument("--color", choices=("auto", "always", "never"), default="auto", metavar="auto|always|never", help=when)
    what = "text: also show known deviations, skips with their reasons, and totals by trigger"
    parser.add_argument("-v", "--verbose", action="store_true", help=what)
    parser.add_argument(
        "--report", type=_format_and_file, action="append", default=[], metavar="FORMAT=FILE", help="write another report to FILE"
    )


def waivers(parser: argparse.ArgumentParser) -> None:
    """Add ``--known``."""
    what = "a TOML file of your own known failures: a fail that it lists becomes known"
    parser.add_argument("--known", metavar="FILE", help=what)


def _format_and_file(text: str) -> tuple[str, str]:
    name, _, path = text.partition("=")
    if name not in FORMATS or not path:
        raise argparse.ArgumentTypeError(f"{text!r} is not FORMAT=FILE with one of {', '.join(FORMATS)}")
    return name, path


def _origin(text: str) -> str:
    if not _ORIGIN.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not of a-z, 0-9 and _")
    return text


def _build(text: str) -> str:
    origin, colon, name = text.partition(":")
    if not _ORIGIN.fullmatch(origin) or not colon or not name.isprintable():
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form ORIGIN:ID")
    return text


class _Several:
    """Writers, each to a file of its own: what goes wrong with one of them stops no other.

    That nobody reads a pipe any more is not a failure of the run. It goes on for its status, which says nothing of who reads.
    ``known`` is applied to all that is observed.
    """

    def __init__(self, files: list[tuple[Output, Writer]], runs: int, known: Waivers | None) -> None:
        self._files = files
        self._left = runs
        self.known = known
        #: The first failure.
        self.failed: Ending | None = None
        self.again: Counter[str] = Counter()

    def _each(self, write: Callable[[Output, Writer], None]) -> None:
        for file in self._files.copy():
            out, to = file
            try:
                write(out, to)
            except Exception as error:  # whatever it is, what was measured is in the others
                self._files.remove(file)
                self._lost(out, error)

    def _lost(self, out: Output, error: Exception) -> None:
        out.drop()
        if out.text is sys.stdout:
            forget_output()
        if isinstance(error, BrokenPipeError):
            return
        self.failed = self.failed or ending.of(error, out.name)
        if more := ending.debugged(error):
            sys.stderr.write(more)
        if not self._files:
            raise Failed(self.failed.line, self.failed.status) from error

    def begin(self, head: Head, cases: int) -> None:
        self._each(lambda out, to: to.begin(head, cases))

    def case(self, case: Case) -> None:
        self._each(lambda out, to: to.case(case))

    def observed(self, seen: Sequence[Observation]) -> None:
        for one in seen:
            tried = sum(block.second_tries for block in one.blocks)
            if tried and one.case:
                self.again[one.case.name] += tried
        self._each(lambda out, to: to.observed(seen))

    def end(self, end: End) -> None:
        self._each(lambda out, to: to.end(end))
        self._left -= 1
        self._each(lambda out, to: out.text.flush() if self._left else out.keep())


def checked(args: argparse.Namespace) -> Waivers | None:
    """Return the known failures that ``args`` name. Raises Failed if they cannot be read, or a report cannot be made."""
    asked: list[tuple[str, str]] = args.report
    paths = [os.path.realpath(path) for path in (args.output, *(path for _, path in asked)) if path]
    if again := [path for path, count in Counter(paths).items() if count > 1 and not path.startswith("/dev/")]:
        raise Failed(f"two reports to one file: {again[0]}", USAGE)
    for name in dict.fromkeys((args.format, *(name for name, _ in asked))):
        check(name)
    return _known(args)


@contextlib.contextmanager
def writing(
    args: argparse.Namespace, runs: int = 1, live: bool = True, text: Callable[[TextIO], Writer] | None = None
) -> Iterator[Gatherer]:
    """Yield the receiver of one or several runs, which writes all reports in ``args``. Raises Failed.

    With ``live`` the text report shows progress. ``text`` replaces the usual text writer.
    """
    known = checked(args)
    with contextlib.ExitStack() as stack:

        files = []
        # The report that is asked for comes last: it may be read while it is written.
        for name, path in (*args.report, (args.format, args.output)):
            out = Output(path, by_line=name == "jsonl")
            stack.callback(out.drop)
            progress = live and path == args.output and name == args.format
            made = text(out.text) if text and name == "text" else _made(name, out.text, runs, args, progress)
            files.append((out, made))
        several = _Several(files, runs, known)
        yield Gatherer(several, known)
    if several.again:
        counts = several.again
        say(f"{sum(counts.values())} results of {len(counts)} cases are info: they passed when they were tried again")
    for line in known.said() if known else ():
        say(line)
    if several.failed:
        raise Failed(several.failed.line, several.failed.status)


def write(runs: Sequence[Run], args: argparse.Namespace) -> list[Run]:
    """Write the reports in ``args`` of finished ``runs``; return the runs as reported. Raises Failed."""
    with writing(args, len(runs), live=False) as to:
        return [play(run, to) for run in runs]


def check(name: str) -> None:
    """Raise Failed if format ``name`` needs a package that is not installed."""
    try:
        require(name)
    except MissingError as error:
        raise Failed(str(error), USAGE) from None


def _known(args: argparse.Namespace) -> Waivers | None:
    if not args.known:
        return None
    import datetime

    from kvmtest.judge import waivers as listed

    try:
        return listed.load(args.known, datetime.date.today())
    except listed.WaiverError as error:
        raise Failed(str(error), USAGE) from None


def _made(name: str, out: TextIO, runs: int, args: argparse.Namespace, progress: bool) -> Writer:
    if name == "text":
        from kvmtest.report.text import Text

        return Text(out, runs, None if progress else io.StringIO(), args.color, args.verbose)
    if name == "jsonl" and getattr(args, "expand", False):
        from kvmtest.report.jsonl import Expanded

        return Expanded(out, runs)
    made = writer(name, out, runs)
    if name == "kcidb":
        from kvmtest.report.kcidb import ORIGIN, Kcidb

        assert isinstance(made, Kcidb)
        made.origin, made.build = getattr(args, "origin", None) or ORIGIN, getattr(args, "build", None) or ""
    return made


def _report(args: argparse.Namespace) -> int:
    from kvmtest.compare import files
    from kvmtest.results.names import names
    from kvmtest.results.saved import Loader, SavedError

    if args.expand and args.format != "jsonl":
        raise Failed("--expand needs --format jsonl", USAGE)
    loader = Loader(say)
    try:
        old = files.runs(args.baseline, say) if args.baseline else []
        found = files.merged([(path, run) for path in args.results for run in files.runs(path, say, loader)], say)
    except SavedError as error:
        raise Failed(str(error), USAGE) from None
    named = [run._replace(head=run.head._replace(name=name)) for (_, run), name in zip(found, names(found), strict=True)]
    runs = write(named, args)
    # By their own names: those of the report are made up, one for each file.
    shown = [run._replace(head=own.head) for run, (_, own) in zip(runs, found, strict=True)]
    new = bool(args.baseline) and outcome.against(old, shown, (), args.strict, outcome.out(args))
    return UNEXPECTED if new else OK
