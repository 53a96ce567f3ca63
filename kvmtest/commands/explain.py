# SPDX-License-Identifier: GPL-2.0-only
"""``kvmtest explain``."""

from __future__ import annotations

import argparse

from kvmtest.commands.common import OK, USAGE, Commands, Failed, print_lines

__all__ = ("add",)


def add(commands: Commands) -> None:
    """Add ``explain``."""
    parser = commands.add_parser("explain", help="the rule of an item, its citations, KVM's code, deviations")
    parser.add_argument("name", metavar="ITEM|COMMIT", help="an item (cr0, lapic.svr, msr.pat), a result id, a commit or v1#14")
    parser.set_defaults(function=_explain)


def _explain(args: argparse.Namespace) -> int:
    from kvmtest import explain

    try:
        print_lines(explain.explain(args.name))
    except explain.UnknownName as error:
        raise Failed(str(error), USAGE) from None
    return OK
