# SPDX-License-Identifier: GPL-2.0-only
"""``kvmtest lab coverage``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from kvmtest.commands import cells, common, run
from kvmtest.commands.common import INTERRUPTED, OK, RAW, USAGE, Failed, say
from kvmtest.commands.output import opened

if TYPE_CHECKING:
    from kvmtest.coverage.place import Place
    from kvmtest.coverage.source import Sources
    from kvmtest.coverage.table import Table
    from kvmtest.kvm import Stop
    from kvmtest.lab.instrument import Instrumented
    from kvmtest.lab.kernels import Kernel

__all__ = ("add", "covers", "place", "show")

_EPILOG = """\
KVM's modules are built once with -fsanitize-coverage=trace-pc, against the headers of the lab's kernel, and cached. A cell then
reports after each case which basic blocks the case ran. An inlined block counts for the function in whose source it is, each
copy as a block of its own.

  kvmtest lab coverage --kernel 6.1              everything: a table by file
  kvmtest lab coverage --kernel 6.1 'init.*/*,in-smm'     some cases only
  kvmtest lab coverage --kernel 6.1 --kept       report earlier runs, without a cell
  kvmtest lab coverage --kernel 6.1 --kept --of lapic.c --missed
  kvmtest lab coverage --kernel 6.1 --kept --report html=cov/
  kvmtest lab coverage --kernel 6.1 --kept --diff fix.patch
  kvmtest lab coverage --kernel 7.2 --tree ~/linux --diff HEAD
  kvmtest lab coverage --kernel 6.1 --also kvm_amd.vgif=0,kvm_amd.npt=0
  kvmtest list --covers lapic.c:3155             the cases that run a line

Several cells of one kernel are shown each and in total. A case may reuse the VM of an earlier case: the code that creates its
vCPUs then counts for that one. Code that runs when the modules are loaded belongs to no case, and counts as run.

Coverage does not mean that the code is right: for that see the verdicts of kvmtest lab run.

Exit status: 0 the report is written, whatever the verdicts; 2 usage error; 3 nothing could be measured; 130 interrupted.
"""
_REPORTS = ("html", "lcov", "json")


def add(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``coverage``."""
    what = "show which of KVM's code the cases run"
    parser = verbs.add_parser("coverage", help=what, epilog=_EPILOG, formatter_class=RAW)
    which = "the kernels, as in kvmtest lab run; their headers and KVM's source are fetched in the same way"
    parser.add_argument("--kernel", type=cells.names, action="extend", default=[], metavar="WHICH[,WHICH]", help=which)
    parser.add_argument("--backend", type=cells.backends, action="extend", metavar="B[,B]", help="default: svm,vmx")
    run.cases(parser)
    what = "use KVM's source in this kernel tree, with local changes, instead of Debian's"
    parser.add_argument("--tree", default="", metavar="DIR", help=what)
    cells.options(parser, own=False)
    what = "run another cell with these parameters added, on the backend of the vendor module if it is one's; may be repeated"
    parser.add_argument("--also", type=_parameters, action="append", default=[], metavar="M.P=V[,M.P=V]", help=what)
    parser.add_argument("--jobs", type=cells.number, metavar="N", help="number of cells at once (default: by cores and memory)")
    what = "run nothing; report all earlier runs of --kernel (default: the kernel measured last)"
    parser.add_argument("--kept", action="store_true", help=what)
    what = "run nothing; report a file of --report json=FILE or kvmtest run --coverage FILE; may be repeated"
    parser.add_argument("--from", action="append", default=[], dest="files", metavar="FILE", help=what)

    shown = parser.add_argument_group("what is shown")
    what = "show a row for this place: FILE.c, FILE.c:LINE-LINE, or a pattern of functions; may be repeated"
    shown.add_argument("--of", type=place, action="append", default=[], metavar="PLACE", help=what)
    shown.add_argument("--functions", metavar="FILE", help="show a row for each place in FILE (one per line), and their sum")
    shown.add_argument("--missed", action="store_true", help="show blocks of these places that no case ran, with their source")
    what = "show the cases that run the lines of a unified diff, or of a commit of the git repository --tree (default: here)"
    shown.add_argument("--diff", metavar="PATCH|COMMIT", help=what)
    shown.add_argument("-v", "--verbose", action="store_true", help="a row for each function; with --diff all cases of a line")
    shown.add_argument("-o", "--output", metavar="FILE", help="write to FILE instead of standard output")
    what = "html=DIR, html=FILE.html, lcov=FILE or json=FILE (kvmtest.coverage/1); may be repeated"
    shown.add_argument("--report", type=_report, action="append", default=[], metavar="FORMAT=WHERE", help=what)


def _report(text: str) -> tuple[str, str]:
    name, _, path = text.partition("=")
    if name not in _REPORTS or not path:
        raise argparse.ArgumentTypeError(f"{text!r} is not FORMAT=WHERE with one of {', '.join(_REPORTS)}")
    return name, path


def _parameters(text: str) -> dict[str, str]:
    return cells.together(cells.parameter(one) for one in cells.names(text))


def place(text: str) -> tuple[str, Place]:
    """Parse an argument that is a place in KVM's source; return its text, and the place."""
    from kvmtest.coverage.error import CoverageError
    from kvmtest.coverage.place import parse

    try:
        return text, parse(text)
    except CoverageError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def covers(text: str, wanted: Place, release: str) -> set[str]:
    """The names of the cases that ran a block of a place, in the kept coverage of kernels with this release. Raises Failed."""
    from kvmtest.coverage.error import CoverageError
    from kvmtest.lab import instrument
    from kvmtest.lab.error import LabError

    what = f"of a kernel {release}" if release else "yet"
    try:
        table = next((table for build in instrument.kept(release) if (table := build.table()).cells), None)
        if table is None:
            raise Failed(f"no coverage was measured {what}: kvmtest lab coverage --kernel WHICH does", common.UNTESTABLE)
        names = {one.case for one in table.who(wanted.blocks(table))} - {""}
    except CoverageError as error:
        raise Failed(str(error), USAGE) from None
    except LabError as error:
        raise Failed(str(error), common.UNTESTABLE) from None
    cells = ", ".join(f"{cell.name} of {cell.started}" for cell in table.cells)
    say(f"{len(names)} cases ran {text} of {table.kernel} ({cells})")
    return names


class _Shown(NamedTuple):
    """The table to report, and its source files."""

    table: Table
    sources: Sources


def show(args: argparse.Namespace, stop: Stop) -> int:
    """Measure, or use what is kept, and report. Raises LabError, Failed."""
    places = [*args.of, *_listed(args.functions)]
    if args.missed and not places:
        raise Failed("--missed needs places: name them with --of or --functions", USAGE)
    if args.files:
        found = _files(args)
    elif not args.kernel and not args.kept:
        raise Failed("name a kernel: --kernel WHICH, as in kvmtest lab run; or a file: --from FILE", USAGE)
    else:
        found = _kept(args) if args.kept else _measured(args, stop)
    if len(found) > 1 and (several := [name for name, _ in args.report if name != "json"]):
        raise Failed(f"--report {several[0]} is of one kernel, and these are {len(found)}", USAGE)
    _written(args, found)
    with opened(args.output) as out:
        for number, one in enumerate(found):
            common.print_lines([""] * (number > 0) + list(_text(args, places, *one)), out)
    return INTERRUPTED if stop.seen else OK


def _listed(path: str | None) -> Iterator[tuple[str, Place]]:
    """The places in a file: one per line; a # begins a comment."""
    if not path:
        return
    lines = common.text(path).splitlines()
    for word in (word for line in lines if (word := line.partition("#")[0].strip())):
        try:
            yield place(word)
        except argparse.ArgumentTypeError as error:
            raise Failed(f"{path}: {error}", USAGE) from None


def _files(args: argparse.Namespace) -> list[_Shown]:
    from kvmtest.coverage import file
    from kvmtest.coverage.error import CoverageError
    from kvmtest.coverage.source import Sources
    from kvmtest.coverage.table import merged
    from kvmtest.lab import instrument

    tables = []
    for path in args.files:
        try:
            tables += file.load(path)
        except CoverageError as error:
            raise Failed(str(error), USAGE) from None
    found = []
    for table in merged(tables):
        folders = [build.tree for build in instrument.kept(table.kernel) if table.build in os.path.basename(build.folder)]
        found.append(_Shown(table, Sources([*([args.tree] if args.tree else []), *folders])))
    return found


def _kernels(args: argparse.Namespace) -> list[Kernel]:
    from kvmtest.lab import kernels

    return [kernels.find(name, args.modules, say) for name in dict.fromkeys(args.kernel)]


def _kept(args: argparse.Namespace) -> list[_Shown]:
    from kvmtest.coverage.source import Sources
    from kvmtest.lab import instrument
    from kvmtest.lab.error import LabError

    if not args.kernel and args.tree:
        raise Failed("--tree needs the kernel that it was built for: --kernel WHICH", USAGE)
    found = []
    asked: list[Kernel | None] = [*_kernels(args)]
    for kernel in asked or [None]:
        if kernel and args.tree:
            builds = [instrument.instrumented(kernel, args.tree, say)]
        else:
            builds = instrument.kept(kernel.release if kernel else "")
        for build in builds:
            table = build.table()
            left = [cell for cell in table.cells if not args.backend or cell.backend in args.backend]
            if left:
                found.append(_Shown(table._replace(cells=left), Sources([build.tree])))
                break
        else:
            what = kernel.release if kernel else "any kernel"
            raise LabError(f"nothing is kept of {what}: kvmtest lab coverage --kernel WHICH, without --kept, measures it")
    return found


def _measured(args: argparse.Namespace, stop: Stop) -> list[_Shown]:
    from kvmtest.coverage.source import Sources
    from kvmtest.lab import coverage, instrument, matrix
    from kvmtest.lab.error import LabError
    from kvmtest.report.show import count

    backends = cells.chosen(args)
    args.kvm_modules = ""
    builds: dict[str, Instrumented] = {}
    measured = []
    tables = {}
    for spec in cells.specs(args, backends, args.kernel):
        release = spec.kernel.release
        if release not in builds:
            builds[release] = instrument.instrumented(spec.kernel, args.tree, say)
            tables[release] = builds[release].table()
        sets = [{}, *(set_ for backend, set_ in coverage.for_backends(args.also, backends) if backend == spec.backend)]
        for parameters in sets:
            ours = cells.together([*spec.parameters.items(), *parameters.items()])
            ready = spec._replace(own_modules=builds[release].modules, parameters=ours, coverage=True)
            measured.append(coverage.Measured(ready, builds[release], tables[release], common.now()))
    outcomes = [matrix.Outcome(one.spec, one.cell.name, common.now(), one.take) for one in measured]
    matrix.run(outcomes, args.jobs, say, stop)
    found = coverage.keep(measured)
    for one in measured:
        if one.left:
            say(f"{one.cell.name}: {count(one.left, 'case')} did not report what was run")
    if not found:
        if stop.seen:
            raise KeyboardInterrupt
        raise LabError(next((one.failed for one in outcomes if one.failed), "no case ran to its end"))
    trees = {builds[release].tree: tables[release].build for release in builds}
    return [_Shown(table, Sources([tree for tree, build in trees.items() if build == table.build])) for table in found]


def _written(args: argparse.Namespace, found: Sequence[_Shown]) -> None:
    from kvmtest.coverage import file, html, lcov

    table, sources = found[0]
    for name, path in args.report:
        try:
            if name == "html" and not path.endswith((".html", ".htm")):
                html.folder(table, sources, path)
                continue
            with opened(path) as out:
                if name == "json":
                    file.write([one.table for one in found], out)
                else:
                    {"html": html.page, "lcov": lcov.write}[name](table, sources, out)
        except OSError as error:
            raise Failed(f"cannot write {error.filename or path}: {error.strerror}", USAGE) from None


def _text(args: argparse.Namespace, places: Sequence[tuple[str, Place]], table: Table, sources: Sources) -> Iterator[str]:
    from kvmtest.coverage import text

    yield from text.head(table)
    yield ""
    if args.diff:
        yield from _diff(args, table, sources)
    elif places:
        yield from _places(args, places, table, sources)
    else:
        yield from text.overview(table, _room(args))
        if args.verbose:
            yield ""
            yield from text.functions(table, _room(args))


def _room(args: argparse.Namespace) -> int:
    """The width of the terminal that the text goes to; 0 of a file, which has room for all columns."""
    from kvmtest.report.show import columns

    return 0 if args.output or not sys.stdout.isatty() else columns()


def _places(args: argparse.Namespace, places: Sequence[tuple[str, Place]], table: Table, sources: Sources) -> Iterator[str]:
    from kvmtest.coverage import text
    from kvmtest.coverage.tally import Tally

    tally = Tally(table)
    loaded = set(tally.loaded)
    held = {name: [n for n, block in enumerate(table.blocks) if n in loaded and place.holds(block)] for name, place in places}
    every = {number for numbers in held.values() for number in numbers}
    counts = {name: tally.of(numbers) for name, numbers in held.items() if numbers}
    if len(held) > 1:
        counts[f"these {len(held)} together"] = tally.of(every)
    yield from text.rows(table, counts, _room(args))
    if without := [name for name, numbers in held.items() if not numbers]:
        yield f"no code was loaded of: {', '.join(without)}"
    if args.missed:
        yield ""
        yield from text.missed(table, every, sources)


def _diff(args: argparse.Namespace, table: Table, sources: Sources) -> Iterator[str]:
    from kvmtest.coverage import patch, text
    from kvmtest.lab import program

    if os.path.exists(args.diff):
        diff = common.text(args.diff)
    else:
        command = ["git", "-C", args.tree or ".", "show", "--format=", "--no-color", "--no-ext-diff", "-m", "--first-parent"]
        done = program.run([*command, "--end-of-options", args.diff], text=True, errors="replace")
        if done.returncode:
            said = done.stderr.strip().partition("\n")[0]
            raise Failed(f"{args.diff} is neither a file nor a commit of {args.tree or 'the folder we are in'}: {said}", USAGE)
        diff = str(done.stdout)
    found = list(patch.hunks(diff))
    if not found:
        raise Failed(f"{args.diff} has no hunk of a unified diff", USAGE)
    fit, unfit = patch.patched(found, sources)
    if not fit and not unfit:
        raise Failed(f"{args.diff} changes no file that KVM of {table.kernel} was built from", USAGE)
    yield from text.diff(table, fit, unfit, sources, args.verbose)
