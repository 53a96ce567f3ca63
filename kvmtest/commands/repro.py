# SPDX-License-Identifier: GPL-2.0-only
"""``kvmtest repro``."""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import TYPE_CHECKING

from kvmtest.commands import cells, common, jobs
from kvmtest.commands.common import OK, RAW, UNEXPECTED, UNTESTABLE, USAGE, Commands, Failed, Interrupt, say
from kvmtest.commands.output import opened
from kvmtest.commands.run import seconds

if TYPE_CHECKING:
    from kvmtest.emit.head import Shown
    from kvmtest.engine.plan import Case
    from kvmtest.model.host import Host

__all__ = ("add", "written")

_EPILOG = """\
SELECTOR names a result, as a report prints it. If it matches several, the first failure of the first case that has one is
reproduced. The C file needs only <linux/kvm.h> and libc, prints KTAP, and exits as a kselftest: 0 as expected, 1 failure,
4 skipped. Everything that the failure does not need is left out. With a C compiler, the program is built and run here before
it is written. If nothing in the case fails, the program checks everything that the host reads. Several SELECTORs make one file
each, in the folder DIR.

  kvmtest repro init.msi.host.cr3/ap,intel,xapic,plant-a -o cr3.c && gcc -o cr3 cr3.c && ./cr3
  kvmtest repro --backend svm --kernel 6.1 events.interrupt_shadow        on another kernel, in a cell of the lab
  kvmtest repro --scenario found.json

Exit status: 0 written; 1 no C program shows the result; 2 usage error; 3 not testable here; 130 interrupted.
"""
#: Seconds that the program gets: it waits for no exit longer than one.
_LONGEST_S = 60
#: Tries that may hang the kernel of a cell, for one result.
_MOST = 12
#: Characters shown of a malformed reply.
_SHOWN = 300
#: A result that has a reproducer, and the host that showed it; or why it has none.
_Found = tuple["Shown", "Host"] | str


def add(commands: Commands) -> None:
    """Add ``repro``."""
    what = "write a C program that reproduces one result, as small as possible"
    parser = commands.add_parser("repro", help=what, epilog=_EPILOG, formatter_class=RAW)
    what = "the result (default: that of the scenario file)"
    parser.add_argument("selectors", nargs="*", metavar="SELECTOR", help=what)
    what = "write to this file, or into this folder, instead of standard output"
    parser.add_argument("-o", "--output", metavar="FILE.c|DIR", help=what)
    parser.add_argument("--no-minimise", action="store_true", help="keep everything that the case does")
    what = "leave out guest code, too; on a fixed KVM the program may then miss that code, and skip or fail"
    parser.add_argument("--small-guest", action="store_true", help=what)
    what = "c: a program of its own (default); selftest: a file for tools/testing/selftests/kvm/x86, if it needs no guest code"
    parser.add_argument("--style", choices=("c", "selftest"), default="c", help=what)
    what = "use the case in a scenario file instead of the plan"
    parser.add_argument("--scenario", action="append", default=[], metavar="FILE", help=what)
    parser.add_argument("--timeout", type=seconds, default=1.0, metavar="S", help="limit of each KVM_RUN in seconds (default: 1)")
    common.device(parser)
    jobs.options(parser, required=False)
    parser.set_defaults(function=_repro)


def _repro(args: argparse.Namespace) -> int:
    from kvmtest.lab.cell import inner

    into = args.output if args.output and os.path.isdir(args.output) else ""
    if not args.selectors and not args.scenario:
        raise Failed("name a result: kvmtest repro SELECTOR, as a report prints it", USAGE)
    if len(args.selectors) > 1 and not into:
        raise Failed("several SELECTORs make several files: give an existing folder, -o DIR", USAGE)
    if args.kernel and args.accel:
        args.backend = cells.backend(args)
    if bool(args.backend) != bool(args.kernel):
        raise Failed("a cell of the lab needs both --backend and --kernel", USAGE)
    given = common.scenarios(args.scenario)
    selectors = inner(tuple(args.selectors)) or ("*",)
    common.selected(selectors, False, given)
    with Interrupt() as stop:
        return written(args, into, selectors, given, stop)


def written(args: argparse.Namespace, into: str, selectors: tuple[str, ...], given: tuple[Case, ...], stop: Interrupt) -> int:
    """Write the C file of what each of ``selectors`` names, to the folder ``into`` where there is one. Returns the exit status.

    Raises Failed.
    """
    status = OK
    for found in (_there if args.backend else _here)(args, selectors, given, stop):
        why = found if isinstance(found, str) else _write(args, into, *found)
        if why:
            say(why)
            status = UNEXPECTED
    return status


def _ends(text: str) -> int | None:
    """The exit status of the program ``text`` on this host's KVM; None where there is no C compiler."""
    compiler = shutil.which("cc")
    if not compiler:
        return None
    with tempfile.TemporaryDirectory(prefix="kvmtest-") as folder:
        source, program = os.path.join(folder, "repro.c"), os.path.join(folder, "repro")
        with open(source, "w", encoding="utf-8") as file:
            file.write(text)
        built = subprocess.run([compiler, "-o", program, source, "-pthread"], capture_output=True, text=True, check=False)
        if built.returncode:
            raise Failed(f"{compiler} does not compile the program: {built.stderr.strip().splitlines()[0]}", UNEXPECTED)
        with contextlib.suppress(subprocess.TimeoutExpired):
            return subprocess.run([program], capture_output=True, timeout=_LONGEST_S, check=False).returncode
    return -1


def _write(args: argparse.Namespace, into: str, shown: Shown, host: Host) -> str:
    """Write the C file, after a check that it exits as expected if it was made here; return why not, or "". Raises Failed."""
    from kvmtest.emit import c, head, selftest
    from kvmtest.emit.repro import NoRepro

    style = selftest if args.style == "selftest" else c
    said = head.lines(shown.about, shown.repro, host)
    try:
        text = style.source(shown.repro, said)
    except NoRepro as error:
        return f"{shown.about.name}: {error}"
    # One for the selftests is built in the kernel's tree alone.
    if not args.backend and (ended := _ends(c.source(shown.repro, said))) not in (None, int(shown.about.departs)):
        raise Failed(f"{shown.about.name}: as a C program it ends with {ended}, not {int(shown.about.departs)}", UNEXPECTED)
    path = os.path.join(into, re.sub(r"[^\w.,-]", "-", shown.about.name) + ".c") if into else args.output
    if path:
        with opened(path) as out:
            out.write(text)
    else:
        sys.stdout.write(text)
    left = len(shown.repro.vm.ops) + len(shown.repro.body.ops)
    tried = f"; {left} of {shown.ops} steps, found by {shown.tries} tries" if shown.tries else ""
    say(f"{shown.about.name}: {len(text.splitlines())} lines{f', {path}' if path else ''}{tried}")
    return ""


def _here(args: argparse.Namespace, selectors: tuple[str, ...], given: tuple[Case, ...], stop: Interrupt) -> Iterator[_Found]:
    """By this host's KVM. Raises Failed."""
    from kvmtest.emit.repro import NoRepro
    from kvmtest.engine import doctor, host
    from kvmtest.engine.reproduce import first
    from kvmtest.model.select import Selection

    try:
        kvm = doctor.open_kvm(args.device)
    except doctor.Unusable as error:
        raise Failed(str(error), UNTESTABLE) from None
    with kvm:
        facts = host.detect()
        for selector in selectors:
            cases = common.selected((selector,), False, given)
            try:
                how = {"minimise": not args.no_minimise, "small_guest": args.small_guest}
                yield first(kvm, facts, cases, Selection((selector,)), args.timeout, **how, progress=say), facts
            except NoRepro as error:
                yield f"{selector}: {error}"


def _there(args: argparse.Namespace, selectors: tuple[str, ...], given: tuple[Case, ...], stop: Interrupt) -> Iterator[_Found]:
    """In cells of the lab: one, and another one wherever a try hangs its kernel. Raises Failed."""
    from kvmtest.emit.plain import load
    from kvmtest.engine.trial import HANGS

    how = {"minimise": not args.no_minimise, "small_guest": args.small_guest}
    left, hung = list(selectors), 0
    known: list[tuple[object, ...]] = []
    while left and not stop.seen:
        job = {"programs": {}, "selectors": tuple(left), "known": tuple(known), **how}
        trying = False
        for host, (kind, *rest) in jobs.results(args, job, stop, tuple(left), given):
            trying = kind == "trying"
            if kind == "progress":
                say(rest[0])
            elif kind == "tried":
                known.append(rest[0])
            elif kind == "shown":
                # A kernel under test may send anything: it is not what was asked for.
                left = [one for one in left if one != rest[0]]
                known, hung = [], 0
                if isinstance(rest[1], str):
                    yield f"{rest[0]}: {rest[1]}"
                    continue
                assert host
                try:
                    result = load(rest[1])
                except (KeyError, TypeError, ValueError) as error:
                    yield f"{rest[0]}: the cell's reply is malformed: {type(error).__name__}: {error}"[:_SHOWN]
                else:
                    yield result, host
        if not left or stop.seen:
            return
        hung += 1
        if trying and hung <= _MOST:
            known.append(tuple(HANGS))
            say(f"{left[0]}: try {len(known)} hangs the kernel, and shows nothing; what is left is tried in another cell")
            continue
        yield f"{left[0]}: " + (f"{hung} tries hang the kernel" if trying else "its cell ended without a result")
        del left[0]
        known, hung = [], 0
