# SPDX-License-Identifier: GPL-2.0-only
"""The command line: its parser, and what every command has in common when it ends."""

from __future__ import annotations

import argparse
import contextlib
import errno
import sys
from collections.abc import Sequence

from kvmtest import __version__
from kvmtest.commands import diff, doctor, explain, fuzz, lab, list, outcome, report, repro, run, series, snapshot, spec
from kvmtest.commands.common import BISECT_SKIP, INTERRUPTED, OK, UNEXPECTED, USAGE, Failed, forget_output, say

__all__ = ("main", "parser")

#: In the order of the help.
_COMMANDS = (run, report, diff, snapshot, list, explain, repro, fuzz, series, spec, doctor, lab)
#: Errors of a file system that is full or broken.
_CANNOT_WRITE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


def parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    made = argparse.ArgumentParser(
        prog="kvmtest",
        description="Compare an x86 vCPU's state after RESET, INIT and SIPI on this host's KVM with the Intel and AMD manuals.",
        epilog="For details: kvmtest COMMAND --help. Start with: kvmtest run",
    )
    made.add_argument("--version", action="version", version=f"kvmtest {__version__}")
    commands = made.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for command in _COMMANDS:
        command.add(commands)
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line ``argv`` (default: the process's); returns the exit status."""
    words = sys.argv[1:] if argv is None else argv
    bisect = outcome.bisecting(words)
    try:
        args = parser().parse_args(words)
    except SystemExit as done:
        if bisect and done.code:
            raise SystemExit(outcome.ABORT) from None
        raise

    def ended(status: int) -> int:
        """Map statuses that git would read as good or bad to ABORT."""
        return status if not bisect or status in (BISECT_SKIP, INTERRUPTED) else outcome.ABORT

    try:
        status: int = args.function(args)
        with contextlib.suppress(BrokenPipeError):
            sys.stdout.flush()
            return status
        forget_output()
        return status
    except Failed as failed:
        say(str(failed))
        return ended(failed.status)
    except KeyboardInterrupt:
        say("interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        forget_output()
        return ended(OK)
    except OSError as error:
        if error.errno in _CANNOT_WRITE:
            say(f"cannot write {getattr(args, 'output', None) or 'standard output'}: {error.strerror}")
            forget_output()
            return ended(USAGE)
        say(str(error))
        return ended(UNEXPECTED)
    except Exception:
        if not bisect:
            raise
        import traceback

        traceback.print_exc()
        return outcome.ABORT


if __name__ == "__main__":
    sys.exit(main())
