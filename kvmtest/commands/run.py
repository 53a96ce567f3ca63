# SPDX-License-Identifier: GPL-2.0-only
"""``kvmtest run``."""

from __future__ import annotations

import argparse
import contextlib
import gc
import time
from collections.abc import Iterator

from kvmtest import __version__
from kvmtest.commands import common, kcov, outcome, report
from kvmtest.commands.common import RAW, SELECTORS, Commands, Failed, Interrupt, say
from kvmtest.model.host import Host, Tool
from kvmtest.model.run import Head
from kvmtest.model.shard import Shard

__all__ = ("SHARD", "add", "cases", "chosen", "head", "options", "seconds")

#: More processes than any host has CPUs for.
_MOST_JOBS = 1024
#: Of objects that are new, so many more than are freed, until cycles among them are looked for.
_COLLECTED = 100_000
#: The help of ``--shard``.
SHARD = "run part I of N of the cases; N machines with one part each run each case once; kvmtest report merges their results"


def add(commands: Commands) -> None:
    """Add ``run``."""
    parser = commands.add_parser("run", help="run the cases on /dev/kvm", epilog=SELECTORS, formatter_class=RAW)
    options(parser)
    outcome.options(parser)
    kcov.options(parser)
    common.device(parser)
    common.shard(parser, SHARD)
    what = "run the cases in so many processes at once; the results are the same, in the same order (default: 1)"
    parser.add_argument("--jobs", type=_jobs, default=1, metavar="N", help=what)
    parser.set_defaults(function=_run)


def options(parser: argparse.ArgumentParser) -> None:
    """Add the options of all commands that run cases and report results."""
    cases(parser)
    report.options(parser)
    report.waivers(parser)
    parser.add_argument("--strict", action="store_true", help="known deviations fail the run, too")


def cases(parser: argparse.ArgumentParser) -> None:
    """Add the options of all commands that run cases: which cases, time limits and rounds."""
    parser.add_argument("selectors", nargs="*", metavar="SELECTOR", help="results to test (default: all)")
    what = "also select what shows this commit of KVM; may be repeated; kvmtest series lists the commits"
    parser.add_argument("--commit", action="append", default=[], metavar="ID", help=what)
    what = "run the case in a scenario file instead of the plan; may be repeated; kvmtest explain CASE --format json writes one"
    parser.add_argument("--scenario", action="append", default=[], metavar="FILE", help=what)
    common.full(parser)
    parser.add_argument("--timeout", type=seconds, default=1.0, metavar="S", help="limit of each KVM_RUN in seconds (default: 1)")
    parser.add_argument("--rounds", type=_rounds, default=24, metavar="N", help="rounds of the stress case (default: 24)")
    parser.add_argument("--seed", type=int, default=1, metavar="S", help="seed of the rounds of the stress case (default: 1)")


def chosen(args: argparse.Namespace) -> list[str]:
    """The selectors in ``args``, by name or by commit. Raises Failed."""
    from kvmtest.spec import commits

    selectors = list(args.selectors)
    for name in args.commit:
        entries = commits.find(name)
        if not entries:
            raise Failed(f"no commit {name!r} in the catalogue; kvmtest series lists it", common.USAGE)
        ids = [one for entry in entries for sign in entry.signs for one in sign.selectors]
        if not ids:
            raise Failed(f"no result shows commit {name}: {entries[0].hidden}", common.USAGE)
        selectors += ids
    return selectors


def seconds(text: str) -> float:
    """The argument of ``--timeout``."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 3600:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0 and below 3600")
    return value


def _rounds(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 10_000_000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of rounds above 0 and below 10000000")
    return int(text)


def _jobs(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) <= _MOST_JOBS:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of processes from 1 to {_MOST_JOBS}")
    return int(text)


def head(host: Host, shard: Shard | None = None) -> Head:
    """The head of a run, or of that part of one, that begins now."""
    return Head(Tool(__version__), host, common.now(), shard=shard)


@contextlib.contextmanager
def _records_stay() -> Iterator[None]:
    """Look for cycles seldom, and not in what is there: what a case leaves goes by its reference counts, but for little."""
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(_COLLECTED)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


def _run(args: argparse.Namespace) -> int:
    from kvmtest.engine import doctor, host, run
    from kvmtest.model.select import Selection
    from kvmtest.scenario.program import StressRounds

    if args.coverage and args.jobs > 1:
        raise Failed("--coverage needs a single process: --jobs 1", common.USAGE)
    asked = chosen(args)
    decides = outcome.of(args, asked)
    wanted = common.selected(asked, args.full, common.scenarios(args.scenario), args.shard)
    # What is wrong in the command is said also where there is no KVM.
    report.checked(args)
    try:
        kvm = doctor.open_kvm(args.device)
    except doctor.Unusable as error:
        raise Failed(str(error), common.BISECT_SKIP if args.bisect else common.UNTESTABLE) from None
    facts = host.detect()
    with Interrupt(running=True) as interrupt:
        with kvm, _records_stay(), kcov.recording(args, kvm, facts) as note, report.writing(args) as to:
            kvm.stop = interrupt
            if facts.backend == "unknown":
                say("no vendor module found in /sys/module: hidden attributes are judged by either vendor's values")
            begin = time.monotonic()
            selection = Selection(asked)
            stress_rounds = StressRounds(args.rounds, args.seed)
            #: None if the run ends by an error that is reported.
            interrupted: bool | None = None
            about = (kvm, facts, wanted, args.timeout, lambda case: to.case(case.look().case), stress_rounds)
            if args.jobs == 1:
                steps = run.run(*about)
            else:
                from kvmtest.engine import workers

                steps = workers.run_in(args.jobs, *about)
            try:
                to.begin(head(facts, args.shard), len(wanted))
                for done in interrupt.each(steps):
                    note(done.case.name)
                    to.observed(selection.all_of(done.seen, done.seconds))
                interrupted = interrupt.seen
            except KeyboardInterrupt:
                interrupted = interrupt.seen or None
                if not interrupted:
                    raise
            finally:
                steps.close()
                # A signal from here on finds nothing to cut short: status and reports say the same.
                ran = to.end(time.monotonic() - begin, interrupted)
        if interrupted:
            say("interrupted; the results so far are in the report")
            return common.INTERRUPTED
        status = decides.status(ran)
        interrupt.finish()
    return status
