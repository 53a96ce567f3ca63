# SPDX-License-Identifier: GPL-2.0-only
"""``kvmtest spec``."""

from __future__ import annotations

import argparse

from kvmtest.commands.common import OK, RAW, Commands, print_lines

__all__ = ("add",)

_EPILOG = """\
  kvmtest spec | less
  kvmtest spec --format json | jq '.rules[] | select(.item == "cr0")'
"""


def add(commands: Commands) -> None:
    """Add ``spec``."""
    what = "print all rules; --format json for other programs"
    parser = commands.add_parser("spec", help=what, epilog=_EPILOG, formatter_class=RAW)
    parser.add_argument("--format", choices=("text", "json"), default="text", help="default: text")
    parser.set_defaults(function=_spec)


def _spec(args: argparse.Namespace) -> int:
    from kvmtest import explain, spec

    if args.format == "json":
        import json

        print_lines([json.dumps(spec.document(), indent=1)])
    else:
        print_lines(line for item in spec.ENTRIES for line in explain.explain(item))
    return OK
