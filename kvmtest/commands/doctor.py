# SPDX-License-Identifier: GPL-2.0-only
"""``kvmtest doctor``."""

from __future__ import annotations

import argparse

from kvmtest.commands import common
from kvmtest.commands.common import Commands

__all__ = ("add",)

_INSTEAD = "usable: nothing here; next: what the first line says, or another kernel's KVM in an emulator: kvmtest lab run --help"


def add(commands: Commands) -> None:
    """Add ``doctor``."""
    parser = commands.add_parser("doctor", help="what this machine's KVM can do, and what to install or enable for the rest")
    common.device(parser)
    parser.set_defaults(function=_doctor)


def _doctor(args: argparse.Namespace) -> int:
    from kvmtest.engine import doctor
    from kvmtest.report.show import columns, wrapped

    wide = columns()
    bad = False
    for found in doctor.examine(args.device):
        said = f"{found.what}: {found.advice}" if found.advice else found.what
        said += f"; {found.enable}" if found.enable else ""
        common.print_lines([wrapped(said, wide, f"{found.state:4} ", " " * 5)])
        bad = bad or found.state == "bad"
    if bad:
        common.print_lines([wrapped(_INSTEAD, wide, "", " " * 5)])
    return common.UNTESTABLE if bad else common.OK
