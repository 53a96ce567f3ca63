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

from kvmtest.commands import common
from kvmtest.commands.common import OK, RAW, USAGE, Commands, Failed, say
from kvmtest.report import FORMATS, MissingError, Run, Writer, require, writer
from kvmtest.report.runs import ONE

if TYPE_CHECKING:
    from kvmtest.engine.result import CaseTime, Host, Result
    from kvmtest.report.saved import Saved

__all__ = ("add", "check", "convert", "options", "writing")

_EPILOG = """\
RESULTS is what --format json or jsonl wrote, of a run or of a lab's matrix; - is standard input. Several are one report that
keeps which run a result is of.

  kvmtest report results.json                                       what the run printed
  kvmtest report --report junit=r.xml --report html=r.html r.json   two reports, besides the text
  kvmtest report --format html -o all.html hostA.json hostB.json    two hosts side by side

Exit status: 0 the report is written, whatever it says: the run itself had the status that tells; 2 a file that is no results,
or one that cannot be written.
"""
_ORIGIN = re.compile("[a-z0-9_]+")


def add(commands: Commands) -> None:
    """Add ``report``."""
    what = "make reports of saved results, without KVM"
    parser = commands.add_parser("report", help=what, epilog=_EPILOG, formatter_class=RAW)
    parser.add_argument("results", nargs="+", metavar="RESULTS", help="files that were saved (below)")
    options(parser)
    parser.add_argument("--origin", type=_origin, metavar="NAME", help="kcidb: who submits (default: kvmtest)")
    parser.add_argument("--build", type=_build, metavar="ID", help="kcidb: the build that was tested, ORIGIN:ID")
    parser.set_defaults(function=_report)


def options(parser: argparse.ArgumentParser) -> None:
    """What every command that makes a report takes."""
    names = f"{', '.join(FORMATS)} (default: text)"
    parser.add_argument("--format", choices=FORMATS, default="text", metavar="FORMAT", help=names)
    parser.add_argument("-o", "--output", metavar="FILE", help="write there instead of to standard output")
    when = "colour in text; auto: on a terminal, without NO_COLOR in the environment (default)"
    parser.add_argument("--color", choices=("auto", "always", "never"), default="auto", metavar="auto|always|never", help=when)
    parser.add_argument(
        "--report", type=_format_and_file, action="append", default=[], metavar="FORMAT=FILE", help="another report besides"
    )


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
    """Writers, each to a file of its own: what goes wrong with one file stops no other. ``main`` alone has progress to show.

    That nobody reads a pipe any more is no failure of the run. It goes on for its status, which says nothing of who reads.
    """

    def __init__(self, files: list[tuple[str, TextIO, Writer]], main: Writer | None) -> None:
        self._files = files
        self._main = main
        self.failed = ""
        self.again: Counter[str] = Counter()

    def _each(self, write: Callable[[Writer], None], flush: bool = False) -> None:
        for file in self._files.copy():
            name, out, to = file
            try:
                write(to)
                if flush:
                    out.flush()
            except OSError as error:
                self._files.remove(file)
                if out is sys.stdout:
                    common.forget_output()
                if not isinstance(error, BrokenPipeError):
                    self.failed = self.failed or f"cannot write {name}: {error.strerror}"
                    if not self._files:
                        raise Failed(self.failed, USAGE) from error

    def begin(self, host: Host, started: str, cases: int) -> None:
        self._each(lambda to: to.begin(host, started, cases))

    def running(self, case: str) -> None:
        if self._main:
            self._main.running(case)

    def result(self, result: Result) -> None:
        if result.second_try:
            self.again[result.case] += 1
        self._each(lambda to: to.result(result))

    def case(self, case: CaseTime) -> None:
        self._each(lambda to: to.case(case))

    def end(self, duration_s: float, totals: Counter[str]) -> None:
        self._each(lambda to: to.end(duration_s, totals), flush=True)


@contextlib.contextmanager
def writing(
    args: argparse.Namespace, runs: Sequence[Run] = ONE, out: TextIO | None = None, live: bool = True
) -> Iterator[Writer]:
    """The writer to all that ``options`` ask for, of ``runs``; ``out`` is there already or opened. Raises Failed.

    Without a format it is a writer to the reports besides. Of a run that is ``live`` the text shows the progress.
    """
    asked: list[tuple[str, str]] = args.report
    paths = [os.path.realpath(path) for path in (args.output, *(path for _, path in asked)) if path]
    if again := [path for path, count in Counter(paths).items() if count > 1 and not path.startswith("/dev/")]:
        raise Failed(f"two reports to one file: {again[0]}", USAGE)
    for name in ([args.format] if args.format else []) + [name for name, _ in asked]:
        check(name)
        if name == "jsonl" and len(runs) > 1:
            raise Failed("jsonl cannot say which of several runs a record is of: --format json can", USAGE)
    with contextlib.ExitStack() as stack:

        def opened(path: str | None) -> TextIO:
            file = common.open_output(path)
            if file is not sys.stdout:
                stack.callback(_close, file)
            return file

        out = out or opened(args.output)
        files = []
        for name, path in asked:
            file = opened(path)
            files.append((path, file, _made(name, file, runs, args, progress=False)))
        main = _made(args.format, out, runs, args, progress=live) if args.format else None
        if main:
            files.append((args.output or "standard output", out, main))
        several = _Several(files, main)
        yield several
    if several.again:
        counts = several.again
        say(f"{sum(counts.values())} results of {len(counts)} cases are info: they passed when they were tried again")
    if several.failed:
        raise Failed(several.failed, USAGE)


def check(name: str) -> None:
    """Raises Failed where format ``name`` needs what is not installed."""
    try:
        require(name)
    except MissingError as error:
        raise Failed(str(error), USAGE) from None


def _close(file: TextIO) -> None:
    with contextlib.suppress(OSError):  # said already, when it was flushed
        file.close()


def _made(name: str, out: TextIO, runs: Sequence[Run], args: argparse.Namespace, progress: bool) -> Writer:
    if name == "text":
        from kvmtest.report.text import Text

        return Text(out, runs, None if progress else io.StringIO(), args.color)
    made = writer(name, out, runs)
    if name == "kcidb":
        from kvmtest.report.kcidb import ORIGIN, Kcidb

        assert isinstance(made, Kcidb)
        made.origin, made.build = getattr(args, "origin", None) or ORIGIN, getattr(args, "build", None) or ""
    return made


def _report(args: argparse.Namespace) -> int:
    convert(args.results, args)
    return OK


def convert(paths: Sequence[str], args: argparse.Namespace, out: TextIO | None = None) -> None:
    """Write the reports that ``args`` asks for of the results saved in ``paths``. Raises Failed."""
    from kvmtest.report import saved

    found: list[tuple[str, Saved]] = []
    for path in paths:
        try:
            found += [(path, run) for run in saved.load(path)]
        except saved.SavedError as error:
            raise Failed(str(error), USAGE) from None
    if not found:
        raise Failed(f"{paths[0]}: no cells in it", USAGE)
    names = saved.names(found) if len(found) > 1 else [""]
    runs = [Run(name, run.version, run.accel) for name, (_, run) in zip(names, found, strict=True)]
    with writing(args, runs, out, live=False) as to:
        while found:
            _, run = found.pop(0)
            saved.write(run, to)
