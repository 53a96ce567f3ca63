# SPDX-License-Identifier: GPL-2.0-only
"""``kvmtest list``."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from kvmtest.commands import common, coverage, overview
from kvmtest.commands.common import RAW, Commands, Failed

if TYPE_CHECKING:
    from kvmtest.engine.plan import Case

__all__ = ("add",)

_EPILOG = """\
  kvmtest list                                      the plan in numbers
  kvmtest list '*/*,in-smm*'                        the same of some cases
  kvmtest list --cases init.msi                     names of cases, for run and explain
  kvmtest list --ids 'init.msi.host.cr*'            names of results
  kvmtest list --here --cases                       only what this KVM can run
  kvmtest list --covers lapic.c:3155                the cases that run a line of KVM

A SELECTOR is as in kvmtest run. Exit status: 0; 2 usage error; 3 with --here, where no KVM can be used.
"""


def add(commands: Commands) -> None:
    """Add ``list``."""
    what = "show what there is to run, by event, trigger and state; list cases and result ids"
    parser = commands.add_parser("list", help=what, epilog=_EPILOG, formatter_class=RAW)
    parser.add_argument("selectors", nargs="*", metavar="SELECTOR", help="results to count or to list (default: all)")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--cases", action="store_true", help="list the cases, a line each, with the view: <id>/<words>")
    which.add_argument("--ids", action="store_true", help="list the result ids, a line each")
    what = "json: cases with parameters, observed items and needs; without --cases also their ids"
    parser.add_argument("--format", choices=("text", "json"), default="text", help=what)
    what = "leave out what this host's KVM cannot run; in JSON keep it, with the reason of the skip"
    parser.add_argument("--here", action="store_true", help=what)
    common.device(parser)
    common.full(parser)
    what = "list the cases that ran this code in the last lab coverage: FILE.c:LINE, FILE.c:LINE-LINE, FILE.c, or functions"
    parser.add_argument("--covers", type=coverage.place, metavar="PLACE", help=what)
    what = "with --covers: the kernel, or the beginning of its release (default: the one measured last)"
    parser.add_argument("--kernel", default="", metavar="RELEASE", help=what)
    parser.set_defaults(function=_list)


def _list(args: argparse.Namespace) -> int:
    from kvmtest.engine import plan
    from kvmtest.lab import ids as lab_ids
    from kvmtest.model.select import Selection

    asked = args.selectors
    ours = lab_ids.wanted(tuple(asked)) if args.format == "text" else []
    if ours:
        common.print_lines(ours)
        common.say("the first ones are results of kvmtest lab alone; see kvmtest explain")
        asked = [s for s in asked if not lab_ids.wanted((s,)) or not s.startswith("none.lab")]
        if not asked:
            return common.OK
    cases = common.selected(asked, args.full or bool(args.covers))
    if args.covers:
        text, place = args.covers
        covering = coverage.covers(text, place, args.kernel)
        cases = [case for case in cases if case.name in covering]
        args.cases = True
    skipped = _skipped(cases, args.device) if args.here else {}
    selection = Selection(asked)
    if args.format == "json":
        listed: dict[str, Any] = {"cases": [_plain(case, skipped.get(case)) for case in cases]}
        if not args.cases:
            listed["ids"] = [name for name in plan.ids(cases) if selection.takes_id(name)]
        common.print_lines(json.dumps(listed, indent=1).split("\n"))
        return common.OK
    cases = [case for case in cases if case not in skipped]
    if args.cases:
        common.print_lines(dict.fromkeys(f"{case.prefix}/{case.words}" for case in cases))
        return common.OK
    names = [name for name in plan.ids(cases) if selection.takes_id(name)]
    common.print_lines(names if args.ids else overview.lines(cases, names))
    return common.OK


def _skipped(cases: list[Case], device: str) -> dict[Case, str]:
    """Return the cases that this host's KVM would skip, with the reasons. Raises Failed."""
    from kvmtest.engine import bind, doctor, host
    from kvmtest.engine.machine import Machines, SetupError
    from kvmtest.state.snapshot import Unread

    try:
        with doctor.open_kvm(device) as kvm:
            machines = Machines(kvm, host.detect())
            try:
                return bind.skips(cases, machines)
            finally:
                machines.close()
    except (doctor.Unusable, OSError, SetupError, Unread) as error:
        raise Failed(str(error), common.UNTESTABLE) from None


def _plain(case: Case, skip: str | None) -> dict[str, Any]:
    """A case for programs: its looks are the event, trigger and view of what it shows, with the number of items."""
    from kvmtest.engine import plan

    looks = []
    for prefix, items in plan.looks(case):
        event, trigger, view = prefix.split(".")
        looks.append({"event": event, "trigger": trigger, "view": view, "items": len(items)})
    needs = list(case.needs)
    return {"name": case.name, "params": case.params, "looks": looks, "needs": needs} | ({"skip": skip} if skip else {})
