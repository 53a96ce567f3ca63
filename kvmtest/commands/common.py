# SPDX-License-Identifier: GPL-2.0-only
"""What commands share: exit statuses, errors of one line, selectors, where output goes, Ctrl-C."""

from __future__ import annotations

import argparse
import io
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, TextIO, TypeAlias

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
    "device",
    "now",
    "open_output",
    "print_lines",
    "say",
    "selected",
    "status",
)

OK, UNEXPECTED, USAGE, UNTESTABLE, INTERRUPTED = 0, 1, 2, 3, 130
#: `git bisect run`: could not tell.
BISECT_SKIP = 125

RAW = argparse.RawDescriptionHelpFormatter
#: What ``add_subparsers()`` returns.
Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
#: The end of the help of what takes selectors.
SELECTORS = """\
A SELECTOR is a glob over result ids <event>.<trigger>.<view>.<item>, or the beginning of one up to a dot:
  kvmtest run init.msi.host.cr3        one item after INIT by MSI, in every case
  kvmtest run 'init.*.cr*'             all control registers after INIT
  kvmtest run reset sipi.msi.guest     everything after RESET, and what the guest sees after SIPI

Exit status: 0 nothing unexpected; 1 at least one fail or error; 2 wrong usage; 3 nothing could be tested here;
130 interrupted. With --baseline: 1 for failures that it has not. With --bisect, by the SELECTORs alone: 0 good, 1 bad,
125 could not tell, 255 whatever no commit can change, at which git bisect run stops.
"""


class Failed(Exception):
    """One line for standard error, and the exit status."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class Interrupt:
    """Within it the first Ctrl-C only sets ``seen``, so that it cuts no record in two; the second raises as usual."""

    def __init__(self) -> None:
        self.seen = False

    def _handle(self, number: int, frame: object) -> None:
        if self.seen:
            raise KeyboardInterrupt
        self.seen = True

    def __enter__(self) -> Interrupt:
        self._before = signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(self, *error: object) -> None:
        signal.signal(signal.SIGINT, self._before)


def device(parser: argparse.ArgumentParser) -> None:
    """Add ``--device``."""
    parser.add_argument("--device", default="/dev/kvm", metavar="PATH", help="default: /dev/kvm")


def open_output(path: str | None) -> TextIO:
    """The file ``path`` to write, standard output for None. Raises Failed."""
    if path is None:
        if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal that is not UTF-8 gets \xNN, no traceback
            sys.stdout.reconfigure(errors="backslashreplace")
        return sys.stdout
    try:
        return open(path, "w", encoding="utf-8")
    except OSError as error:
        raise Failed(f"cannot write {path}: {error.strerror}", USAGE) from error


def selected(selectors: Sequence[str]) -> tuple[list[Case], tuple[str, ...]]:
    """The cases that have a result which ``selectors`` take, and the selectors. Raises Failed."""
    from kvmtest.engine import plan

    wanted = tuple(selectors)
    try:
        return plan.select(plan.plan(), wanted), wanted
    except plan.SelectorError as error:
        raise Failed(f"no result id matches {error}; kvmtest list shows them all", USAGE) from None


def status(totals: Counter[str], strict: bool) -> int:
    """The exit status of a run with these totals by verdict."""
    failed = totals["fail"] + (totals["known"] if strict else 0)
    told = totals["pass"] + totals["fail"] + totals["known"] + totals["fixed"]
    if failed or totals["error"]:
        return UNEXPECTED
    if not told and not totals["info"]:
        say("nothing could be tested: every result is a skip; kvmtest doctor says what this KVM lacks")
        return UNTESTABLE
    return OK


def now() -> str:
    """The time as results have it: UTC in RFC 3339."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def print_lines(texts: Iterable[str], out: TextIO | None = None) -> None:
    """Write the lines of ``texts`` to ``out``, standard output by default, without what a file could tell the terminal to do."""
    from kvmtest.report.show import lines

    to = out or sys.stdout
    to.writelines(line + "\n" for text in texts for line in lines(text))


def say(message: str) -> None:
    """One line for the user, on standard error."""
    from kvmtest.report.show import lines

    sys.stderr.write("kvmtest: " + "\n".join(lines(message)) + "\n")
    sys.stderr.flush()
