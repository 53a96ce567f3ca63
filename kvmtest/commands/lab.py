# SPDX-License-Identifier: GPL-2.0-only
"""``kvmtest lab run``, ``matrix``, ``fuzz``, ``coverage``, ``kernels`` and ``emulators``."""

from __future__ import annotations

import argparse
import shutil
from typing import TYPE_CHECKING

from kvmtest.commands import cells, common, coverage, fuzz, jobs, outcome, report, run, trial
from kvmtest.commands.common import INTERRUPTED, OK, RAW, USAGE, Commands, Failed, say
from kvmtest.lab.emulator import BACKENDS
from kvmtest.report.play import play

if TYPE_CHECKING:
    from kvmtest.kvm import Stop
    from kvmtest.lab.cell import Cell
    from kvmtest.lab.parts import Parts
    from kvmtest.lab.recorder import Recorder
    from kvmtest.model.run import Run

__all__ = ("add",)

_WHICH = """\
WHICH is a Debian suite (bullseye, trixie, sid) or version (5.10, 6.12), fetched from the mirror that this machine is configured
for, and cached; a .deb or .rpm; a kernel image, with --modules; or host, the kernel that runs here. Modules in a package of their
own, as Fedora's kernel-modules-core, are found beside the one with the image.

svm is kvm_amd in QEMU (TCG emulates SVM), vmx is kvm_intel in Bochs. With --accel kvm either runs in QEMU on this host's own KVM,
in seconds, on hosts that nest (kvmtest doctor says so); the backend is that of the host's CPU.

The exit status is that of kvmtest run.
"""
_EPILOG = """\
  kvmtest lab run --backend svm --kernel trixie         kvm_amd of Debian trixie's kernel
  kvmtest lab try --tree ~/linux                        what the last commit of a kernel tree changes
  kvmtest lab matrix --kernel 5.10,6.1,6.12,7.2         four kernels on both backends
  kvmtest lab coverage --kernel 6.1                     which of KVM's code the cases run

Each command has a help of its own: kvmtest lab run --help.
"""
_RUN = f"""\
  kvmtest lab run --backend svm --kernel trixie 'init.*.cr*'
  kvmtest lab run --backend vmx --kernel 6.1 --kvm-modules ~/linux/arch/x86/kvm      your own kvm.ko and kvm-intel.ko
  kvmtest lab run --backend svm --kernel arch/x86/boot/bzImage --modules mods        your own kernel
  kvmtest lab run --accel kvm --smp 4 --kernel 7.2

{_WHICH}"""
_MATRIX = f"""\
  kvmtest lab matrix --backend svm,vmx --kernel 5.10,6.1,6.12,7.2
  kvmtest lab matrix --backend vmx --kernel 6.12,7.2 --cpu default,tigerlake
  kvmtest lab matrix --backend svm --kernel 5.10,6.1 --format json -o matrix.json init.msi

{_WHICH}"""
_EXEC = """\
  gcc -static -o cr3 cr3.c && kvmtest lab exec --backend svm --kernel 6.1 cr3

Exit status: 0; 1 a program ended with another status than 0 and 4; 2 usage error; 3 the cell cannot run; 130 interrupted.
"""
_KERNELS = """\
  kvmtest lab kernels                      what is cached, and what the mirror has
  kvmtest lab kernels --fetch trixie,6.1
"""
_EMULATORS = """\
  kvmtest lab emulators --models           with the CPU models of each, for --cpu
  kvmtest lab emulators --fetch bochs/trixie
  kvmtest lab emulators --build bochs-2.7.tar.gz

Bochs as distributions ship it has a debugger, with which it runs at less than half of its speed. One built from its source (an
archive of https://bochs.sourceforge.io/, or a clone) has the same CPU and none; it is used from then on, unless --emulator names
another one: installed, built, or a suite.
"""
#: The exit status of a kselftest that could not be tried.
_SKIPPED = 4


def add(commands: Commands) -> None:
    """Add ``lab``."""
    what = "test another kernel's KVM, in an emulator"
    parser = commands.add_parser("lab", help=what, epilog=_EPILOG, formatter_class=RAW)
    parser.set_defaults(function=_lab)
    verbs = parser.add_subparsers(dest="verb", metavar="COMMAND", required=True)

    one = verbs.add_parser("run", help="run the cases on one kernel and one backend", epilog=_RUN, formatter_class=RAW)
    one.add_argument("--backend", choices=BACKENDS, help=cells.BACKEND_HELP)
    one.add_argument("--kernel", metavar="WHICH", required=True, help="the kernel (see below)")
    what = "number of emulators that share the cases (default: by cores and memory; a hundred cases or more each)"
    one.add_argument("--jobs", type=cells.number, metavar="N", help=what)
    run.options(one)
    common.shard(one, run.SHARD)
    outcome.options(one)
    cells.options(one)

    matrix = verbs.add_parser("matrix", help="run the cases on several kernels and backends", epilog=_MATRIX, formatter_class=RAW)
    matrix.add_argument("--backend", type=cells.backends, action="extend", metavar="B[,B]", help="default: svm,vmx")
    which = "the kernels (see below)"
    matrix.add_argument("--kernel", type=cells.names, action="extend", metavar="WHICH[,WHICH]", required=True, help=which)
    what = "number of emulators at once; where it is a multiple of the cells', they share each (default: by cores and memory)"
    matrix.add_argument("--jobs", type=cells.number, metavar="N", help=what)
    run.options(matrix)
    what = "run part I of N of the matrix: whole cells, or parts of cells if N is larger than their number"
    common.shard(matrix, what)
    cells.options(matrix, several=True)

    execute = verbs.add_parser("exec", help="run static programs, as those of kvmtest repro", epilog=_EXEC, formatter_class=RAW)
    execute.add_argument("programs", nargs="+", metavar="PROGRAM", help="a static binary: gcc -static")
    jobs.options(execute, required=True)
    fuzz.add_lab(verbs)
    coverage.add(verbs)
    trial.add(verbs)

    kernels = verbs.add_parser("kernels", help="list cached and available kernels", epilog=_KERNELS, formatter_class=RAW)
    what = "fetch this kernel, or the newest of a suite"
    kernels.add_argument("--fetch", type=cells.names, action="extend", default=[], metavar="WHICH", help=what)
    kernels.add_argument("--remove", action="store_true", help="empty the cache")

    what = "list installed, cached and available emulators"
    emulators = verbs.add_parser("emulators", help=what, epilog=_EMULATORS, formatter_class=RAW)
    what = "fetch the newest Bochs and QEMU of a Debian suite; bochs/SUITE or qemu/SUITE: one of them"
    emulators.add_argument("--fetch", type=cells.names, action="extend", default=[], metavar="WHICH", help=what)
    what = "build Bochs from its source, a folder or an archive, to run at twice its usual speed; needs g++ and make"
    emulators.add_argument("--build", default="", metavar="SOURCE", help=what)
    emulators.add_argument("--remove", action="store_true", help="remove the cached ones")
    emulators.add_argument("--models", action="store_true", help="also list the CPU models of each, for --cpu")


def _play(cell: Cell | Parts, recorder: Recorder, stop: common.Interrupt) -> None:
    """Run ``cell`` into a report, and show the progress. Raises LabError, Cancelled."""
    from kvmtest.lab.steps import Booting

    boot = cells.Boot()
    steps = cell.steps()
    try:
        for step in stop.each(steps):
            if isinstance(step, Booting):
                boot.show(step)
                continue
            boot.over()
            if not recorder.take(step):
                say(f"{cell.spec.name}: {step}")
    finally:
        steps.close()
        boot.over()


def _run(args: argparse.Namespace, stop: common.Interrupt) -> int:
    from kvmtest.lab import matrix, parts
    from kvmtest.lab.error import Cancelled, LabError
    from kvmtest.lab.recorder import Recorder

    decides = outcome.of(args, run.chosen(args))
    (spec,) = cells.specs(args, [cells.backend(args)], [args.kernel])
    try:
        with report.writing(args) as to:
            stop.running = True
            recorder = Recorder(to, spec, common.now())
            failed, interrupted = "", None
            try:
                _play(parts.cell(spec, matrix.shared([spec], args.jobs), stop), recorder, stop)
                # It came to its end: a signal from here on cuts nothing short.
                interrupted = False
            except LabError as error:
                failed, interrupted = str(error), stop.seen
                raise
            except (Cancelled, KeyboardInterrupt):
                interrupted = stop.seen
                raise
            finally:
                ran = recorder.end(interrupted, failed) if recorder.begun or stop.seen else None
    except (Cancelled, KeyboardInterrupt):
        if not stop.seen:
            raise
        say("interrupted; the results so far are in the report")
        return INTERRUPTED
    except LabError as error:
        if stop.seen:
            say(str(error))
            return INTERRUPTED
        # Modules that are not there are this commit's; what the system refuses (no room, no permission) is not.
        if args.bisect and not isinstance(error.__cause__, OSError):
            raise Failed(str(error), common.BISECT_SKIP) from None
        raise
    assert ran
    status = decides.status(ran)
    stop.finish()
    return status


def _matrix(args: argparse.Namespace, stop: Stop) -> int:
    from kvmtest.lab import matrix
    from kvmtest.lab.error import LabError
    from kvmtest.lab.table import Table

    specs = cells.specs(args, cells.chosen(args), args.kernel)
    outcomes = matrix.outcomes(specs, common.now(), args.jobs)
    with report.writing(args, len(specs), live=False, text=lambda out: Table(out, outcomes)) as to:
        runs: list[Run] = []

        def over(one: matrix.Outcome) -> None:
            assert one.run
            runs.append(play(one.run, to))

        matrix.run(outcomes, args.jobs, say, stop, over)
    if any(run.interrupted for run in runs):
        say("interrupted; the results so far are in the report")
        return INTERRUPTED
    if all(one.failed for one in outcomes):
        raise LabError(outcomes[0].failed)
    return outcome.Outcome(args.strict).status(*runs)


def _execute(args: argparse.Namespace, stop: common.Interrupt) -> int:
    """Execute programs in a cell; the status is 1 where one of them ends with anything but 0 or 4, kselftest's skip."""
    programs: dict[str, bytes] = {}
    for path in args.programs:
        programs[path] = common.contents(path)
        if b"/ld-linux" in programs[path] or not programs[path].startswith(b"\x7fELF"):
            raise Failed(f"{path} is not a static binary: a cell has no libraries; gcc -static makes one", USAGE)
    status = OK
    for _, (name, ended, said) in jobs.results(args, {"programs": programs, "selectors": (), "minimise": False}, stop):
        common.print_lines([f"# {name}", *said.splitlines(), f"# {name}: exit status {ended}"])
        status = status if ended in (0, _SKIPPED) else common.UNEXPECTED
    return status


def _kernels(args: argparse.Namespace) -> int:
    from kvmtest.lab import apt, cache, kernels
    from kvmtest.lab.error import LabError

    if args.remove:
        shutil.rmtree(cache.home(), ignore_errors=True)
        return OK
    for which in args.fetch:
        kernels.find(which, "", say, fresh=True)
    kept = dict[str, str]()
    for suite, kernel in kernels.cached():
        kept[suite] = f"{kernel.release}  ({kernel.source})"
    for suite in [*apt.SUITES, *(name for name in kept if name not in apt.SUITES)]:
        kept.setdefault(suite, "not here; fetched when --kernel names it")
    try:
        kept["host"] = kernels.find("host").release
    except LabError as error:
        kept["host"] = str(error)
    for suite in dict.fromkeys((*apt.SUITES, *kept)):
        common.print_row(f"{suite:10} ", kept[suite])
    return OK


def _emulators(args: argparse.Namespace) -> int:
    from kvmtest.lab import bochs_build, emulators
    from kvmtest.lab.bochs import Bochs
    from kvmtest.lab.error import LabError, NotFound
    from kvmtest.lab.qemu import Qemu
    from kvmtest.lab.start import Cpu

    if args.remove:
        emulators.remove()
        return OK
    for which in args.fetch:
        kind, slash, suite = which.rpartition("/")
        if slash and kind not in emulators.PACKAGES:
            raise NotFound(f"{kind!r} is not one of {', '.join(emulators.PACKAGES)}")
        for one in [kind] if slash else emulators.PACKAGES:
            emulators.find(one, suite, say, fresh=True)
    if args.build:
        bochs_build.build(args.build, say)
    kinds = {"qemu": Qemu("svm", Cpu()), "bochs": Bochs("vmx", Cpu())}
    places = [*((kind, emulators.OWN, emulators.INSTALLED) for kind in kinds), *emulators.kept()]
    for kind, suite, place in places:
        one = kinds[kind]
        one.place = place
        try:
            said = f"{one.version()}  {f'({place.source})' if place.source else ''}".rstrip()
            models = sorted(one.models()) if args.models else []
        except LabError as error:
            said, models = str(error), []
        common.print_row(f"{suite:10} ", said)
        common.print_lines([f"  {model}" for model in models])
    there = {suite for _, suite, _ in places}
    missing = [suite for suite in emulators.SUITES if suite not in there]
    common.print_lines([f"{suite:10} not here; fetched when --emulator names it" for suite in missing])
    return OK


def _lab(args: argparse.Namespace) -> int:
    from kvmtest.lab.error import LabError, NotFound

    try:
        with common.Interrupt() as stop:
            if args.verb == "kernels":
                return _kernels(args)
            if args.verb == "emulators":
                return _emulators(args)
            if args.verb == "exec":
                return _execute(args, stop)
            if args.verb == "fuzz":
                return fuzz.there(args, stop)
            if args.verb == "coverage":
                return coverage.show(args, stop)
            if args.verb == "try":
                return trial.show(args, stop)
            return _matrix(args, stop) if args.verb == "matrix" else _run(args, stop)
    except NotFound as error:
        raise Failed(str(error), USAGE) from None
    except LabError as error:
        raise Failed(str(error), common.UNTESTABLE) from None
