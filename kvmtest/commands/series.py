# SPDX-License-Identifier: GPL-2.0-only
"""``kvmtest series``."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING

from kvmtest.commands.common import OK, RAW, UNEXPECTED, USAGE, Commands, Failed, print_lines, say
from kvmtest.report.show import columns

if TYPE_CHECKING:
    from kvmtest.model.run import Run
    from kvmtest.series import Seen, Unseen
    from kvmtest.spec.commits.entry import Entry

__all__ = ("add",)

#: Of a row: place, commit and release.
_KEYS = 26
_KEY = "o: result ids show it   -: not observable; for details: kvmtest explain COMMIT"
_HOW = "for a column of your kernel: kvmtest run --format json -o r.json; kvmtest series --results r.json"
_EPILOG = """\
Without --results, print the catalogue; with it, add a column for each run, decided by its results:

  fixed           the manuals' value was seen, where a kernel without the commit has another; the plant is proven
  bug present     the exact value of a kernel without the commit was seen
  cannot tell     neither, with the reason: not run, not on this backend, skipped, a third value
  not observable  nothing outside of the kernel shows the commit, with the reason

  kvmtest run --format json -o r.json; kvmtest series --results r.json
  kvmtest run --commit 4c72ab5aa6e0      only what shows this commit
  kvmtest explain 4c72ab5aa6e0           everything about it
"""
#: States in a table with columns.
_SHORT = {"fixed": "fixed", "bug present": "BUG", "cannot tell": "?", "not observable": "-"}


def add(commands: Commands) -> None:
    """Add ``series``."""
    what = "list KVM's commits on RESET and INIT, and which of them a kernel has"
    parser = commands.add_parser("series", help=what, epilog=_EPILOG, formatter_class=RAW)
    parser.add_argument("--format", choices=("text", "json"), default="text", help="default: text")
    files = "saved results, or a lab's matrix"
    parser.add_argument("--results", nargs="+", action="extend", default=[], metavar="FILE", help=files)
    parser.add_argument("--check", action="store_true", help="fail if no run shows a deviation that is listed for it")
    parser.set_defaults(function=_series)


def _series(args: argparse.Namespace) -> int:
    from kvmtest import series
    from kvmtest.results.saved import Loader, SavedError

    if args.check and not args.results:
        raise Failed("--check needs --results", USAGE)
    try:
        loader = Loader(say)
        runs = [run for path in args.results for run in loader.load(path)]
    except SavedError as error:
        raise Failed(str(error), USAGE) from None
    missing = series.unseen(runs) if args.check else []
    if args.format == "json":
        import json

        print_lines([json.dumps(series.document(runs), indent=1)])
    else:
        print_lines(_table(runs))
    for one in missing:
        say(_unseen(one))
    return UNEXPECTED if missing else OK


def _unseen(one: Unseen) -> str:
    d = one.deviation
    value = f"{d.observed:#x}" if isinstance(d.observed, int) else repr(d.observed)
    how = "never seen" if one.tried else "not run"
    return f"the deviation {d.item} {value} after {d.event} [{d.commit}] is {how} in {', '.join(one.runs)}"


def _table(runs: list[Run]) -> Iterator[str]:
    """The catalogue in the terminal's width: a line per commit, two if the runs' columns leave no room for the subject."""
    from kvmtest import series
    from kvmtest.spec.commits import PARTS

    names = _columns(runs)
    found = [series.states(run) for run in runs]
    head = _cells(names, names)
    room = columns() - _KEYS - len(head)
    if room < 28:
        room = 0
    if runs:
        yield from _legend(names, runs)
        yield ""
    yield f"{'':5} {'commit':12} {'since':6} {'' if runs else '  '}{'':{room if runs else 0}}{head}".rstrip()
    for title, entries in PARTS.items():
        yield title
        for entry in entries:
            values = [_SHORT[states[entry.key].state] for states in found]
            yield from _row(entry, _cells(names, values), room, bool(runs))
    yield ""
    if runs:
        yield "BUG: bug present   ?: cannot tell   -: not observable; for details: kvmtest explain COMMIT"
        yield from _reasons(names, found)
        yield ""
    else:
        yield from textwrap.wrap(_KEY, columns(), subsequent_indent="  ")
    yield from textwrap.wrap(_HOW, columns(), subsequent_indent="  ")


def _row(entry: Entry, cells: str, room: int, with_runs: bool) -> Iterator[str]:
    head = f"{entry.place:5} {entry.commit or '(none)':12} {entry.release or '-':6} "
    if not with_runs:
        yield f"{head}{'-' if entry.hidden else 'o'} {_short(entry.subject, columns() - _KEYS - 2)}"
    elif room:
        yield f"{head}{_short(entry.subject, room):{room}}{cells}".rstrip()
    else:
        yield f"{head}{_short(entry.subject, columns() - _KEYS)}"
        yield f"{'':{_KEYS}}{cells}".rstrip()


def _short(subject: str, room: int) -> str:
    return textwrap.shorten(subject, room, placeholder=" ...")


def _cells(names: list[str], values: list[str]) -> str:
    return "".join(f"  {value:{max(len(name), 5)}}" for name, value in zip(names, values, strict=True))


def _columns(runs: list[Run]) -> list[str]:
    """A short name for each run: kernel and backend where results say them and there is room, else its number."""
    names: list[str] = []
    for number, run in enumerate(runs, 1):
        major, minor = run.host.version
        name = f"{major}.{minor}/{run.host.backend}" if major else f"run {number}"
        names.append(f"{name} {number}" if name in names else name)
    if len(_cells(names, names)) > columns() - _KEYS:
        return [f"[{number}]" for number in range(1, len(runs) + 1)]
    return names


def _legend(names: list[str], runs: list[Run]) -> Iterator[str]:
    for name, run in zip(names, runs, strict=True):
        yield f"{name}: {run.name}, kernel {run.host.kernel}, backend {run.host.backend}"


def _reasons(names: list[str], found: list[dict[str, Seen]]) -> Iterator[str]:
    """List for each run the bugs that are present, and why others cannot be determined."""
    from kvmtest.series import BUG, CANNOT_TELL

    for name, states in zip(names, found, strict=True):
        bugs = [(key, seen.why) for key, seen in states.items() if seen.state == BUG]
        reasons: dict[str, list[str]] = {}
        for key, seen in states.items():
            if seen.state == CANNOT_TELL:
                reasons.setdefault(seen.why, []).append(key)
        if bugs or reasons:
            yield ""
            yield f"{name}:"
        for key, why in bugs:
            yield from _wrapped(f"BUG {key}: {why}")
        for why, keys in reasons.items():
            yield from _wrapped(f"?   {why}: {', '.join(keys)}")


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, columns(), initial_indent="  ", subsequent_indent="      ", break_long_words=False)
