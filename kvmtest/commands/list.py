# SPDX-License-Identifier: GPL-2.0-only
"""``kvmtest list``."""

from __future__ import annotations

import argparse

from kvmtest.commands import common
from kvmtest.commands.common import RAW, SELECTORS, Commands

__all__ = ("add",)


def add(commands: Commands) -> None:
    """Add ``list``."""
    what = "what would run, without running it"
    parser = commands.add_parser("list", help=what, epilog=SELECTORS, formatter_class=RAW)
    parser.add_argument("selectors", nargs="*", metavar="SELECTOR")
    parser.add_argument("--cases", action="store_true", help="the cases instead of result ids, each with its view: <id>/<words>")
    common.full(parser)
    parser.set_defaults(function=_list)


def _list(args: argparse.Namespace) -> int:
    from kvmtest.engine import plan
    from kvmtest.lab import ids as lab_ids
    from kvmtest.model.select import Selection

    asked = args.selectors
    if ours := lab_ids.wanted(tuple(asked)):
        common.print_lines(ours)
        common.say("the first are of kvmtest lab alone; kvmtest explain says how they come to be")
        asked = [s for s in asked if not lab_ids.wanted((s,)) or not s.startswith("none.lab")]
        if not asked:
            return common.OK
    cases = common.selected(asked, args.full)
    if args.cases:
        common.print_lines(dict.fromkeys(f"{case.prefix}/{case.words}" for case in cases))
    else:
        selection = Selection(asked)
        common.print_lines(name for name in plan.ids(cases) if selection.takes_id(name))
    return common.OK
