# SPDX-License-Identifier: GPL-2.0-only
"""The command line. Only the standard library; what a command needs is imported by that command."""

from __future__ import annotations

import argparse
import errno
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, TextIO

from kvmtest import __version__
from kvmtest.lab import cli as lab

if TYPE_CHECKING:
    from kvmtest.engine.plan import Case

__all__ = ("main",)

OK, UNEXPECTED, USAGE, UNTESTABLE, INTERRUPTED = 0, 1, 2, 3, 130
#: `git bisect run`: could not tell.
BISECT_SKIP = 125
#: What the file system says when a report does not fit.
_CANNOT_WRITE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
_EPILOG = """\
A SELECTOR is a glob over result ids <event>.<trigger>.<view>.<item>, or the beginning of one up to a dot:
  kvmtest run init.msi.host.cr3        one item after INIT by MSI, in every case
  kvmtest run 'init.*.cr*'             all control registers after INIT
  kvmtest run reset sipi.msi.guest     everything after RESET, and what the guest sees after SIPI

Exit status: 0 nothing unexpected; 1 at least one fail or error; 2 wrong usage; 3 nothing could be tested here;
130 interrupted. With --bisect: 0 good, 1 bad, 125 could not tell.
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="kvmtest",
        description="Check what an x86 vCPU looks like after RESET, INIT and SIPI on this host's KVM, against the manuals.",
        epilog="kvmtest COMMAND --help tells more. Start with: kvmtest run",
    )
    parser.add_argument("--version", action="version", version=f"kvmtest {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    raw = argparse.RawDescriptionHelpFormatter

    run = commands.add_parser("run", help="run on /dev/kvm", epilog=_EPILOG, formatter_class=raw)
    _run_options(run)
    _device(run)

    listing = commands.add_parser("list", help="what would run, without running it", epilog=_EPILOG, formatter_class=raw)
    listing.add_argument("selectors", nargs="*", metavar="SELECTOR")
    listing.add_argument("--cases", action="store_true", help="the cases (plant x trigger x view) instead of result ids")

    explain = commands.add_parser("explain", help="the rule of an item, its citations, KVM's code, deviations")
    explain.add_argument("name", metavar="ITEM|COMMIT", help="an item (cr0, lapic.svr, msr.pat), a result id or a commit")

    spec = commands.add_parser("spec", help="all rules; --format json for other programs")
    spec.add_argument("--format", choices=("text", "json"), default="text", help="default: text")

    doctor = commands.add_parser("doctor", help="what this machine's KVM can do, and what to install or enable for the rest")
    _device(doctor)

    lab.add_parser(commands, _run_options)
    return parser


def _run_options(run: argparse.ArgumentParser) -> None:
    run.add_argument("selectors", nargs="*", metavar="SELECTOR", help="which results; all when none is given")
    run.add_argument("--format", choices=("text", "json", "jsonl"), default="text", help="default: text")
    run.add_argument("-o", "--output", metavar="FILE", help="write there instead of to standard output")
    run.add_argument("--strict", action="store_true", help="a known deviation counts as unexpected too")
    run.add_argument("--bisect", action="store_true", help="exit status for git bisect run")
    run.add_argument("--timeout", type=_seconds, default=1.0, metavar="S", help="seconds for each KVM_RUN (default: 1)")
    run.add_argument("--rounds", type=_rounds, default=24, metavar="N", help="rounds of sipi.stress (default: 24)")
    run.add_argument("--seed", type=int, default=1, metavar="S", help="seed that sipi.stress draws its rounds from (default: 1)")


def _device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="/dev/kvm", metavar="PATH", help="default: /dev/kvm")


def _seconds(text: str) -> float:
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


class _Failed(Exception):
    """One line for standard error, and the exit status."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class _Interrupt:
    """Within it the first Ctrl-C only sets ``seen``, so that it cuts no record in two; the second raises as usual."""

    def __init__(self) -> None:
        self.seen = False

    def _handle(self, number: int, frame: object) -> None:
        if self.seen:
            raise KeyboardInterrupt
        self.seen = True

    def __enter__(self) -> _Interrupt:
        self._before = signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(self, *error: object) -> None:
        signal.signal(signal.SIGINT, self._before)


def _open_output(path: str | None) -> TextIO:
    if path is None:
        return sys.stdout
    try:
        return open(path, "w", encoding="utf-8")
    except OSError as error:
        raise _Failed(f"cannot write {path}: {error.strerror}", USAGE) from error


def _selected(selectors: Sequence[str]) -> tuple[list[Case], tuple[str, ...]]:
    from kvmtest.engine import plan

    wanted = tuple(selectors)
    try:
        return plan.select(plan.plan(), wanted), wanted
    except plan.SelectorError as error:
        raise _Failed(f"no result id matches {error}; kvmtest list shows them all", USAGE) from None


def _run(args: argparse.Namespace) -> int:
    from kvmtest import report
    from kvmtest.checks import Effort
    from kvmtest.engine import doctor, host, run
    from kvmtest.engine.result import CaseTime

    cases, selectors = _selected(args.selectors)
    try:
        kvm = doctor.open_kvm(args.device)
    except doctor.Unusable as error:
        raise _Failed(str(error), BISECT_SKIP if args.bisect else UNTESTABLE) from None
    totals: Counter[str] = Counter()
    with kvm, _Interrupt() as interrupt:
        out = _open_output(args.output)
        writer = report.writer(args.format, out)
        facts = host.detect()
        if facts.backend == "unknown":
            _say("no vendor module found in /sys/module: hidden attributes are judged by either vendor's values")
        begin = time.monotonic()
        effort = Effort(args.rounds, args.seed)
        steps = run.run(kvm, facts, cases, selectors, args.timeout, lambda case: writer.running(case.name), effort)
        try:
            writer.begin(facts, time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), len(cases))
            for step in steps:
                if isinstance(step, CaseTime):
                    writer.case(step)
                else:
                    totals[step.verdict] += 1
                    writer.result(step)
                if interrupt.seen:
                    break
        finally:
            steps.close()
            writer.end(time.monotonic() - begin, totals)
            if out is not sys.stdout:
                out.close()
            else:
                out.flush()
    if interrupt.seen:
        _say("interrupted; what was measured until then is in the report")
        return INTERRUPTED
    return _status(totals, args.strict, args.bisect)


def _status(totals: Counter[str], strict: bool, bisect: bool) -> int:
    """The exit status of a run with these totals by verdict."""
    failed = totals["fail"] + (totals["known"] if strict else 0)
    told = totals["pass"] + totals["fail"] + totals["known"] + totals["fixed"]
    if bisect:
        return 1 if failed else BISECT_SKIP if totals["error"] or not told else OK
    if failed or totals["error"]:
        return UNEXPECTED
    if not told and not totals["info"]:
        _say("nothing could be tested: every result is a skip; kvmtest doctor says what this KVM lacks")
        return UNTESTABLE
    return OK


def _list(args: argparse.Namespace) -> int:
    from kvmtest.engine import plan

    cases, selectors = _selected(args.selectors)
    if args.cases:
        _print(case.name for case in cases)
    else:
        _print(name for name in plan.ids(cases) if plan.wanted(selectors, name))
    return OK


def _explain(args: argparse.Namespace) -> int:
    from kvmtest import explain

    try:
        _print(explain.explain(args.name))
    except explain.UnknownName as error:
        raise _Failed(str(error), USAGE) from None
    return OK


def _spec(args: argparse.Namespace) -> int:
    from kvmtest import explain, spec

    if args.format == "json":
        import json

        _print([json.dumps(spec.document(), indent=1)])
    else:
        _print(line for item in spec.ENTRIES for line in explain.explain(item))
    return OK


def _doctor(args: argparse.Namespace) -> int:
    from kvmtest.engine import doctor

    findings = list(doctor.examine(args.device))
    _print(f"{f.state:4} {f.what}" + (f": {f.advice}" if f.advice else "") for f in findings)
    return UNTESTABLE if any(f.state == "bad" for f in findings) else OK


def _lab(args: argparse.Namespace) -> int:
    return lab.lab(args, _status, lambda: _open_output(args.output))


def _print(lines: Iterator[str] | list[str]) -> None:
    for line in lines:
        sys.stdout.write(line + "\n")


def _say(message: str) -> None:
    sys.stderr.write(f"kvmtest: {message}\n")


_COMMANDS = {"run": _run, "list": _list, "explain": _explain, "spec": _spec, "doctor": _doctor, "lab": _lab}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line ``argv`` (default: the process's); returns the exit status."""
    args = _parser().parse_args(argv)
    try:
        status = _COMMANDS[args.command](args)
        sys.stdout.flush()
        return status
    except _Failed as failed:
        _say(str(failed))
        return failed.status
    except KeyboardInterrupt:
        _say("interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        # The reader went away (| head): no traceback now, and none from the interpreter's own flush at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except OSError as error:
        if error.errno in _CANNOT_WRITE:
            _say(f"cannot write {getattr(args, 'output', None) or 'standard output'}: {error.strerror}")
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return USAGE
        _say(str(error))
        return UNEXPECTED


if __name__ == "__main__":
    sys.exit(main())
