# SPDX-License-Identifier: GPL-2.0-only
"""``kvmtest observer``."""

from __future__ import annotations

import argparse

from kvmtest.commands import common, outcome, report
from kvmtest.commands.common import RAW, UNTESTABLE, USAGE, Commands, Failed
from kvmtest.commands.output import opened

__all__ = ("add", "avoided", "cpus", "methods", "outputs")

_EPILOG = """\
  kvmtest observer build -o observer.elf                      for a boot loader: multiboot, and PVH
  kvmtest observer build --form iso -o observer.iso           for a USB stick: dd if=observer.iso of=/dev/sdX
  kvmtest observer build --form bios --resets cf9,init -o observer.rom     a firmware image that resets itself
  kvmtest observer judge serial.log                           what it printed, by the manuals
"""
_BUILD = """\
The image reads the boot processor's state at its first instruction, and starts each other processor twice by INIT-SIPI-SIPI, with
other values planted before the second. It prints to COM1 (115200 baud, 8N1) and to the debug ports 402H and E9H.

Only as firmware (--form bios) does it see RESET. --resets says what ends each of its boots, one after the other: cf9, port-64h,
triple-fault, wait (somebody resets the machine then), init (another processor sends the boot processor an INIT), init-halted,
restore (goes on once debug port 402H reads as another value: kvmtest vmm restores a QEMU with that).

Exit status: 0 built; 2 wrong usage, or a program that an ISO needs is missing.
"""
_JUDGE = """\
LOG is the output of the serial port, unchanged; a firmware's output before it does no harm; - is standard input. A log that is
cut short or corrupted is refused.

  kvmtest observer judge serial.log
  kvmtest observer judge --report json=mine.json serial.log      then: kvmtest report, --baseline and so on, as with any run

Exit status: 0 nothing unexpected; 1 at least one fail or error; 2 not a log of the observer; 3 the log shows no event.
"""


_OPINIONS = """\
  kvmtest vmm --report json=tcg.json qemu-system-x86_64 -accel tcg -cpu max
  kvmtest observer judge --accel silicon --name box --report json=box.json serial.log
  kvmtest observer opinions -o kvmtest/spec/opinions.tsv tcg.json box.json

kvmtest explain ITEM shows them beside the rule. Where one contradicts it, one of the two is wrong.

Exit status: 0 written; 2 a file without results.
"""


def add(commands: Commands) -> None:
    """Add ``observer``."""
    what = "test a bare machine, a VMM or an emulator: build a bootable image, and judge what it printed"
    parser = commands.add_parser("observer", help=what, epilog=_EPILOG, formatter_class=RAW)
    parts = parser.add_subparsers(dest="part", metavar="build|judge|opinions", required=True)
    build = parts.add_parser("build", help="write the image", epilog=_BUILD, formatter_class=RAW)
    build.add_argument("-o", "--output", required=True, metavar="FILE", help="the image")
    build.add_argument("--form", choices=("multiboot", "pvh", "bios", "iso"), default="multiboot", help="default: multiboot")
    build.add_argument(
        "--cpus", type=cpus, default=0, metavar="N", help="processors to look for (default: what CPUID says, or 8)"
    )
    methods(build)
    outputs(build)
    avoided(build)
    build.set_defaults(function=_build)
    made = parts.add_parser(
        "opinions",
        help="write what machines without KVM showed, item by item, as data",
        epilog=_OPINIONS,
        formatter_class=RAW,
    )
    made.add_argument("results", nargs="+", metavar="RESULTS", help="saved by judge or kvmtest vmm")
    made.add_argument("-o", "--output", metavar="FILE", help="write there instead of to standard output")
    made.set_defaults(function=_opinions)
    judge = parts.add_parser("judge", help="judge a log", epilog=_JUDGE, formatter_class=RAW)
    judge.add_argument("log", metavar="LOG", help="what the image printed")
    judge.add_argument(
        "--accel", default="", metavar="WHAT", help="what makes the CPU, if CPUID does not say: silicon, bochs, ..."
    )
    judge.add_argument("--name", default="", metavar="NAME", help="what to call the machine")
    judge.add_argument("--cpus", type=cpus, default=0, metavar="N", help="number of processors that must have started")
    report.options(judge)
    report.waivers(judge)
    outcome.baseline(judge)
    judge.add_argument("--strict", action="store_true", help="a known deviation fails too")
    judge.set_defaults(function=_judge)


def cpus(text: str) -> int:
    """A number of processors."""
    if not text.isdecimal() or not 1 <= int(text) <= 254:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to 254")
    return int(text)


def _methods(text: str) -> tuple[str, ...]:
    from kvmtest.observer.image import METHODS

    names = tuple(text.split(","))
    if unknown := [name for name in names if name not in METHODS]:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is not one of {', '.join(METHODS)}")
    return names


def methods(parser: argparse.ArgumentParser, default: tuple[str, ...] = ()) -> None:
    """Add ``--resets``."""
    what = (
        f"what ends each boot, in order ({', '.join(default)})"
        if default
        else "what ends each boot, in order (default: nothing)"
    )
    parser.add_argument("--resets", type=_methods, default=default, metavar="HOW,...", help=what)


def _outputs(text: str) -> tuple[str, ...]:
    from kvmtest.observer.image import OUTPUTS

    names = tuple(text.split(","))
    if unknown := [name for name in names if name not in OUTPUTS]:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is not one of {', '.join(OUTPUTS)}")
    return names


def outputs(parser: argparse.ArgumentParser) -> None:
    """Add ``--to``."""
    parser.add_argument(
        "--to", type=_outputs, default=("serial", "402h", "e9h"), metavar="PORT,...", help="serial, 402h, e9h (default: all)"
    )


def avoided(parser: argparse.ArgumentParser) -> None:
    """Add ``--without-xsave``."""
    what = "no XSAVE, XGETBV or RDTSC: for a KVM that cannot emulate them where it has to"
    parser.add_argument("--without-xsave", action="store_true", help=what)


def _build(args: argparse.Namespace) -> int:
    from kvmtest.guests import GuestMissing
    from kvmtest.observer.image import ImageError, Options, build

    if args.resets and args.form != "bios":
        raise Failed("--resets: only as firmware (--form bios) does the image come back after a reset", USAGE)
    try:
        made = build(args.form, Options(args.cpus, args.resets, args.to, not args.without_xsave))
    except (ImageError, GuestMissing) as error:
        raise Failed(str(error), USAGE) from None
    try:
        with open(args.output, "wb") as file:
            file.write(made)
    except OSError as error:
        raise Failed(f"cannot write {args.output}: {error.strerror}", USAGE) from None
    return common.OK


def _opinions(args: argparse.Namespace) -> int:
    from kvmtest.compare import files
    from kvmtest.observer.opinions import opinions
    from kvmtest.results.saved import SavedError
    from kvmtest.spec.opinions import printed

    try:
        runs = [run for path in args.results for run in files.runs(path, common.say)]
    except SavedError as error:
        raise Failed(str(error), USAGE) from None
    text = printed(opinions(runs))
    with opened(args.output) as file:
        file.write(text)
    return common.OK


def _judge(args: argparse.Namespace) -> int:
    from kvmtest.compare import files
    from kvmtest.observer.judge import eventless, judged, machine
    from kvmtest.observer.log import LogError, parse
    from kvmtest.results.saved import SavedError

    try:
        log = parse(common.contents(args.log))
        old = files.runs(args.baseline, common.say) if args.baseline else []
    except (LogError, SavedError) as error:
        raise Failed(f"{args.log}: {error}" if isinstance(error, LogError) else str(error), USAGE) from None
    if why := eventless(log):
        raise Failed(why, UNTESTABLE)
    run = judged(log, machine(log, args.accel, args.name), common.now(), args.cpus)
    runs = report.write([run], args)
    if args.baseline:
        return common.UNEXPECTED if outcome.against(old, runs, (), args.strict, outcome.out(args)) else common.OK
    return outcome.Outcome(args.strict).status(*runs)
