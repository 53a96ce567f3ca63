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

from kvmtest.engine.plan import Case
from kvmtest.judge.book import Book
from kvmtest.judge.cases import judge
from kvmtest.judge.evidence import Again, Basis, Evidence, Look
from kvmtest.lab import relay
from kvmtest.lab.stream import Decoder
from kvmtest.model.host import Host, Tool
from kvmtest.model.record import Block, Observation
from kvmtest.model.run import Head, counted
from kvmtest.results import saved
from kvmtest.results.lines import Lines, end_fields
from tests.cases import shown, the

__all__ = ("NAMES", "Recorded", "bare", "expected", "judged", "read")

_FOLDER = Path(__file__).parents[1] / "data" / "evidence"
#: A run on silicon's KVM; two kernels 7.2 in the lab, which knows what emulates their CPU.
_EMULATORS = {"native": "", "7.2-svm": "QEMU 7.2 (TCG)", "7.2-vmx": "Bochs 2.7"}
NAMES = tuple(_EMULATORS)
_PIECE = 1 << 12


class Recorded(NamedTuple):
    """A run: whose KVM it was, and what each case showed."""

    host: Host
    cases: list[tuple[Look, tuple[Basis, ...], Any]]


def _lines(name: str) -> Iterator[tuple[str, list[Any]]]:
    decoder = Decoder()
    with open(_FOLDER / f"{name}.stream", "rb") as file:
        while piece := file.read(_PIECE):
            yield from decoder.feed(piece)


class _Broadcast(NamedTuple):
    """What a broadcast showed: the ``sender`` before and after it wrote ``icr``, and each target."""

    icr: int
    sender: Evidence
    targets: tuple[Evidence, ...]


# It was recorded when item cases were no scenarios: a case had one observation before the event, and one after it.
relay._KINDS["BroadcastSeen"] = _Broadcast


def _case(name: str, view: str) -> Case | None:
    """The case of that name, in the plan or not; None for a behaviour that is a scenario now, or no more."""
    event, rest = name.split("/", 1)
    try:
        found = the(f"{event}.{view}/{rest}")
    except ValueError:
        return None
    return found if found.plant or found.trigger == "create" else None


def _told(case: Case, bases: tuple[Basis, ...], seen: Any) -> tuple[tuple[Basis, ...], Any]:
    """What the program of ``case`` tells where the vCPUs show what was ``seen``."""
    if isinstance(seen, Again):
        bases, told = _told(case, bases, seen.seen)
        return bases, seen._replace(seen=told)
    if isinstance(seen, _Broadcast):
        pairs = [(target.before, target.after) for target in seen.targets]
        return bases[1:], shown(case, *pairs, sender=(seen.sender.before, seen.sender.after))
    if isinstance(seen, Evidence):
        return bases, shown(case, (seen.before, seen.after), report=seen.report)
    return bases, seen


@cache
def read(name: str) -> Recorded:
    """The run ``name``."""
    receiver, cases = relay.Receiver(), []
    emulator = _EMULATORS[name]
    for letter, fields in _lines(name):
        if letter == "H":
            parameters = dict(field.split("=", 1) for field in fields[4:])
            lab: dict[str, str | float] | None = {"emulator": emulator, "cpu": "", "kernel_source": ""} if emulator else None
            host = Host(*fields[:4], parameters, lab)
        elif letter == "C":
            case = _case(*fields)
        elif letter == "O":
            if case:
                cases.append((case.look(), *_told(case, *receiver.unpack(fields[0], host))))
        else:
            receiver.take(letter, fields[0])
    return Recorded(host, cases)


def judged(name: str) -> list[Observation]:
    """What is judged of the run ``name``. What the host saw of a case that the guest tells of is another case's."""
    book, (host, cases) = Book(), read(name)
    found = ((look, seen) for look, bases, shown in cases for seen in judge(book, look, host, bases, shown))
    return [seen for look, seen in found if look.view == "host" or seen.view != "host"]


def expected(name: str) -> list[Observation]:
    """What was judged of it when it was recorded, of the cases that there still are."""
    (run,) = saved.load(str(_FOLDER / f"{name}.jsonl.gz"))
    views = {"views": "guest"}
    return [one for one in run.observations if one.case and _case(one.case.name, views.get(one.view, one.view))]


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
