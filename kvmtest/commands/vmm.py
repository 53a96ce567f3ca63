# SPDX-License-Identifier: GPL-2.0-only
"""``kvmtest vmm``."""

from __future__ import annotations

import argparse

from kvmtest.commands import common, observer, outcome, report
from kvmtest.commands.common import RAW, UNTESTABLE, USAGE, Commands, Failed, say

__all__ = ("add",)

_RESETS = ("cf9", "port-64h", "triple-fault", "wait", "init")
_EPILOG = """\
COMMAND is QEMU, Bochs, Firecracker or Cloud Hypervisor with the options to test; kvmtest adds those for the image, memory,
processors and the log. For another VMM give the whole command, with {image}, {cpus} and {log} in it; without {log} kvmtest reads
its standard output.

  kvmtest vmm qemu-system-x86_64 -accel kvm -cpu host               QEMU's RESET, in each way, on this machine's KVM
  kvmtest vmm --cpus 8 qemu-system-x86_64 -accel tcg -cpu max       TCG's, and the INIT of 7 processors
  kvmtest vmm --form multiboot qemu-system-x86_64 -accel kvm        with QEMU's own firmware: INIT and SIPI
  kvmtest vmm bochs                                                 Bochs's RESET, INIT and SIPI
  kvmtest vmm firecracker                                           INIT and SIPI: it only boots PVH kernels, as the next one
  kvmtest vmm cloud-hypervisor
  kvmtest vmm --form pvh ./my-vmm --cpus {cpus} --log {log} {image}

As firmware (--form bios, the default for QEMU and Bochs) the image sees RESET, and --resets lists the ways; wait is QMP's
system_reset. restore is not a reset: QMP saves the machine, another QEMU process restores it, and the planted values must still
be there.

Exit status: 0 nothing unexpected; 1 at least one fail or error; 2 wrong usage; 3 the machine printed nothing, or shows
no event.
"""


def add(commands: Commands) -> None:
    """Add ``vmm``."""
    what = "run the observer in a VMM or an emulator, reset it, and judge what it saw"
    parser = commands.add_parser("vmm", help=what, epilog=_EPILOG, formatter_class=RAW)
    parser.add_argument("vmm", nargs=argparse.REMAINDER, metavar="COMMAND...", help="the VMM and its options")
    parser.add_argument(
        "--form",
        choices=("multiboot", "pvh", "bios", "iso"),
        help="how it boots (default: bios for QEMU and Bochs, pvh for others)",
    )
    parser.add_argument("--cpus", type=observer.cpus, default=2, metavar="N", help="processors (default: 2)")
    observer.methods(parser, _RESETS)
    observer.avoided(parser)
    parser.add_argument(
        "--silence", type=float, default=60.0, metavar="S", help="end it after this many seconds without a line (default: 60)"
    )
    parser.add_argument("--log", metavar="FILE", help="keep what the image printed")
    parser.add_argument(
        "--cpu-model", default="corei7_haswell_4770", metavar="M", help="Bochs's CPU model (default: corei7_haswell_4770)"
    )
    report.options(parser)
    report.waivers(parser)
    parser.add_argument("--strict", action="store_true", help="a known deviation fails too")
    parser.set_defaults(function=_vmm)


def _vmm(args: argparse.Namespace) -> int:
    from kvmtest.engine import host
    from kvmtest.guests import GuestMissing
    from kvmtest.observer import templates, vmm
    from kvmtest.observer.image import ImageError, Options
    from kvmtest.observer.judge import eventless, judged, machine
    from kvmtest.observer.log import LogError, parse

    if not args.vmm:
        raise Failed("name a VMM: kvmtest vmm COMMAND...", USAGE)
    try:
        which = templates.kind(args.vmm)
    except templates.VmmError as error:
        raise Failed(str(error), USAGE) from None
    form = args.form or templates.usual_form(which)
    resets = args.resets if form == "bios" else ()
    if "init" in resets and args.cpus == 1:
        resets = tuple(name for name in resets if not name.startswith("init"))
        say("init needs a second processor, which sends it: left out")
    # The last two have nothing else.
    on_kvm = any(word.endswith("kvm") or "accel=kvm" in word for word in args.vmm) or which in ("firecracker", "cloud-hypervisor")
    try:
        # With a debug port one exit a line is cheaper than two a character.
        options = Options(args.cpus, resets, ("402h",) if which == "qemu-system" else ("serial",), not args.without_xsave)
        seen = vmm.run(templates.Machine(args.vmm, form, options, args.silence, args.cpu_model), say)
    except (templates.VmmError, ImageError, GuestMissing) as error:
        raise Failed(str(error), USAGE) from None
    if args.log:
        with open(args.log, "wb") as file:
            file.write(seen.log)
    # Warnings of a machine that finished do not matter.
    for line in () if seen.ended else seen.errors.splitlines()[-5:]:
        say(f"{args.vmm[0]}: {line}")
    if "KVM internal error" in seen.errors and not args.without_xsave:
        say("this KVM cannot emulate an instruction of the image: --without-xsave does without XSAVE, XGETBV and RDTSC")
    try:
        log = parse(seen.log, cut=True)
    except LogError as error:
        raise Failed(f"what {args.vmm[0]} printed: {error}", UNTESTABLE) from None
    if not log.boots or not log.boots[0].looks:
        raise Failed(
            f"{args.vmm[0]} ended, or was silent for {args.silence:g} s, before the observer had printed anything", UNTESTABLE
        )
    if why := eventless(log):
        raise Failed(why, UNTESTABLE)
    here = host.detect() if on_kvm else None
    facts = machine(log, "bochs" if which == "bochs" else "", seen.version)
    if here:
        facts = facts._replace(backend=here.backend, kernel=here.kernel, accel=here.accel)
    runs = report.write([judged(log, facts, common.now(), args.cpus)], args)
    return outcome.Outcome(args.strict).status(*runs)
