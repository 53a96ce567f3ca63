# SPDX-License-Identifier: GPL-2.0-only
"""Recorded evidence: what KVM showed in whole runs, as it leaves the lab, and what was judged of it.

``tests/data/evidence/NAME.stream`` is what `kvmtest.lab.relay.Sender` sends of a run, ``NAME.jsonl.gz`` its results, without
reasons and citations. ``python -m tests.judge.recorded`` writes the results anew: look at what changes.
"""

from __future__ import annotations

import gzip
import io
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from kvmtest.engine.plan import plan
from kvmtest.judge.book import Book
from kvmtest.judge.cases import judge
from kvmtest.judge.evidence import Basis, Look, Played
from kvmtest.lab.relay import Receiver
from kvmtest.lab.stream import Decoder
from kvmtest.model.host import Host, Tool
from kvmtest.model.record import Block, Observation
from kvmtest.model.run import Head, Run, counted
from kvmtest.results import saved
from kvmtest.results.lines import Lines, end_fields

__all__ = ("NAMES", "Recorded", "bare", "expected", "judged", "read")

_FOLDER = Path(__file__).parents[1] / "data" / "evidence"
#: A run on silicon's KVM; two kernels 7.2 in the lab, which knows what emulates their CPU.
_EMULATORS = {"native": "", "7.2-svm": "QEMU 7.2 (TCG)", "7.2-vmx": "Bochs 2.7"}
NAMES = tuple(_EMULATORS)
_PIECE = 1 << 12
#: Names and views: of what was recorded, cases that are planned no more are left out.
_PLANNED = frozenset((case.name, case.view) for case in plan())


class Recorded(NamedTuple):
    """A run: whose KVM it was, and what each case showed."""

    host: Host
    cases: list[tuple[Look, tuple[Basis, ...], Any]]


def _lines(name: str) -> Iterator[tuple[str, list[Any]]]:
    decoder = Decoder()
    with open(_FOLDER / f"{name}.stream", "rb") as file:
        while piece := file.read(_PIECE):
            yield from decoder.feed(piece)


@cache
def read(name: str) -> Recorded:
    """The run ``name``."""
    receiver, cases = Receiver(), []
    emulator = _EMULATORS[name]
    for letter, fields in _lines(name):
        if letter == "H":
            parameters = dict(field.split("=", 1) for field in fields[4:])
            lab: dict[str, str | float] | None = {"emulator": emulator, "cpu": "", "kernel_source": ""} if emulator else None
            host = Host(*fields[:4], parameters, lab)
        elif letter == "C":
            look = receiver.look(*fields) if tuple(fields) in _PLANNED else None
        elif letter == "O" and look:
            bases, seen = receiver.unpack(fields[0], host)
            # A scenario may have the name of a check of before.
            if not look.scenario or isinstance(seen, Played):
                cases.append((look, bases, seen))
        elif letter != "O":
            receiver.take(letter, fields[0])
    return Recorded(host, cases)


def judged(name: str) -> list[Observation]:
    """What is judged of the run ``name``."""
    book, (host, cases) = Book(), read(name)
    return [seen for look, bases, shown in cases for seen in judge(book, look, host, bases, shown)]


def expected(name: str) -> Run:
    """What was judged of it when it was recorded."""
    (run,) = saved.load(str(_FOLDER / f"{name}.jsonl.gz"))
    kept = {look.case.name for look, _, _ in read(name).cases}
    return run._replace(observations=tuple(seen for seen in run.observations if seen.case and seen.case.name in kept))


def bare(observations: list[Observation]) -> list[Observation]:
    """``observations`` without reasons and citations, which may be worded anew."""
    made: dict[tuple[Block, ...], tuple[Block, ...]] = {}

    def without(blocks: tuple[Block, ...]) -> tuple[Block, ...]:
        if blocks not in made:
            made[blocks] = tuple(Block(tuple(r._replace(reason="", cite=()) for r in block.records)) for block in blocks)
        return made[blocks]

    return [seen._replace(blocks=without(seen.blocks)) for seen in observations]


def _write(name: str) -> None:
    observations, out = bare(judged(name)), io.StringIO()
    lines = Lines(out.write)
    lines.begin(Head(Tool("0"), read(name).host, "2026-11-28T18:00:00Z", name))
    for seen in observations:
        assert seen.case
        lines.case(seen.case)
        lines.observed([seen])
    lines.end(end_fields(0.0, False, counted(observations)))
    (_FOLDER / f"{name}.jsonl.gz").write_bytes(gzip.compress(out.getvalue().encode(), mtime=0))


if __name__ == "__main__":
    for each in NAMES:
        _write(each)
