# SPDX-License-Identifier: GPL-2.0-only
"""``kvmtest doctor``."""

from __future__ import annotations

import argparse
import sys

from kvmtest.commands import common
from kvmtest.commands.common import RAW, Commands

__all__ = ("add",)

_EPILOG = """\
  kvmtest doctor
  kvmtest doctor | grep '^no'     what this KVM does not have

Exit status: 0 something can be tested here; 3 nothing.
"""
_INSTEAD = (
    "usable: nothing here; next: do what the first line says, or test another kernel's KVM in an emulator: kvmtest lab run --help"
)


def add(commands: Commands) -> None:
    """Add ``doctor``."""
    what = "show what can be tested here, and what to install or enable for the rest"
    parser = commands.add_parser("doctor", help=what, epilog=_EPILOG, formatter_class=RAW)
    common.device(parser)
    parser.set_defaults(function=_doctor)


def _doctor(args: argparse.Namespace) -> int:
    from kvmtest.engine import doctor

    bad, short = False, sys.stdout.isatty()
    for found in doctor.examine(args.device):
        said = found.what + (f"{'; ' if found.state == 'no' else ': '}{found.advice}" if found.advice else "")
        hint = found.enable if found.enable != doctor.ELSEWHERE or not short else ""
        common.print_row(f"{found.state:4} ", said + (f"; {hint}" if hint else ""))
        bad = bad or found.state == "bad"
    if short and not bad:
        common.print_row("", f"Where a line names no remedy, {doctor.ELSEWHERE}.")
    if bad:
        common.print_row("", _INSTEAD)
    return common.UNTESTABLE if bad else common.OK
