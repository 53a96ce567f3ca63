# SPDX-License-Identifier: GPL-2.0-only
"""What decides the exit status of a run: its totals, a baseline, or under ``--bisect`` the ids that were asked for."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, TextIO

from kvmtest.commands import common
from kvmtest.commands.common import BISECT_SKIP, OK, UNEXPECTED, USAGE, Failed, say

if TYPE_CHECKING:
    from kvmtest.compare.baseline import Against
    from kvmtest.engine.result import Result
    from kvmtest.report import Writer
    from kvmtest.report.saved import Saved

__all__ = ("ABORT", "Bisect", "Outcome", "bisecting", "of", "options")

#: `git bisect run` takes 1 to 127 for bad, 125 for "cannot be tested", and stops at anything above: what no commit can change.
ABORT = 255
#: Verdicts by which a result says something of KVM. Under --bisect a listed departure is one: what is listed for a range of
#: kernels may be the very thing that is looked for, and a kernel between two releases has either's number.
_BAD, _GOOD = frozenset(("fail", "known")), frozenset(("pass", "fixed"))


def options(parser: argparse.ArgumentParser) -> None:
    """Add what decides the exit status of one run."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--baseline", metavar="FILE", help="saved results to hold this run against: only what is new fails it")
    group.add_argument("--bisect", action="store_true", help="exit status for git bisect run; the SELECTORs alone decide")


def bisecting(argv: Sequence[str]) -> bool:
    """Whether a command line means ``--bisect``, also where it cannot be parsed; argparse takes an option's beginning."""
    return any(len(word) > 3 and "--bisect".startswith(word) for word in argv)


class Outcome:
    """The exit status by the totals."""

    def __init__(self, strict: bool) -> None:
        self.strict = strict

    def watch(self, writer: Writer) -> Writer:
        """The writer to give results to, in the place of ``writer``."""
        return writer

    def status(self, totals: Counter[str]) -> int:
        """The exit status once all results were written."""
        return common.status(totals, self.strict)


class _Baseline(Outcome):
    """Fails for what is new against a saved run."""

    def __init__(self, old: Saved, selectors: tuple[str, ...], strict: bool, out: TextIO) -> None:
        super().__init__(strict)
        self._old = old
        self._selectors = selectors
        self._out = out
        self._against: Against | None = None

    def watch(self, writer: Writer) -> Writer:
        from kvmtest.compare.baseline import Against

        self._against = Against(writer, self._old, self._selectors, self.strict, self._out)
        return self._against

    def status(self, totals: Counter[str]) -> int:
        assert self._against
        if self._against.new:
            return UNEXPECTED
        if late := self._against.late:
            # Undetermined, as any error is; a vCPU that an INIT never reaches shows nothing else.
            say(f"no failure is new, but {late} x no answer in time, at a second try either")
            return UNEXPECTED
        # Failures that are not new are nothing unexpected, yet show that something was tested.
        expected = Counter({verdict: count for verdict, count in totals.items() if verdict not in ("fail", "error")})
        expected["pass"] += totals["fail"] + totals["error"]
        return common.status(expected, False)


class Bisect(Outcome):
    """Good, bad or cannot tell, by the results that each selector takes."""

    def __init__(self, selectors: tuple[str, ...]) -> None:
        super().__init__(strict=True)
        self._told: dict[str, Counter[str]] = {selector: Counter() for selector in selectors}
        self._bad = ""
        self._error = ""

    def watch(self, writer: Writer) -> Writer:
        return _Watched(writer, self)

    def see(self, result: Result) -> None:
        """One more result."""
        from kvmtest.engine.plan import wanted

        taken = [selector for selector in self._told if wanted((selector,), result.id)]
        for selector in taken:
            self._told[selector][result.verdict] += 1
        if taken and result.verdict in _BAD:
            self._bad = self._bad or f"{result.verdict} {result.id} ({result.case})"
        if result.verdict == "error" and (taken or result.view == "kernel"):
            self._error = self._error or f"{result.id}: {result.reason}".split("\n", 1)[0]

    def status(self, totals: Counter[str]) -> int:
        untold = [selector for selector, counts in self._told.items() if not any(counts[v] for v in _GOOD | _BAD)]
        if self._bad:
            say(f"bisect: bad: {self._bad}")
            return UNEXPECTED
        if self._error or untold:
            say(f"bisect: cannot tell: {self._error or f'nothing was tested of {untold[0]}'}")
            return BISECT_SKIP
        say("bisect: good")
        return OK


class _Watched:
    """A writer that shows each result to a Bisect as well."""

    def __init__(self, writer: Writer, bisect: Bisect) -> None:
        self._writer = writer
        self._bisect = bisect
        self.begin, self.running, self.case, self.end = writer.begin, writer.running, writer.case, writer.end

    def result(self, result: Result) -> None:
        self._bisect.see(result)
        self._writer.result(result)


def of(args: argparse.Namespace, asked: Sequence[str]) -> Outcome:
    """The outcome that ``args`` ask for of the selectors ``asked``. Raises Failed, before anything runs."""
    selectors = tuple(asked)
    if args.bisect:
        if not selectors:
            raise Failed("--bisect needs the result ids that are to decide; '*' for all", USAGE)
        return Bisect(selectors)
    if args.baseline is None:
        return Outcome(args.strict)
    from kvmtest.compare import files
    from kvmtest.report.saved import SavedError

    # Behind the report where that is text for whoever sits here; a file or another format is for a program.
    out = sys.stdout if args.format == "text" and args.output is None else sys.stderr
    try:
        return _Baseline(files.one_run(args.baseline), selectors, args.strict, out)
    except SavedError as error:
        raise Failed(str(error), USAGE) from None
