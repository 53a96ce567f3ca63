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
    parser.add_argument("--cases", action="store_true", help="the cases (plant x trigger x view) instead of result ids")
    parser.set_defaults(function=_list)


def _list(args: argparse.Namespace) -> int:
    from kvmtest.engine import plan

    cases, selectors = common.selected(args.selectors)
    if args.cases:
        common.print_lines(case.name for case in cases)
    else:
        common.print_lines(name for name in plan.ids(cases) if plan.wanted(selectors, name))
    return common.OK
