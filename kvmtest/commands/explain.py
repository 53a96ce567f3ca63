# SPDX-License-Identifier: GPL-2.0-only
"""``kvmtest explain``."""

from __future__ import annotations

import argparse
import json

from kvmtest.commands.common import OK, RAW, USAGE, Commands, Failed, print_lines, say

__all__ = ("add",)

_EPILOG = """\
  kvmtest explain cr3                                         a register: rules, plants, deviations
  kvmtest explain init.msi/bsp,intel,x2apic,plant-a,in-smm    a case, step by step
  kvmtest explain 4c72ab5aa6e0                                a commit of KVM: what it changed, what shows it
  kvmtest explain init.msi/bsp,intel,after-rsm --format json > mine.json
  kvmtest run --scenario mine.json                            the case, after changes to the file

Names can be copied from a report.
"""


def add(commands: Commands) -> None:
    """Add ``explain``."""
    what = "show an item's rules and deviations, or the steps of a case"
    parser = commands.add_parser("explain", help=what, epilog=_EPILOG, formatter_class=RAW)
    what = "an item (cr0, lapic.svr, msr.pat), a result id, a case, a commit or v1#14"
    parser.add_argument("name", metavar="ITEM|CASE|COMMIT", help=what)
    what = "json: write the case as a scenario file, for kvmtest run --scenario"
    parser.add_argument("--format", choices=("text", "json"), default="text", help=what)
    what = "results of kvmtest observer judge or kvmtest vmm: show of an item what that machine does, too"
    parser.add_argument("--measured", action="append", default=[], metavar="RESULTS", help=what)
    parser.set_defaults(function=_explain)


def _explain(args: argparse.Namespace) -> int:
    from kvmtest import explain
    from kvmtest.compare import files
    from kvmtest.observer.opinions import opinions
    from kvmtest.results.saved import SavedError
    from kvmtest.scenario import file

    try:
        own = opinions([run for path in args.measured for run in files.runs(path, say)])
        if args.measured and not own:
            raise Failed(f"{args.measured[0]}: no results of a machine without KVM", USAGE)
        if args.format == "text":
            print_lines(explain.explain(args.name, own))
            return OK
        case = explain.one_case(args.name)
    except (explain.UnknownName, SavedError) as error:
        raise Failed(str(error), USAGE) from None
    if not (scenario := case.alone):
        raise Failed(f"{case.name} is not written in steps", USAGE)
    print_lines(json.dumps(file.dump(scenario), indent=2).split("\n"))
    return OK
