# SPDX-License-Identifier: GPL-2.0-only
"""``kvmtest doctor``."""

from __future__ import annotations

import argparse

from kvmtest.commands import common
from kvmtest.commands.common import Commands

__all__ = ("add",)


def add(commands: Commands) -> None:
    """Add ``doctor``."""
    parser = commands.add_parser("doctor", help="what this machine's KVM can do, and what to install or enable for the rest")
    common.device(parser)
    parser.set_defaults(function=_doctor)


def _doctor(args: argparse.Namespace) -> int:
    from kvmtest.engine import doctor

    findings = list(doctor.examine(args.device))
    common.print_lines(f"{f.state:4} {f.what}" + (f": {f.advice}" if f.advice else "") for f in findings)
    return common.UNTESTABLE if any(f.state == "bad" for f in findings) else common.OK
