# SPDX-License-Identifier: GPL-2.0-only
"""``kvmtest lab``: its part of the command line."""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TextIO

from kvmtest.lab.emulator import BACKENDS

if TYPE_CHECKING:
    from kvmtest.lab.cell import Cell, Spec, Stop
    from kvmtest.report import Writer

__all__ = ("add_parser", "lab")

OK, UNEXPECTED, USAGE, UNTESTABLE, INTERRUPTED = 0, 1, 2, 3, 130
BISECT_SKIP = 125
_EPILOG = """\
WHICH is a Debian suite (bullseye, trixie, sid) or version (5.10, 6.12): fetched from the mirror this machine is configured
for, and kept; a .deb; a kernel image, with --modules; or host, the kernel that runs here.

  kvmtest lab run --backend svm --kernel trixie 'init.*.cr*'
  kvmtest lab run --backend vmx --kernel 6.1 --kvm-modules ~/linux/arch/x86/kvm
  kvmtest lab matrix --backend svm,vmx --kernel 5.10,6.1,6.12,7.2

svm is kvm_amd in QEMU (TCG emulates SVM), vmx is kvm_intel in Bochs. Exit status as of kvmtest run.
"""
_PARAMETER = re.compile(r"(\w+)\.(\w+=\S*)")


def add_parser(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], common: Callable[[argparse.ArgumentParser], None]
) -> None:
    """Add ``lab``; ``common`` adds the arguments that ``kvmtest run`` has, too."""
    raw = argparse.RawDescriptionHelpFormatter
    what = "the same on another kernel's KVM, in an emulator"
    parser = commands.add_parser("lab", help=what, epilog=_EPILOG, formatter_class=raw)
    verbs = parser.add_subparsers(dest="verb", metavar="COMMAND", required=True)

    run = verbs.add_parser("run", help="one kernel on one backend", epilog=_EPILOG, formatter_class=raw)
    run.add_argument("--backend", choices=BACKENDS, required=True, help="svm: kvm_amd in QEMU; vmx: kvm_intel in Bochs")
    run.add_argument("--kernel", metavar="WHICH", required=True, help="which kernel (below)")
    common(run)
    _cell_options(run)

    matrix = verbs.add_parser("matrix", help="several kernels on several backends", epilog=_EPILOG, formatter_class=raw)
    matrix.add_argument("--backend", type=_backends, action="extend", metavar="B[,B]", help="default: svm,vmx")
    which = "which kernels (below)"
    matrix.add_argument("--kernel", type=_list, action="extend", metavar="WHICH[,WHICH]", required=True, help=which)
    matrix.add_argument("--jobs", type=_jobs, metavar="N", help="cells at once; default: what cores and memory allow")
    common(matrix)
    _cell_options(matrix)

    kernels = verbs.add_parser("kernels", help="what is kept, and what can be had")
    kernels.add_argument("--fetch", type=_list, action="extend", default=[], metavar="WHICH", help="get it, or its newest")
    kernels.add_argument("--remove", action="store_true", help="remove everything that is kept")


def _cell_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--modules", default="", metavar="DIR", help="modules folder of a kernel image given by its path")
    parser.add_argument("--kvm-modules", default="", metavar="DIR", help="take kvm.ko and the vendor modules there from DIR")
    parser.add_argument(
        "--module-param", type=_parameter, action="append", default=[], metavar="M.P=V", help="for example kvm_amd.npt=0"
    )


def _list(text: str) -> list[str]:
    return [part for part in text.split(",") if part]


def _backends(text: str) -> list[str]:
    found = _list(text)
    if wrong := [name for name in found if name not in BACKENDS]:
        raise argparse.ArgumentTypeError(f"{wrong[0]!r} is none of {', '.join(BACKENDS)}")
    return found


def _jobs(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return int(text)


def _parameter(text: str) -> tuple[str, str]:
    found = _PARAMETER.fullmatch(text)
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form MODULE.PARAMETER=VALUE")
    return found[1].replace("-", "_"), found[2]


def _say(message: str) -> None:
    sys.stderr.write(f"kvmtest: {message}\n")
    sys.stderr.flush()


def _specs(args: argparse.Namespace, backends: list[str], names: list[str]) -> list[Spec]:
    """The cells asked for. Raises LabError, plan.SelectorError."""
    from kvmtest.engine import plan
    from kvmtest.lab import cell, emulator, kernels
    from kvmtest.lab.error import NotFound

    selectors = tuple(args.selectors)
    plan.select(plan.plan(), cell.inner(selectors))
    for folder in (args.modules, args.kvm_modules):
        if folder and not os.path.isdir(folder):
            raise NotFound(f"no such folder: {folder}")
    for backend in backends:
        emulator.for_backend(backend).check()
    parameters: dict[str, str] = {}
    for module, value in args.module_param:
        parameters[module] = f"{parameters.get(module, '')} {value}".strip()
    found = {name: kernels.find(name, args.modules, _say) for name in dict.fromkeys(names)}
    return [
        cell.Spec(backend, kernel, selectors, args.timeout, args.kvm_modules, parameters, (args.rounds, args.seed))
        for backend in dict.fromkeys(backends)
        for kernel in found.values()
    ]


@contextlib.contextmanager
def _signals() -> Iterator[Stop]:
    """Within it SIGTERM and SIGHUP end things as Ctrl-C does."""
    from kvmtest.lab.cell import Stop

    stop = Stop()
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def play(cell: Cell, writer: Writer, started: str) -> Counter[str]:
    """Run ``cell`` into ``writer``; the totals by verdict, without a log that had nothing to say. Raises LabError, Cancelled."""
    from kvmtest.engine.result import CaseTime, Result
    from kvmtest.lab.cell import Begin, Running, Times

    totals: Counter[str] = Counter()
    begin = time.monotonic()
    begun = False
    quiet = 0
    steps = cell.steps()
    try:
        for step in steps:
            if isinstance(step, Result):
                totals[step.verdict] += 1
                quiet += step.id == "none.lab.kernel.log" and step.verdict == "pass"
                writer.result(step)
            elif isinstance(step, CaseTime):
                writer.case(step)
            elif isinstance(step, Running):
                writer.running(step.case)
            elif isinstance(step, Begin):
                writer.begin(step.host, started, step.cases)
                begun, begin = True, time.monotonic()
            elif isinstance(step, Times):
                _say(f"{cell.spec.name}: {step}")
    finally:
        steps.close()
        if begun:
            writer.end(time.monotonic() - begin, totals)
    totals["pass"] -= quiet
    return totals


def now() -> str:
    """The time as results have it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def _run(
    args: argparse.Namespace, status: Callable[[Counter[str], bool, bool], int], out: Callable[[], TextIO], stop: Stop
) -> int:
    from kvmtest import report
    from kvmtest.lab.cell import Cancelled, Cell

    (spec,) = _specs(args, [args.backend], [args.kernel])
    stream = out()
    try:
        stop.running = True
        totals = play(Cell(spec, stop), report.writer(args.format, stream), now())
    except Cancelled:
        _say("interrupted; what was measured until then is in the report")
        return INTERRUPTED
    finally:
        if stream is not sys.stdout:
            stream.close()
        else:
            stream.flush()
    return status(totals, args.strict, args.bisect)


def _kernels(args: argparse.Namespace) -> int:
    from kvmtest.lab import apt, cache, kernels
    from kvmtest.lab.error import LabError

    if args.remove:
        import shutil

        shutil.rmtree(cache.home(), ignore_errors=True)
        return OK
    for which in args.fetch:
        kernels.find(which, "", _say, fresh=True)
    kept = dict[str, str]()
    for suite, kernel in kernels.cached():
        kept[suite] = f"{kernel.release}  ({kernel.source})"
    for suite in [*apt.SUITES, *(name for name in kept if name not in apt.SUITES)]:
        sys.stdout.write(f"{suite:10} {kept.get(suite, 'not here; fetched when it is asked for')}\n")
    try:
        host = kernels.find("host")
        sys.stdout.write(f"{'host':10} {host.release}\n")
    except LabError as error:
        sys.stdout.write(f"{'host':10} {error}\n")
    return OK


def lab(args: argparse.Namespace, status: Callable[[Counter[str], bool, bool], int], out: Callable[[], TextIO]) -> int:
    """``kvmtest lab ...``: ``status`` makes an exit status of totals, ``out`` opens what ``--output`` names."""
    from kvmtest.engine.plan import SelectorError
    from kvmtest.lab.error import LabError, NotFound

    bisect = getattr(args, "bisect", False)
    try:
        with _signals() as stop:
            if args.verb == "kernels":
                return _kernels(args)
            if args.verb == "matrix":
                from kvmtest.lab import matrix

                return matrix.run(_specs(args, args.backend or list(BACKENDS), args.kernel), args, status, out, _say, stop)
            return _run(args, status, out, stop)
    except SelectorError as error:
        _say(f"no result id matches {error}; kvmtest list shows them all")
        return USAGE
    except NotFound as error:
        _say(str(error))
        return USAGE
    except LabError as error:
        _say(str(error))
        return BISECT_SKIP if bisect else UNTESTABLE
