# SPDX-License-Identifier: GPL-2.0-only
"""Options of the lab's commands for cells: backends, kernels, modules and their parameters."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

from kvmtest.commands import common, run
from kvmtest.commands.common import say
from kvmtest.lab.emulator import BACKENDS
from kvmtest.report.show import printable

if TYPE_CHECKING:
    from kvmtest.lab.steps import Booting, Spec

__all__ = ("Boot", "backends", "check", "names", "number", "options", "parameter", "specs", "together")

_PARAMETER = re.compile(r"(\w+)\.(\w+=\S*)")


def options(parser: argparse.ArgumentParser, own: bool = True) -> None:
    """Add the options of all commands that run cells; with ``own``, also those for the user's modules of KVM."""
    parser.add_argument("--modules", default="", metavar="DIR", help="modules of a kernel image: .../lib/modules/RELEASE")
    if own:
        parser.add_argument("--kvm-modules", default="", metavar="DIR", help="use kvm.ko and the vendor modules in DIR")
    parser.add_argument(
        "--module-param",
        type=parameter,
        action="append",
        default=[],
        metavar="M.P=V",
        help="set a module parameter, for example kvm_amd.npt=0",
    )
    parser.add_argument("--fresh-boot", action="store_true", help="boot the kernel even if a saved boot is cached (QEMU)")


def names(text: str) -> list[str]:
    """An argument of several names."""
    found = [part for part in text.split(",") if part]
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} names nothing")
    return found


def backends(text: str) -> list[str]:
    """An argument of several backends."""
    found = names(text)
    if wrong := [name for name in found if name not in BACKENDS]:
        raise argparse.ArgumentTypeError(f"{wrong[0]!r} is none of {', '.join(BACKENDS)}")
    return found


def number(text: str) -> int:
    """An argument that is a number above 0."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return int(text)


def parameter(text: str) -> tuple[str, str]:
    """An argument that is a module's parameter: the module, and the parameter with its value."""
    found = _PARAMETER.fullmatch(text)
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form MODULE.PARAMETER=VALUE")
    return found[1].replace("-", "_"), found[2]


def together(given: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The parameters by module, as in `Spec`."""
    found: dict[str, str] = {}
    for module, value in given:
        found[module] = f"{found.get(module, '')} {value}".strip()
    return found


def check(args: argparse.Namespace) -> None:
    """Raise NotFound for a folder of modules that is not there."""
    from kvmtest.lab.error import NotFound

    for folder in (args.modules, args.kvm_modules):
        if folder and not os.path.isdir(folder):
            raise NotFound(f"no such folder: {folder}")


def specs(args: argparse.Namespace, backends: list[str], names: list[str]) -> list[Spec]:
    """The cells to run. Raises LabError, Failed."""
    from kvmtest.lab import cell, emulator, kernels, steps

    selectors = tuple(run.chosen(args))
    cases = common.scenarios(args.scenario)
    common.selected(cell.inner(selectors), args.full, cases)
    check(args)
    for backend in backends:
        emulator.for_backend(backend).check()
    parameters = together(args.module_param)
    found = {name: kernels.find(name, args.modules, say) for name in dict.fromkeys(names)}
    rounds = (args.rounds, args.seed)
    return [
        steps.Spec(
            backend, kernel, selectors, args.timeout, args.kvm_modules, parameters, rounds, args.fresh_boot, cases, args.full
        )
        for backend in dict.fromkeys(backends)
        for kernel in found.values()
    ]


class Boot:
    """Progress of a boot: a line that is rewritten on a terminal, else one line when it begins."""

    def __init__(self) -> None:
        self._width = 0
        self._said = False

    def show(self, step: Booting) -> None:
        """The guest is there now."""
        if sys.stderr.isatty():
            line = printable(f"kvmtest: {step}")[: max(20, shutil.get_terminal_size().columns - 1)]
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
