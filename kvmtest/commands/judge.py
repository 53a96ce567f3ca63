# SPDX-License-Identifier: GPL-2.0-only
"""``kvmtest judge``."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from kvmtest.commands import common, outcome, report
from kvmtest.commands.common import RAW, UNTESTABLE, USAGE, Commands, Failed

if TYPE_CHECKING:
    from kvmtest.testing import State

__all__ = ("add",)

_EPILOG = """\
STATE is a file that a VMM wrote, with the structures that KVM_GET_REGS, KVM_GET_SREGS and so on filled, byte for byte:
docs/testing.md has its layout, and 20 lines of C and of Rust that write it. State that the file lacks is not judged. No KVM is
needed.

  kvmtest judge --event reset vcpu0.state                           after the VMM's reset
  kvmtest judge --event init --before before.state after.state      what INIT must leave, too
  kvmtest judge --event reset --apic-id 3 --report junit=r.xml vcpu3.state

Exit status: 0 all items are as the manuals say; 1 at least one is not; 2 STATE is no such file; 3 nothing
in it can be judged.
"""


def add(commands: Commands) -> None:
    """Add ``judge``."""
    what = "judge a vCPU's state that a VMM saved, without KVM"
    parser = commands.add_parser("judge", help=what, epilog=_EPILOG, formatter_class=RAW)
    parser.add_argument("state", metavar="STATE", help="the state after the event")
    parser.add_argument("--event", required=True, choices=("reset", "init", "sipi", "shutdown"), help="what happened")
    parser.add_argument("--before", metavar="STATE", help="the state before it, with values that the event must change or keep")
    parser.add_argument("--vendor", choices=("intel", "amd"), default="", help="the CPUID vendor, if the file has no CPUID")
    parser.add_argument("--backend", choices=("vmx", "svm"), default="", help="the module that ran it: kvm_intel or kvm_amd")
    parser.add_argument("--apic-id", type=int, metavar="N", help="the vCPU's APIC id (default: 0)")
    parser.add_argument("--ap", action="store_true", help="the vCPU is not the boot CPU (default: the one with APIC id 0 is)")
    parser.add_argument("--vector", type=lambda text: int(text, 0), metavar="V", help="the SIPI's vector")
    parser.add_argument("--ignore", action="append", default=[], metavar="GLOB", help="items to leave out, such as msr.tsc")
    report.options(parser)
    report.waivers(parser)
    parser.set_defaults(function=_judge)


def _read(path: str) -> State:
    from kvmtest.testing.file import from_file

    try:
        return from_file(common.contents(path))
    except ValueError as error:
        raise Failed(f"{path}: {error}", USAGE) from None


def _judge(args: argparse.Namespace) -> int:
    from kvmtest import __version__
    from kvmtest.model.host import Host, Tool
    from kvmtest.model.run import Head, Run
    from kvmtest.testing.judged import judge_state

    state, before = _read(args.state), _read(args.before) if args.before else None
    try:
        judged = judge_state(
            state,
            args.event,
            before=before,
            vendor=args.vendor,
            backend=args.backend,
            bsp=False if args.ap else None,
            apic_id=args.apic_id,
            vector=args.vector,
            ignore=args.ignore,
            strict=True,
        )
    except ValueError as error:
        raise Failed(str(error), USAGE) from None
    if not judged.failed and not judged.good:
        raise Failed(f"{args.state}: nothing in it can be judged: {judged.counts}", UNTESTABLE)
    seen = judged.results[0].of
    host = Host("unknown", args.backend or "unknown", "unknown", "unknown", {})
    case = seen.case
    assert case
    run = Run(Head(Tool(__version__), host, common.now(), args.state), (case,), (seen._replace(seconds=0.0),))
    # A VMM that writes all state itself has no use for KVM's deviations.
    return outcome.Outcome(strict=True).status(*report.write([run], args))
