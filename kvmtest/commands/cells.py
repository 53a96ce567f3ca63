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
from kvmtest.lab.emulator import ACCELS, BACKENDS
from kvmtest.report.show import printable

if TYPE_CHECKING:
    from kvmtest.lab.start import Cpu
    from kvmtest.lab.steps import Booting, Spec
    from kvmtest.model.shard import Shard

__all__ = (
    "BACKEND_HELP", "Boot", "backend", "backends", "check", "chosen", "cpus", "names", "number", "options", "parameter", "specs",
    "together",
)  # fmt: skip

BACKEND_HELP = "svm: kvm_amd in QEMU; vmx: kvm_intel in Bochs; with --accel kvm it is the one that this host's CPU has"

#: The name of the usual CPU model of a backend, among others of a matrix.
_USUAL = "default"
_PARAMETER = re.compile(r"(\w+)\.(\w+=\S*)")


def options(parser: argparse.ArgumentParser, own: bool = True, several: bool = False) -> None:
    """Add the options of all commands that run cells; with ``own``, also those for the user's modules of KVM, with ``several``,
    that for several CPU models.
    """
    how = "what makes the CPU: tcg (QEMU, svm alone), bochs, or kvm: QEMU on this host's own KVM, if that nests"
    parser.add_argument("--accel", choices=ACCELS, help=how)
    model = "a CPU model as the emulator calls it: max, EPYC-Milan; Bochs: corei7_haswell_4770, tigerlake, ryzen"
    if several:
        also = f"{model}; default is the usual one"
        parser.add_argument("--cpu", type=models, action="extend", metavar="MODEL[,MODEL]", help=also)
    else:
        parser.add_argument("--cpu", default="", metavar="MODEL", help=model)
    what = "installed, built, or a Debian suite, cached as kernels are (kvmtest lab emulators); default: built, else installed"
    parser.add_argument("--emulator", default="", metavar="WHICH", help=what)
    parser.add_argument("--smp", type=number, default=1, metavar="N", help="number of CPUs (QEMU; default: 1)")
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


def models(text: str) -> list[str]:
    """An argument of several CPU models; a part with a sign or a value is of the model before it, as QEMU's ``-erms``."""
    found: list[str] = []
    for part in names(text):
        if found and (part[0] in "+-" or "=" in part):
            found[-1] += f",{part}"
        else:
            found.append(part)
    return found


def cpus(args: argparse.Namespace) -> list[Cpu]:
    """The CPUs asked for, the models of a matrix one after the other."""
    from kvmtest.lab.start import Cpu

    asked = args.cpu if isinstance(args.cpu, list) else [args.cpu or ""]
    return [Cpu("" if model == _USUAL else model, args.accel or "", args.smp, args.emulator) for model in dict.fromkeys(asked)]


def backend(args: argparse.Namespace) -> str:
    """The one backend asked for; with --accel kvm the one that there is. Raises Failed."""
    from kvmtest.lab.error import LabError

    if not args.backend and args.accel != "kvm":
        raise common.Failed(f"--backend is needed: one of {', '.join(BACKENDS)}", common.USAGE)
    try:
        return str(args.backend or chosen(args)[0])
    except LabError as error:
        raise common.Failed(str(error), common.UNTESTABLE) from None


def chosen(args: argparse.Namespace) -> list[str]:
    """The backends asked for; all there are, if none is. Raises LabError."""
    from kvmtest.lab import qemu

    if args.backend:
        return list(args.backend)
    return [qemu.nests()] if args.accel == "kvm" else list(BACKENDS)


def backends(text: str) -> list[str]:
    """An argument of several backends."""
    found = names(text)
    if wrong := [name for name in found if name not in BACKENDS]:
        raise argparse.ArgumentTypeError(f"{wrong[0]!r} is not one of {', '.join(BACKENDS)}")
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
    from kvmtest.lab import cell, kernels, steps

    selectors = tuple(run.chosen(args))
    cases = common.scenarios(args.scenario)
    common.selected(cell.inner(selectors), args.full, cases)
    check(args)
    pairs = _pairs(backends, cpus(args))
    parameters = together(args.module_param)
    every = [(*pair, name) for pair in pairs for name in dict.fromkeys(names)]
    shard: Shard | None = getattr(args, "shard", None)
    dealt = shard.deal(every) if shard else [(one, None) for one in every]
    # Kernels of other shards are not fetched.
    found = {name: kernels.find(name, args.modules, say) for name in dict.fromkeys(name for (_, _, name), _ in dealt)}
    rounds = (args.rounds, args.seed)
    return [
        steps.Spec(
            backend, found[name], selectors, args.timeout, args.kvm_modules, parameters, rounds, args.fresh_boot, cases,
            args.full, cpu=cpu, shard=part,
        )  # fmt: skip
        for (backend, cpu, name), part in dealt
    ]


def _pairs(backends: list[str], asked: list[Cpu]) -> list[tuple[str, Cpu]]:
    """Each backend with each of the CPUs that its emulator has; each is there with one. Raises LabError."""
    from kvmtest.lab import emulator
    from kvmtest.lab.error import NotFound

    found, errors = [], {}
    for cpu in asked:
        for backend in dict.fromkeys(backends):
            try:
                emulator.for_backend(backend, cpu).check(say)
            except NotFound as error:
                errors[cpu] = error
            else:
                found.append((backend, cpu))
        if cpu in errors and not any(cpu == one for _, one in found):
            raise errors[cpu]
    return found


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
