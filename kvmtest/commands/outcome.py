# SPDX-License-Identifier: GPL-2.0-only
"""The exit status of a run: from its totals, a baseline, or with ``--bisect`` the ids that were asked for."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, TextIO

from kvmtest.commands import common
from kvmtest.commands.common import BISECT_SKIP, OK, UNEXPECTED, USAGE, Failed, say
from kvmtest.model.run import Run, counted
from kvmtest.model.select import Selection
from kvmtest.model.verdict import Verdict

if TYPE_CHECKING:
    from kvmtest.compare.baseline import Comparison

__all__ = ("ABORT", "Bisect", "Outcome", "against", "bisecting", "none_new", "of", "options", "out")

#: `git bisect run` reads 1 to 127 as bad, 125 as "cannot be tested", and stops at anything above: set-up errors.
ABORT = 255
#: Verdicts by which a result says something of KVM. Under --bisect a listed departure is one: what is listed for a range of
#: kernels may be the very thing that is looked for, and a kernel between two releases has either's number.
_BAD, _GOOD = (Verdict.FAIL, Verdict.KNOWN), (Verdict.PASS, Verdict.FIXED)


def options(parser: argparse.ArgumentParser) -> None:
    """Add what decides the exit status of one run."""
    group = parser.add_mutually_exclusive_group()
    baseline(group)
    group.add_argument("--bisect", action="store_true", help="exit status for git bisect run, decided by the SELECTORs alone")


def baseline(parser: argparse._ActionsContainer) -> None:
    """Add ``--baseline``."""
    what = "compare with the saved results FILE; only new failures fail"
    parser.add_argument("--baseline", metavar="FILE", help=what)


def bisecting(argv: Sequence[str]) -> bool:
    """Return True if a command line has ``--bisect``, even if it cannot be parsed; argparse accepts abbreviated options."""
    return any(len(word) > 3 and "--bisect".startswith(word) for word in argv)


class Outcome:
    """The exit status by the totals."""

    def __init__(self, strict: bool) -> None:
        self.strict = strict

    def status(self, *runs: Run) -> int:
        """The exit status of ``runs`` that are over."""
        totals = +_totals(runs)
        if not totals and all(run.head.shard for run in runs):
            say(f"none of the selected cases is in shard {runs[0].head.shard}")
            return OK
        return common.status(totals, self.strict)


def _totals(runs: Iterable[Run]) -> Counter[Verdict]:
    """Results by verdict, without a kernel's log that had nothing to say: that nothing was logged tests nothing."""
    totals: Counter[Verdict] = Counter()
    for run in runs:
        totals += counted(run.observations)
        totals[Verdict.PASS] -= counted(seen for seen in run.observations if seen.view == "kernel")[Verdict.PASS]
    return totals


def against(old: Sequence[Run], runs: Sequence[Run], selectors: Sequence[str], strict: bool, to: TextIO) -> bool:
    """Write to ``to`` how ``runs`` compare with ``old``; whether something is new that fails. Raises Failed."""
    from kvmtest.compare import changes
    from kvmtest.compare.baseline import PairError
    from kvmtest.compare.baseline import against as compared

    try:
        found: list[Comparison] = compared(old, runs, strict, selectors)
    except PairError as error:
        raise Failed(str(error), USAGE) from None
    common.print_lines(changes.lines(found), to)
    to.flush()
    return any(one.failed for one in found)


def none_new(runs: Iterable[Run]) -> int:
    """The exit status of ``runs`` whose failures are nothing new: nothing unexpected, yet they show that something was tested."""
    totals = _totals(runs)
    expected = Counter({verdict: count for verdict, count in totals.items() if not verdict.unexpected})
    expected[Verdict.PASS] += sum(count for verdict, count in totals.items() if verdict.unexpected)
    return common.status(expected, False)


class _Baseline(Outcome):
    """The outcome with ``--baseline``: new failures fail."""

    def __init__(self, old: Sequence[Run], selectors: tuple[str, ...], strict: bool, to: TextIO) -> None:
        super().__init__(strict)
        self._old = old
        self._selectors = selectors
        self._out = to

    def status(self, *runs: Run) -> int:
        if against(self._old, runs, self._selectors, self.strict, self._out):
            return UNEXPECTED
        return none_new(runs)


class Bisect(Outcome):
    """Good, bad or not testable, by the results that each selector matches."""

    def __init__(self, selectors: tuple[str, ...]) -> None:
        super().__init__(strict=True)
        self._selectors = selectors

    def status(self, *runs: Run) -> int:
        asked = {selector: Selection((selector,)) for selector in self._selectors}
        judged: set[str] = set()
        bad = error = ""
        for run in runs:
            for seen in run.observations:
                for selector, selection in asked.items():
                    taken = selection.of(seen)
                    for result in taken.results if taken else ():
                        judged |= {selector} if result.verdict in (*_BAD, *_GOOD) else set()
                        if result.verdict in _BAD:
                            bad = bad or f"{result.verdict} {result.id} ({result.case})"
                        elif result.verdict is Verdict.ERROR:
                            error = error or f"{result.id}: {result.reason}".split("\n", 1)[0]
                if seen.view == "kernel":
                    for result in seen.attention:
                        if result.verdict is Verdict.ERROR:
                            error = error or f"{result.id}: {result.reason}".split("\n", 1)[0]
        if bad:
            say(f"bisect: bad: {bad}")
            return UNEXPECTED
        unjudged = [selector for selector in self._selectors if selector not in judged]
        if error or unjudged:
            say(f"bisect: not testable: {error or f'nothing was tested of {unjudged[0]}'}")
            return BISECT_SKIP
        say("bisect: good")
        return OK


def out(args: argparse.Namespace) -> TextIO:
    """Choose the stream for a comparison: standard output after a text report there; else standard error, since a file or another
    format is for a program.
    """
    return sys.stdout if args.format == "text" and args.output is None else sys.stderr


def of(args: argparse.Namespace, asked: Sequence[str]) -> Outcome:
    """Choose the outcome by ``args``, for the selectors ``asked``. Raises Failed, before anything runs."""
    selectors = tuple(asked)
    if args.bisect:
        if getattr(args, "shard", None):
            raise Failed("--bisect needs all cases of its SELECTORs: leave out --shard", USAGE)
        if not selectors:
            raise Failed("--bisect needs the result ids that are to decide; '*' for all", USAGE)
        return Bisect(selectors)
    if args.baseline is None:
        return Outcome(args.strict)
    from kvmtest.compare import files
    from kvmtest.results.saved import SavedError

    try:
        return _Baseline([files.one_run(args.baseline, say)], selectors, args.strict, out(args))
    except SavedError as error:
        raise Failed(str(error), USAGE) from None
