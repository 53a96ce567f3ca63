# SPDX-License-Identifier: GPL-2.0-only
"""What commands that start cells of the lab have in common: options, and how a boot is shown."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
from typing import TYPE_CHECKING

from kvmtest.commands.common import say

if TYPE_CHECKING:
    from kvmtest.lab.steps import Booting

__all__ = ("Boot", "check", "options", "parameters")

_PARAMETER = re.compile(r"(\w+)\.(\w+=\S*)")


def options(parser: argparse.ArgumentParser) -> None:
    """What every command that starts cells takes besides backend and kernel."""
    parser.add_argument("--modules", default="", metavar="DIR", help="modules folder of a kernel image given by its path")
    parser.add_argument("--kvm-modules", default="", metavar="DIR", help="take kvm.ko and the vendor modules there from DIR")
    parser.add_argument(
        "--module-param", type=_parameter, action="append", default=[], metavar="M.P=V", help="for example kvm_amd.npt=0"
    )
    parser.add_argument("--fresh-boot", action="store_true", help="boot the kernel, also where its saved boot is kept (QEMU)")


def _parameter(text: str) -> tuple[str, str]:
    found = _PARAMETER.fullmatch(text)
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form MODULE.PARAMETER=VALUE")
    return found[1].replace("-", "_"), found[2]


def parameters(args: argparse.Namespace) -> dict[str, str]:
    """The modules' parameters that ``args`` ask for, by module."""
    found: dict[str, str] = {}
    for module, value in args.module_param:
        found[module] = f"{found.get(module, '')} {value}".strip()
    return found


def check(args: argparse.Namespace) -> None:
    """Raise NotFound for a folder of modules that is not there."""
    from kvmtest.lab.error import NotFound

    for folder in (args.modules, args.kvm_modules):
        if folder and not os.path.isdir(folder):
            raise NotFound(f"no such folder: {folder}")


class Boot:
    """Where a boot is: a line on a terminal that is written anew as it goes on, or one that says that it began."""

    def __init__(self) -> None:
        self._width = 0
        self._said = False

    def show(self, step: Booting) -> None:
        """The guest is there now."""
        if sys.stderr.isatty():
            line = f"kvmtest: {step}"[: max(20, shutil.get_terminal_size().columns - 1)]
            sys.stderr.write(f"\r{line:{self._width}}")
            sys.stderr.flush()
            self._width = len(line)
        elif not self._said:
            say(str(step))
        self._said = True

    def over(self) -> None:
        """It is up, or will not be."""
        if self._width:
            sys.stderr.write(f"\r{'':{self._width}}\r")
            sys.stderr.flush()
            self._width = 0
