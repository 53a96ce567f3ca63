# SPDX-License-Identifier: GPL-2.0-only
"""Parts that commands share: exit statuses, one-line errors, selectors, output files, Ctrl-C."""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import os
import re
import signal
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, TextIO, TypeAlias, TypeVar

from kvmtest.kvm.stop import Stop
from kvmtest.model.shard import Shard, ShardError
from kvmtest.model.verdict import Verdict

if TYPE_CHECKING:
    from kvmtest.engine.plan import Case

__all__ = (
    "BISECT_SKIP",
    "INTERRUPTED",
    "OK",
    "RAW",
    "SELECTORS",
    "UNEXPECTED",
    "UNTESTABLE",
    "USAGE",
    "Commands",
    "Failed",
    "Interrupt",
    "contents",
    "device",
    "full",
    "now",
    "print_lines",
    "say",
    "scenarios",
    "selected",
    "shard",
    "status",
    "text",
)

OK, UNEXPECTED, USAGE, UNTESTABLE, INTERRUPTED = 0, 1, 2, 3, 130
#: `git bisect run`: not testable.
BISECT_SKIP = 125

T = TypeVar("T")
#: Signals that stop a run in an orderly way.
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
#: Seconds after which another signal counts as a second request, and not as a repetition of the first.
_AGAIN_S = 1.5
#: Seconds until a signal that a finalizer swallowed comes once more.
_OUT_OF_FINALIZER_S = 0.01


class RAW(argparse.RawDescriptionHelpFormatter):
    """Fills paragraphs to the terminal's width; lines that are indented, which are examples, stay lines."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        # argparse's width is that of the terminal less two.
        return "\n".join(line for block in _blocks(text) for line in _filled(block, width + 2))


#: An example, and what is said of it beside it.
_EXAMPLE = re.compile(r"( +\S.*?)\s{2,}(\S.*)")
_INDENT = " " * 6


def _blocks(text: str) -> Iterator[list[str]]:
    """Yield each paragraph as one line, and each run of indented lines."""
    for kind, grouped in itertools.groupby(text.splitlines(), lambda line: "" if not line else " " if line[0] == " " else "x"):
        lines = list(grouped)
        yield [" ".join(lines)] if kind == "x" else lines


def _filled(block: list[str], width: int) -> Iterator[str]:
    """Yield the lines of a block; where examples are too wide for what is said of them beside them, that comes below each."""
    fits = all(len(line) <= width for line in block)
    for line in block:
        found = _EXAMPLE.fullmatch(line)
        if fits or not line.startswith(" ") or not found:
            hang = _INDENT if line.startswith(" ") else ""
            yield textwrap.fill(line, width, subsequent_indent=hang, break_on_hyphens=False, break_long_words=False)
        else:
            for part, first in ((found[1], ""), (found[2], _INDENT)):
                yield textwrap.fill(part, width, initial_indent=first, subsequent_indent=_INDENT, break_on_hyphens=False)


#: The type that ``add_subparsers()`` returns.
Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
#: The end of the help of commands with selectors.
SELECTORS = """\
A SELECTOR is a glob over result ids <event>.<trigger>.<view>.<item>, the beginning of an id up to a dot, a bare item, a glob
over names of cases, or an id and the words of a case. {a,b} means a or b. Ids and cases can be copied from a report:
  kvmtest run cr3                     one item, after every event
  kvmtest run init.msi.host.cr3       after INIT by MSI, in every case
  kvmtest run 'init.*.cr*'            all control registers after INIT
  kvmtest run reset sipi.msi.guest    all after RESET; a guest's view after SIPI
  kvmtest run init.msi.host.cr3/ap,intel,xapic,plant-a    a single result
  kvmtest run 'init.*/*,in-hlt'       all cases with a vCPU in HLT

Exit status: 0 nothing unexpected; 1 at least one fail or error; 2 usage error; 3 nothing could be tested here; 130 interrupted.
With --baseline: 1 only for failures and time-outs that the baseline does not have. With --bisect, by the SELECTORs alone:
0 good, 1 bad, 125 not testable, 255 setup error, which stops git bisect run.
"""


class Failed(Exception):
    """One line for standard error, and the exit status."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class Interrupt(Stop):
    """Within it SIGINT, SIGTERM and SIGHUP stop the run in an orderly way, except those that are ignored at the start (nohup).

    Where nothing is ``running`` that would be lost, a signal raises KeyboardInterrupt. Else it only sets ``seen``, so that it
    cuts no record in two; another one that comes at least _AGAIN_S later, while each() waits for the next step, raises. Those
    that come sooner repeat the same request: two Ctrl-C, or a terminal's SIGHUP and the SIGTERM after it. After the ``last`` one
    of a process no signal ends it any more: its status is known.
    """

    def __init__(self, running: bool = False, last: bool = False) -> None:
        super().__init__()
        self.running = running
        self._is_last = last
        self._waiting = self._over = False
        #: The time of the last signal that counted.
        self._last: float | None = None
        self._number = 0
        self._hook = sys.unraisablehook
        self._before: dict[signal.Signals, Callable[..., object] | int | None] = {}

    def _handle(self, number: int, frame: object) -> None:
        if self._over:
            return
        now, self._number = time.monotonic(), number
        again = self._last is not None and now - self._last < _AGAIN_S
        if not self.running:
            if not again:
                self._last = now
                raise KeyboardInterrupt
        elif not self.seen:
            self.seen, self._last = True, now
            # Not by say(): the signal may have come in the middle of another line.
            with contextlib.suppress(OSError):
                os.write(2, b"kvmtest: interrupted; ending in order; again to stop at once\n")
        elif not again:
            self._last = now
            if self._waiting:
                self._waiting = False
                raise KeyboardInterrupt

    def _unraisable(self, lost: sys.UnraisableHookArgs) -> None:
        """Raise KeyboardInterrupt once more, soon, where it was raised in a finalizer, out of which it does not come."""
        if not (self._number and lost.exc_type is KeyboardInterrupt):
            self._hook(lost)
            return
        from threading import Timer

        self._last, self._waiting = None, self.running
        again = Timer(_OUT_OF_FINALIZER_S, os.kill, (os.getpid(), self._number))
        again.daemon = True
        again.start()

    def each(self, steps: Iterator[T]) -> Iterator[T]:
        """Yield ``steps``. A signal may raise KeyboardInterrupt while the next step is awaited, not between steps."""
        while True:
            self._waiting = True
            try:
                step = next(steps)
            except StopIteration:
                return
            finally:
                self._waiting = False
            yield step

    def finish(self) -> None:
        """Let no signal change reports or status any more, as both are final, within this one or those around it."""
        self._over = True
        for handler in self._before.values():
            if isinstance(outside := getattr(handler, "__self__", None), Interrupt):
                outside._over = True

    def __enter__(self) -> Interrupt:
        for number in _SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._handle)
        self._hook, sys.unraisablehook = sys.unraisablehook, self._unraisable
        return self

    def __exit__(self, *error: object) -> None:
        sys.unraisablehook = self._hook
        for number, handler in self._before.items():
            # Once interrupted this process is about to end, with a status that another signal must not change.
            signal.signal(number, signal.SIG_IGN if self._last is not None or self._is_last else handler)


def device(parser: argparse.ArgumentParser) -> None:
    """Add ``--device``."""
    parser.add_argument("--device", default="/dev/kvm", metavar="PATH", help="default: /dev/kvm")


def contents(path: str) -> bytes:
    """The contents of the file ``path``, of standard input for -, without the gzip around them. Raises Failed."""
    from kvmtest.results.saved import SavedError, read

    try:
        return read(path)
    except SavedError as error:
        raise Failed(str(error), USAGE) from None


def text(path: str) -> str:
    """The same as text in UTF-8, whatever ends its lines. Raises Failed."""
    return io.TextIOWrapper(io.BytesIO(contents(path)), "utf-8", "replace").read()


def scenarios(paths: Sequence[str]) -> tuple[Case, ...]:
    """The cases of the scenario files ``paths``. Raises Failed."""
    from kvmtest.engine import plan
    from kvmtest.scenario import file
    from kvmtest.scenario.check import ScenarioError

    found: dict[str, Case] = {}
    for path in paths:
        try:
            for case in plan.of_file(file.load(path)):
                if found.setdefault(case.name, case) is not case:
                    raise Failed(f"{path}: {case.name} is another file's case already; its sequence is its name", USAGE)
        except ScenarioError as error:
            raise Failed(str(error), USAGE) from None
        except OSError as error:
            raise Failed(f"cannot read {path}: {error.strerror}", USAGE) from None
    return tuple(found.values())


def full(parser: argparse.ArgumentParser) -> None:
    """Add ``--full``."""
    what = "run all possible combinations of trigger, state, plant and so on, instead of enough to cover each pair"
    parser.add_argument("--full", action="store_true", help=what)


def shard(parser: argparse.ArgumentParser, what: str) -> None:
    """Add ``--shard``; ``what`` is its help."""
    parser.add_argument("--shard", type=_shard, metavar="I/N", help=what)


def _shard(text: str) -> Shard | None:
    try:
        found = Shard.parse(text)
    except ShardError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if len(found.numbers) > 1:
        raise argparse.ArgumentTypeError(f"{text!r} is more than one part")
    # One part of one is everything.
    return found if found.of > 1 else None


def selected(
    selectors: Sequence[str], full: bool = False, cases: Sequence[Case] = (), part: Shard | None = None
) -> list[Case]:
    """The cases of the plan, of the ``full`` one, or of ``cases``, with a result that ``selectors`` match; those in ``part``.

    Raises SelectorError.
    """
    from kvmtest.engine import plan

    found = plan.chosen(tuple(selectors), full, cases)
    return [case for case in found if part.has(case.name)] if part else found


def status(totals: Counter[Verdict], strict: bool) -> int:
    """The exit status of a run with these totals by verdict."""
    failed = [verdict for verdict in totals if verdict.unexpected or strict and verdict is Verdict.KNOWN]
    if any(totals[verdict] for verdict in failed):
        return UNEXPECTED
    if not any(totals[verdict] for verdict in totals if verdict.judged or verdict is Verdict.INFO):
        say("nothing could be tested: every result is a skip; kvmtest doctor says what this KVM lacks")
        return UNTESTABLE
    return OK


def now() -> str:
    """The time as results have it: UTC in RFC 3339."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def print_lines(texts: Iterable[str], out: TextIO | None = None) -> None:
    """Write the lines of ``texts`` to ``out``, standard output by default, without control sequences for the terminal."""
    from kvmtest.report.show import lines

    to = out or sys.stdout
    to.writelines(line + "\n" for text in texts for line in lines(text))


def print_row(first: str, text: str) -> None:
    """Write a row to standard output: folded within a terminal, else in one line, for grep."""
    from kvmtest.report.show import columns, wrapped

    print_lines([wrapped(text, columns(), first, " " * len(first)) if sys.stdout.isatty() else first + text])


def say(message: str) -> None:
    """One line for the user, on standard error."""
    from kvmtest.report.show import lines

    with contextlib.suppress(OSError, ValueError):  # a terminal that is gone, a log that is full: nothing to say it to
        sys.stderr.write("kvmtest: " + "\n".join(lines(message)) + "\n")
        sys.stderr.flush()
