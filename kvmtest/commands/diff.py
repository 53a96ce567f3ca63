# SPDX-License-Identifier: GPL-2.0-only
"""``kvmtest diff``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from kvmtest.commands import common
from kvmtest.commands.common import OK, RAW, UNEXPECTED, USAGE, Commands, Failed, say

if TYPE_CHECKING:
    from kvmtest.compare.snapshot import State
    from kvmtest.report.saved import Saved

__all__ = ("add",)

_EPILOG = """\
Two snapshots (kvmtest snapshot), or the results of two runs (--format json or jsonl, or of a matrix; one cell of it as
FILE#CELL). Only what differs is shown: of results the verdict and the values planted, expected and observed, of a counter
that runs by itself (the TSC, the timer's current count) the verdict alone. That kernels, CPUs or parameters differ is shown
too, and does not count.

  kvmtest diff before.json after.json
  kvmtest diff old.json new.json init.msi '*.cr*'         of results only those that a SELECTOR takes
  kvmtest diff matrix.json#5.10/svm matrix.json#6.1/svm

Exit status: 0 nothing differs; 1 something does; 2 a file that cannot be read or compared.
"""


def add(commands: Commands) -> None:
    """Add ``diff``."""
    what = "compare two saved snapshots, or the results of two runs"
    parser = commands.add_parser("diff", help=what, epilog=_EPILOG, formatter_class=RAW)
    parser.add_argument("a", metavar="A", help="what was before")
    parser.add_argument("b", metavar="B", help="what is now")
    parser.add_argument("selectors", nargs="*", metavar="SELECTOR", help="of results only these")
    parser.add_argument("--format", choices=("text", "json"), default="text", help="default: text")
    parser.add_argument("-o", "--output", metavar="FILE", help="write there instead of to standard output")
    parser.set_defaults(function=_diff)


def _diff(args: argparse.Namespace) -> int:
    from kvmtest.compare import files
    from kvmtest.compare.snapshot import State
    from kvmtest.report.saved import SavedError

    try:
        a, b = files.load(args.a), files.load(args.b)
    except SavedError as error:
        raise Failed(str(error), USAGE) from None
    if isinstance(a, State) and isinstance(b, State):
        if args.selectors:
            raise Failed("selectors are of result ids, and these are snapshots", USAGE)
        differs, text, document = _states(a, b)
    elif not isinstance(a, State) and not isinstance(b, State):
        differs, text, document = _results(args, a, b)
    else:
        first, second = ("a snapshot" if isinstance(side, State) else "results" for side in (a, b))
        raise Failed(f"{args.a} is {first} and {args.b} {second}: compare like with like", USAGE)
    out = common.open_output(args.output)
    try:
        if args.format == "json":
            import json

            out.write(json.dumps(document, indent=1) + "\n")
        else:
            common.print_lines(text, out)
    finally:
        if out is not sys.stdout:
            out.close()
    return UNEXPECTED if differs else OK


def _states(a: State, b: State) -> tuple[bool, Iterable[str], dict[str, Any]]:
    from kvmtest.compare import show, states

    changes = states.difference(a, b)
    header = states.hosts(a.host, b.host) + states.made(a, b)
    say(f"{len(changes)} of {len(a.items.keys() | b.items.keys())} items differ")
    text = (*show.head(a.name, b.name, header), *show.items(changes))
    return bool(changes), text, show.items_json(a, b, header, changes)


def _results(args: argparse.Namespace, a: list[Saved], b: list[Saved]) -> tuple[bool, Iterable[str], dict[str, Any]]:
    """Run for run; those of two matrices by the names of their cells."""
    from kvmtest.compare import show

    pairs, alone = _paired(args, a, b)
    for name, file in alone:
        say(f"cell {name} is in {file} only")
    text: list[str] = []
    documents = []
    differs = bool(alone)
    for here, there in pairs:
        some, lines, document = _pair(tuple(args.selectors), here, there)
        if len(pairs) > 1 and lines:
            text.append(f"=== {here.name}")
        text += lines
        documents.append(document)
        differs = differs or some
    document = documents[0] if len(documents) == 1 else {"schema": show.SCHEMA, "kind": "matrix", "cells": documents}
    return differs, text, document


def _paired(args: argparse.Namespace, a: list[Saved], b: list[Saved]) -> tuple[list[tuple[Saved, Saved]], list[tuple[str, str]]]:
    """The runs to compare, and the cells that have no counterpart, each with its file."""
    if len(a) == len(b) == 1:
        return [(a[0], b[0])], []
    if 1 in (len(a), len(b)):
        file, runs = (args.b, b) if len(a) == 1 else (args.a, a)
        raise Failed(f"{file} has {len(runs)} cells: choose one by {file}#CELL, of {', '.join(r.name for r in runs)}", USAGE)
    here, there = {run.name: run for run in a}, {run.name: run for run in b}
    alone = [(name, args.a) for name in here if name not in there] + [(name, args.b) for name in there if name not in here]
    if not (pairs := [(run, there[name]) for name, run in here.items() if name in there]):
        raise Failed(f"{args.a} and {args.b} have no cell in common", USAGE)
    return pairs, alone


def _pair(selectors: tuple[str, ...], a: Saved, b: Saved) -> tuple[bool, list[str], dict[str, Any]]:
    from kvmtest.compare import show, states
    from kvmtest.compare.results import Index, difference

    found = difference(Index(a.results, a.ran), Index(b.results, b.ran), selectors)
    verdicts = sum(change.verdicts[0] != change.verdicts[1] for change in found.changes)
    only = f"cases in one only: {len(found.only_a)}, {len(found.only_b)}; " if found.only_a or found.only_b else ""
    counts = f"{only}results: {len(a.results)}, {len(b.results)}"
    say(f"{verdicts} verdicts and {len(found.changes) - verdicts} values differ; {counts}")
    header = states.hosts(a.host, b.host)
    text = [*show.head(a.name, b.name, header), *show.results(found)]
    return bool(found), text, show.results_json((a.name, a.host), (b.name, b.host), header, found)
