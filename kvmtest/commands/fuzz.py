# SPDX-License-Identifier: GPL-2.0-only
"""``kvmtest fuzz`` and ``kvmtest lab fuzz``."""

from __future__ import annotations

import argparse
import os
import shlex
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from kvmtest.commands import common, jobs
from kvmtest.commands.blocks import Blocks
from kvmtest.commands.common import INTERRUPTED, OK, RAW, UNEXPECTED, UNTESTABLE, USAGE, Commands, Failed, Interrupt, say
from kvmtest.commands.progress import Line

if TYPE_CHECKING:
    from kvmtest.fuzz.loop import Counts, Found, Fuzzer, Key
    from kvmtest.model.host import Host
    from kvmtest.scenario.step import Scenario

__all__ = ("add", "add_lab", "there")

_WHAT = """\
Runs random scenarios of INIT, SIPI, NMI, interrupts, activity states, single items and migrations, and compares each with the
manuals. The first scenario that shows a finding is written at once to a scenario file. A file whose name begins with "once" did
not fail again on a new VM. The same seed makes the same scenarios on the same KVM.
"""
_STATUS = """\
A SELECTOR limits the results that count; see kvmtest run --help. Exit status: 0 no findings; 1 findings; 2 usage error;
3 nothing could be tested here; 130 interrupted.
"""
_EPILOG = f"""\
{_WHAT}
  kvmtest fuzz --time 600 -o found
  kvmtest lab fuzz --backend svm --kernel 6.1 --time 600
  kvmtest run --scenario found/init-cr3-fuzz-1-5.json
  kvmtest fuzz --shrink found/init-cr3-fuzz-1-5.json     reduce it; needs Hypothesis

{_STATUS}"""
_LAB = f"""\
{_WHAT}
  kvmtest lab fuzz --backend svm --kernel 6.1 --time 600 -o found
  kvmtest lab fuzz --backend svm --kernel 6.1 --shrink found/init-cr3-fuzz-1-5.json

{_STATUS}"""
_OFTEN_S = 0.5
#: The options that name a cell, beside parameters of modules.
_CELL = ("backend", "kernel", "accel", "cpu", "emulator", "smp", "modules", "kvm_modules")
#: Smaller scenarios that a cell tries at once: starting a cell takes as long as running them.
_AHEAD = 60


def add(commands: Commands) -> None:
    """Add ``fuzz``."""
    what = "run random scenarios and compare them with the manuals"
    parser = commands.add_parser("fuzz", help=what, epilog=_EPILOG, formatter_class=RAW)
    _options(parser)
    common.device(parser)
    parser.set_defaults(function=_fuzz)


def add_lab(commands: Commands) -> None:
    """Add ``lab fuzz``."""
    what = "run random scenarios in a cell"
    parser = commands.add_parser("fuzz", help=what, epilog=_LAB, formatter_class=RAW)
    _options(parser)
    what = "count the basic blocks of KVM that are run, and show those that no case of kvmtest lab coverage ran"
    parser.add_argument("--coverage", action="store_true", help=what)
    jobs.options(parser, required=True)


def _options(parser: argparse.ArgumentParser) -> None:
    """Add the options for what to try, and for how long."""
    parser.add_argument("selectors", nargs="*", metavar="SELECTOR", help="results that count (default: all)")
    what = "run time in seconds, from the first scenario on (default: 60)"
    parser.add_argument("--time", type=_seconds, default=60.0, metavar="S", help=what)
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="seed of the random scenarios (default: 1)")
    what = "run part I of N of a seed's scenarios; N machines with one part each run different ones"
    common.shard(parser, what)
    what = "only this state that blocks INIT: smm, gif or vmx, or none; may be repeated"
    parser.add_argument("--state", action="append", metavar="STATE", help=what)
    what = "only this event: init, sipi, nmi, smi, interrupt or migrate, or none; may be repeated"
    parser.add_argument("--event", action="append", metavar="EVENT", help=what)
    parser.add_argument("--stop-at", type=_count, default=0, metavar="N", help="stop after N findings")
    parser.add_argument("--shrink", metavar="FILE", help="reduce the scenario in FILE as far as it shows the same finding")
    parser.add_argument("-o", "--output", metavar="DIR", default="fuzz-found", help="folder for findings (default: fuzz-found)")


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 1e6:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0, a million at most")
    return value


def _count(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 1_000_000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of findings above 0")
    return int(text)


def _tried(args: argparse.Namespace) -> tuple[frozenset[str], frozenset[str]]:
    """The events and the states in ``args``. Raises Failed."""
    from kvmtest.fuzz.generate import EVENTS, STATES

    asked = []
    for option, given, there in (("--event", args.event, EVENTS), ("--state", args.state, (*STATES, "none"))):
        for name in given or ():
            if name not in there:
                raise Failed(f"{option}: no {name!r}; there are {', '.join(there)}", USAGE)
        asked.append(frozenset(there if given is None else given) - ({"none"} if option == "--state" else set()))
    return asked[0], asked[1]


def _progress(counts: Counts) -> str:
    """The counters that fit in a line of a terminal."""
    from kvmtest.report.show import count

    rate = counts.scenarios / counts.seconds if counts.seconds else 0.0
    done = f"{count(counts.scenarios, 'scenario')} in {counts.seconds:.0f} s, {rate:.0f} a second"
    return f"{done}, {count(counts.found, 'finding')}"


def _result(counts: Counts) -> str:
    """All counters."""
    more = f"{counts.departed} departed, {counts.known} by known deviations alone, {counts.skipped} skipped"
    return f"{_progress(counts)}; {more}"


class _Findings:
    """Findings on their way into the folder of ``-o``, with a line of progress. ``cell`` are the options of a cell.

    Raises Failed.
    """

    def __init__(self, folder: str, cell: str = "") -> None:
        self._folder, self._line, self._last = folder, Line(), 0.0
        self._cell, self._first = cell, ""
        try:
            os.makedirs(folder, exist_ok=True)
        except OSError as error:
            raise Failed(f"cannot write to {folder}: {error.strerror}", USAGE) from None

    def take(self, found: Found) -> None:
        """Write a finding, and print what it shows. Raises Failed."""
        from kvmtest.fuzz import save

        path = os.path.join(self._folder, save.name_of(found.scenario, found.keys, found.again))
        try:
            save.write(path, found.scenario)
        except OSError as error:
            raise Failed(f"cannot write {path}: {error.strerror}", USAGE) from None
        self._first = self._first or path
        more = f" (and {len(found.said) - 1} more)" if len(found.said) > 1 else ""
        self._line.say(f"{path}: {found.said[0]}{more}{'' if found.again else '; did not fail again on a new VM'}")

    def show(self, counts: Counts, blocks: int = 0) -> None:
        """Show the progress, on a terminal; ``blocks`` is the number of KVM's basic blocks that were run."""
        now = time.monotonic()
        if now - self._last >= _OFTEN_S:
            self._last = now
            self._line.show(f"{_progress(counts)}{f'; {blocks} blocks of KVM' if blocks else ''}")

    def over(self) -> None:
        """End the line."""
        self._line.over()

    def end(self, counts: Counts) -> None:
        """Print the result, and how to go on with the first finding."""
        say(_result(counts))
        if self._first:
            path = shlex.quote(self._first)
            lab = "lab " if self._cell else ""
            say(f"one alone: kvmtest {lab}run{self._cell} --scenario {path}")
            say(f"reduced, with Hypothesis: kvmtest {lab}fuzz{self._cell} --shrink {path}")
            say(f"as a C program: kvmtest repro{self._cell} --scenario {path}")


def _tainted() -> int:
    """Read the kernel's taint flags: bit 7 is an oops, bit 9 a WARN; 0 if they cannot be read."""
    try:
        with open("/proc/sys/kernel/tainted", encoding="ascii") as file:
            return int(file.read())
    except (OSError, ValueError):
        return 0


def _fuzz(args: argparse.Namespace) -> int:
    from kvmtest.engine import doctor, host
    from kvmtest.engine.machine import SetupError
    from kvmtest.fuzz.loop import Fuzzer
    from kvmtest.model.select import Selection
    from kvmtest.state.snapshot import Unread

    events, states = _tried(args)
    if args.selectors:
        common.selected(args.selectors, True)
    if args.shrink:
        common.scenarios([args.shrink])
    try:
        kvm = doctor.open_kvm(args.device)
    except doctor.Unusable as error:
        raise Failed(str(error), UNTESTABLE) from None
    with kvm, Interrupt(running=True) as interrupt:
        kvm.stop = interrupt
        facts: Host = host.detect()
        try:
            selection = Selection(args.selectors)
            fuzzer = Fuzzer(kvm, facts, args.seed, selection, events=events, states=states, shard=args.shard)
        except (OSError, SetupError, Unread) as error:
            raise Failed(str(error), UNTESTABLE) from None
        try:
            if args.shrink:
                return _smaller(args.shrink, lambda tried: [fuzzer.alone(one) for one in tried])
            return _run(args, fuzzer, interrupt)
        finally:
            fuzzer.close()


def _run(args: argparse.Namespace, fuzzer: Fuzzer, interrupt: Interrupt) -> int:
    findings, tainted = _Findings(args.output), _tainted()

    def show() -> bool:
        findings.show(fuzzer.counts)
        return False

    steps = fuzzer.run(args.time, show)
    try:
        for number, found in enumerate(steps, 1):
            findings.take(found)
            if number == args.stop_at:
                break
    finally:
        findings.over()
    findings.end(fuzzer.counts)
    if new := _tainted() & ~tainted:
        say(f"the kernel was tainted during the run, bits {new:#x}: look at its log")
        return UNEXPECTED
    if interrupt.seen:
        return INTERRUPTED
    if not fuzzer.counts.scenarios:
        return UNTESTABLE
    return UNEXPECTED if fuzzer.counts.found else OK


def there(args: argparse.Namespace, stop: Interrupt) -> int:
    """In a cell of the lab. Raises Failed."""
    from kvmtest.fuzz.loop import Counts, Found
    from kvmtest.scenario import file

    (events, states), counts = _tried(args), Counts(0, 0.0, 0, 0, 0, 0)
    if args.selectors:
        common.selected(args.selectors, True)
    if args.shrink:
        return _smaller_there(args, stop)
    blocks = Blocks(args) if args.coverage else None
    findings = _Findings(args.output, _cell(args))
    part = str(args.shard) if args.shard else ""
    fuzzing = (args.time, args.seed, tuple(sorted(events)), tuple(sorted(states)), args.stop_at, part)
    job = {"programs": {}, "selectors": tuple(args.selectors), "minimise": False, "fuzz": fuzzing}
    failed = 0

    def bad() -> None:
        nonlocal failed
        failed += 1

    stop.running = True
    try:
        for _, (kind, *rest) in jobs.results(args, job, stop, bad=bad, executed=blocks.take if blocks else None):
            if kind == "found":
                data, keys, said, again = rest
                findings.take(Found(file.loads(data), tuple(map(tuple, keys)), tuple(said), again))
            else:
                counts = Counts(*rest[0])
                findings.show(counts, blocks.count if blocks else 0)
    finally:
        findings.over()
    findings.end(counts)
    for line in blocks.lines() if blocks else ():
        say(line)
    if stop.seen:
        return INTERRUPTED
    if not counts.scenarios:
        return UNTESTABLE
    return UNEXPECTED if counts.found or failed else OK


def _cell(args: argparse.Namespace) -> str:
    """The options that name the cell of ``args``, for another command."""
    given = {name: getattr(args, name) for name in _CELL}
    given["smp"] = "" if args.smp == 1 else args.smp
    if args.coverage:
        given["kvm_modules"] = ""
    options = [f"--{name.replace('_', '-')} {shlex.quote(str(value))}" for name, value in given.items() if value]
    options += [f"--module-param {shlex.quote(f'{module}.{value}')}" for module, value in args.module_param]
    return " ".join(("", *options))


def _smaller(path: str, alone: Callable[[Sequence[Scenario]], list[set[Key]]], ahead: int = 0) -> int:
    """Make what a file holds small, beside it; ``alone`` is what departs of each of some scenarios. Raises Failed."""
    from kvmtest.fuzz import save
    from kvmtest.fuzz.loop import alike
    from kvmtest.fuzz.shrink import shrunk
    from kvmtest.scenario import file

    scenario = file.load(path)
    (keys,) = alone([scenario])
    if not keys:
        raise Failed(f"{path}: no result departs here", UNEXPECTED)
    # The first key names the file.
    wanted, line = min(keys, key=lambda key: (not _names(path, key), key)), Line()
    try:
        small = shrunk(
            scenario,
            lambda tried: [any(alike(wanted, key) for key in found) for found in alone(tried)],
            lambda tries: line.show(f"{tries} tried"),
            ahead=ahead,
        )
    except ImportError:
        raise Failed("shrinking needs Hypothesis: pip install hypothesis", USAGE) from None
    finally:
        line.over()
    to = f"{path.removesuffix('.json')}-small.json"
    save.write(to, small._replace(sequence=f"{small.sequence}-small"))
    say(f"{to}: {len(small.steps)} of {len(scenario.steps)} steps, which show {' '.join(filter(None, wanted))}")
    return OK


def _names(path: str, key: Key) -> bool:
    """Return True if the file's name is that of a finding with this ``key``."""
    from kvmtest.fuzz.save import begins

    return os.path.basename(path).removeprefix("once-").startswith(begins(key))


def _smaller_there(args: argparse.Namespace, stop: Interrupt) -> int:
    """Make a scenario small that departs in a cell: one cell for all that is asked at once. Raises Failed."""
    from kvmtest.fuzz.generate import EVENTS, STATES
    from kvmtest.scenario import file

    def alone(tried: Sequence[Scenario]) -> list[set[Key]]:
        fuzzing = (0.0, 1, tuple(EVENTS), tuple(STATES), 0, "")
        job = {"programs": {}, "selectors": tuple(args.selectors), "minimise": False, "fuzz": fuzzing}
        job["tried"] = tuple(file.dump(one) for one in tried)
        shown = [set(map(tuple, keys)) for _, (kind, keys) in jobs.results(args, job, stop) if kind == "shows"]
        if stop.seen:
            raise KeyboardInterrupt
        # It is unknown what a guest would show that died before.
        return [*shown, *(set() for _ in tried[len(shown) :])][: len(tried)]

    common.scenarios([args.shrink])
    stop.running = True
    try:
        return _smaller(args.shrink, alone, _AHEAD)
    except KeyboardInterrupt:
        return INTERRUPTED
