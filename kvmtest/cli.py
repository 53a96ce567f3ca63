# SPDX-License-Identifier: GPL-2.0-only
"""The command line: its parser, and what every command has in common when it ends."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

    from kvmtest.commands.common import Interrupt

__all__ = ("main", "parser")

#: In the order of the help: modules of `kvmtest.commands`.
_COMMANDS = (
    *("run", "report", "diff", "snapshot", "list", "explain", "repro", "fuzz", "series", "spec", "doctor"),
    *("judge", "observer", "vmm", "lab"),
)
_INTERRUPTED = 130


def parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    import argparse
    import importlib

    from kvmtest import __version__

    made = argparse.ArgumentParser(
        prog="kvmtest",
        description="Compare an x86 vCPU's state after RESET, INIT and SIPI on this host's KVM with the Intel and AMD manuals.",
        epilog="For details: kvmtest COMMAND --help. Start with: kvmtest run",
    )
    made.add_argument("--version", action="version", version=f"kvmtest {__version__}")
    commands = made.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for command in _COMMANDS:
        importlib.import_module(f"kvmtest.commands.{command}").add(commands)
    return made


def _descriptors() -> None:
    """Keep what is opened from the numbers of standard streams that are closed: what is written there would go into it.

    A read of standard input, or a write to standard output, fails then as where it is closed; what standard error misses
    changes nothing.
    """
    for number, mode in enumerate((os.O_WRONLY, os.O_RDONLY, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, mode)
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line ``argv`` (default: the process's); returns the exit status."""
    try:
        _descriptors()
        # Imports take most of a second, in which a Ctrl-C may come.
        from kvmtest.commands import common

        # If it is the process's, a later signal does not change its status.
        with common.Interrupt(last=argv is None) as process:
            return _run(sys.argv[1:] if argv is None else argv, process)
    except KeyboardInterrupt:
        with contextlib.suppress(OSError):
            os.write(2, b"kvmtest: interrupted\n")
        return _INTERRUPTED
    finally:
        _forget_errors()


def _forget_errors() -> None:
    """Drop what standard error does not accept: the interpreter would try again at its end, and exit with 120 (since 3.13)."""
    try:
        if sys.stderr:
            sys.stderr.flush()
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


def _parsed(words: Sequence[str]) -> argparse.Namespace:
    """Parse ``words``. An option that a command does not have ends with the usage of that command, not of all."""
    import argparse

    used = parser()
    args, unknown = used.parse_known_args(words)
    if unknown:
        for word in words:
            for action in used._actions:
                if isinstance(action, argparse._SubParsersAction):
                    used = action.choices.get(word, used)
        used.error(f"unrecognized arguments: {' '.join(unknown)}")
    return args


def _run(words: Sequence[str], process: Interrupt) -> int:
    """Parse ``words`` and run the command; the exit status, whatever it raises: known, it is changed by no signal."""
    bisect, output = False, None
    try:
        from kvmtest.commands import outcome
        from kvmtest.commands.output import forget_output

        bisect = outcome.bisecting(words)
        try:
            args = _parsed(words)
        except SystemExit as done:
            if bisect and done.code:
                raise SystemExit(outcome.ABORT) from None
            raise
        output = getattr(args, "output", None)
        status: int = args.function(args)
        try:
            sys.stdout.flush()
        except BrokenPipeError:  # nobody reads the rest, which says nothing of what was tested
            forget_output()
        process.finish()
        return status
    except (Exception, KeyboardInterrupt) as error:
        status = _ended(error, output, bisect)
        # Before what was raised is let go, and with it VMs.
        process.finish()
        return status


def _ended(error: BaseException, output: str | None, bisect: bool) -> int:
    """Report how it ended; return the exit status, as one that git bisect stops at unless it is a verdict."""
    from kvmtest.commands import ending, outcome
    from kvmtest.commands.common import BISECT_SKIP, INTERRUPTED, say
    from kvmtest.commands.output import forget_output

    status, line = ending.of(error, output)
    if more := ending.debugged(error):
        with contextlib.suppress(OSError):
            sys.stderr.write(more)
    if line:
        say(line)
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        forget_output()
    return status if not bisect or status in (BISECT_SKIP, INTERRUPTED) else outcome.ABORT


if __name__ == "__main__":
    sys.exit(main())
