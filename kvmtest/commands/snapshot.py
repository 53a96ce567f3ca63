# SPDX-License-Identifier: GPL-2.0-only
"""``kvmtest snapshot``."""

from __future__ import annotations

import argparse

from kvmtest.commands import common, run
from kvmtest.commands.common import INTERRUPTED, OK, RAW, UNEXPECTED, UNTESTABLE, USAGE, Commands, Failed, Interrupt
from kvmtest.commands.output import opened

__all__ = ("add",)

_EPILOG = """\
  kvmtest snapshot --event init -o before.json            an AP's state after INIT by MSI, and the planted state
  kvmtest snapshot --event reset --view guest             what guest code reads after RESET
  kvmtest snapshot --event init --trigger icr-x2apic --plant c --format text
  kvmtest snapshot --case init.msi.host/ap,intel,xapic,plant-a      a case named in a report

kvmtest diff compares two snapshots. Defaults: INIT by MSI, an AP (for RESET and SHUTDOWN the BSP) in xAPIC mode, plant a, this
CPU's vendor, read by the host.

Exit status: 0 written; 1 the event did not happen, or KVM failed; 2 usage error; 3 this host cannot run the case.
"""


def add(commands: Commands) -> None:
    """Add ``snapshot``."""
    what = "save a vCPU's whole state after an event"
    parser = commands.add_parser("snapshot", help=what, epilog=_EPILOG, formatter_class=RAW)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--event", choices=("reset", "init", "sipi", "shutdown"), help="the event")
    which.add_argument("--case", metavar="NAME", help="a case named in a report or by kvmtest list --cases")
    parser.add_argument("--trigger", metavar="T", help="how the event is sent: msi, latched, icr-xapic, ...")
    parser.add_argument("--target", choices=("bsp", "ap"), help="the vCPU")
    parser.add_argument("--mode", metavar="M", help="the local APIC's mode: xapic, x2apic, xapic-flat, relocated, disabled")
    parser.add_argument("--plant", metavar="P", help="the state written before the event: a, b, c, none, guest-long, ...")
    parser.add_argument("--state", metavar="S", help="what the vCPU is doing at the event: in-loop, in-hlt, nmi-injected, ...")
    parser.add_argument("--vendor", choices=("intel", "amd"), help="the vendor in the vCPU's CPUID")
    parser.add_argument("--view", choices=("host", "guest"), help="who reads the state")
    parser.add_argument("--format", choices=("json", "text"), default="json", help="default: json")
    parser.add_argument("-o", "--output", metavar="FILE", help="write to FILE instead of standard output (-)")
    what = "limit of each KVM_RUN in seconds (default: 1)"
    parser.add_argument("--timeout", type=run.seconds, default=1.0, metavar="S", help=what)
    common.device(parser)
    parser.set_defaults(function=_snapshot)


def _snapshot(args: argparse.Namespace) -> int:
    from kvmtest import take
    from kvmtest.compare import show, snapshot
    from kvmtest.engine import doctor, host
    from kvmtest.engine.error import TriggerError
    from kvmtest.engine.machine import Machines, SetupError
    from kvmtest.guests import GuestMissing
    from kvmtest.kvm import KvmError, RunStopped
    from kvmtest.state.inside import GuestStopped, PlantRefused
    from kvmtest.state.snapshot import Unread

    facts = host.detect()
    criteria = take.Criteria(args.event, args.trigger, args.view, args.target, args.mode, args.vendor, args.plant, args.state)
    try:
        if args.case and any(criteria):
            raise take.NoCase("--case names the case: other options that choose one cannot be given with it")
        vendor = "amd" if facts.cpu_vendor == "AuthenticAMD" else "intel"
        case = take.named(args.case) if args.case else take.choose(criteria, vendor)
    except take.NoCase as error:
        raise Failed(str(error), USAGE) from None
    try:
        kvm = doctor.open_kvm(args.device)
    except doctor.Unusable as error:
        raise Failed(str(error), UNTESTABLE) from None
    with kvm, Interrupt(running=True) as kvm.stop:
        machines = Machines(kvm, facts)
        try:
            state = take.take(case, machines, args.timeout, common.now())
        except (GuestMissing, PlantRefused, SetupError) as error:
            raise Failed(f"{case.name}: {error}", UNTESTABLE) from None
        except (GuestStopped, KvmError, TriggerError, Unread) as error:
            raise Failed(f"{case.name}: {error}", UNEXPECTED) from None
        except RunStopped:
            pass
    if kvm.stop.seen:
        return INTERRUPTED
    with opened(None if args.output == "-" else args.output) as out:
        if args.format == "json":
            out.write(snapshot.dump(state))
        else:
            common.print_lines(show.state(state), out)
    return OK
