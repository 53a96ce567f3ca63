# SPDX-License-Identifier: GPL-2.0-only
"""``kvmtest diff``."""

from __future__ import annotations

import argparse

from kvmtest.commands import common
from kvmtest.commands.common import OK, RAW, UNEXPECTED, USAGE, Commands, Failed, say
from kvmtest.commands.output import opened

__all__ = ("add",)

_EPILOG = """\
Shows the items of two snapshots (kvmtest snapshot) whose values or planted values differ. Values of counters that run by
themselves (the TSC, the timer's current count) are not compared. Different kernels, CPUs or parameters are shown, too, and do
not count as differences. To compare results: kvmtest report --baseline OLD NEW.

  kvmtest diff before.json after.json

Exit status: 0 no differences; 1 differences; 2 a file cannot be read or compared.
"""


def add(commands: Commands) -> None:
    """Add ``diff``."""
    what = "compare two saved snapshots"
    parser = commands.add_parser("diff", help=what, epilog=_EPILOG, formatter_class=RAW)
    parser.add_argument("a", metavar="A", help="the earlier snapshot")
    parser.add_argument("b", metavar="B", help="the later snapshot")
    parser.add_argument("--format", choices=("text", "json"), default="text", help="default: text")
    parser.add_argument("-o", "--output", metavar="FILE", help="write to FILE instead of standard output")
    parser.set_defaults(function=_diff)


def _diff(args: argparse.Namespace) -> int:
    from kvmtest.compare import files, show, states
    from kvmtest.results.saved import SavedError

    try:
        a, b = files.state(args.a), files.state(args.b)
    except SavedError as error:
        raise Failed(str(error), USAGE) from None
    changes = states.difference(a, b)
    header = states.hosts(a.host, b.host) + states.made(a, b)
    say(f"{len(changes)} of {len(a.items.keys() | b.items.keys())} items differ")
    with opened(args.output) as out:
        if args.format == "json":
            import json

            out.write(json.dumps(show.items_json(a, b, header, changes), indent=1) + "\n")
        else:
            common.print_lines((*show.head(a.name, b.name, header), *show.items(changes)), out)
    return UNEXPECTED if changes else OK
