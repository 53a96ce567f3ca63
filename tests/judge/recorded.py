# SPDX-License-Identifier: GPL-2.0-only
"""Recorded evidence: what KVM showed in whole runs of the plan, as it leaves the lab, and what was judged of it.

``tests/data/evidence/NAME.stream.xz`` is what `kvmtest.lab.relay.Sender` sends of a run, ``NAME.jsonl.gz`` its results, without
reasons and citations. ``python -m tests.judge.recorded record NAME`` runs the plan anew, here or in a cell of the lab, and
``python -m tests.judge.recorded judge`` writes the results anew: look at what changes. Where the steps of a scenario change, what
was recorded of it says nothing any more: record again.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import lzma
import sys
import zlib
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

from kvmtest.engine import doctor, host, run
from kvmtest.engine.plan import Case, plan
from kvmtest.judge.cache import Cache
from kvmtest.judge.cases import judge
from kvmtest.judge.evidence import Basis, Look
from kvmtest.lab import kernels, relay
from kvmtest.lab.cell import Cell
from kvmtest.lab.steps import Spec
from kvmtest.lab.stream import Decoder, Encoder
from kvmtest.model.host import Host, Tool
from kvmtest.model.record import Block, Observation
from kvmtest.model.run import Head, counted
from kvmtest.model.verdict import Verdict
from kvmtest.results import saved
from kvmtest.results.lines import Lines, end_fields
from tests.cases import the

__all__ = ("NAMES", "Recorded", "bare", "chosen", "expected", "judged", "read")

_FOLDER = Path(__file__).parents[1] / "data" / "evidence"
#: A run on silicon's KVM; two kernels 7.2 in the lab, which knows what emulates their CPU.
_EMULATORS = {"native": "", "7.2-svm": "QEMU 7.2 (TCG)", "7.2-vmx": "Bochs 2.7"}
NAMES = tuple(_EMULATORS)
_PIECE = 1 << 16


class Recorded(NamedTuple):
    """A run: whose KVM it was, and what each case showed."""

    host: Host
    cases: list[tuple[Look, tuple[Basis, ...], Any]]


def _lines(name: str) -> Iterator[tuple[str, list[Any]]]:
    decoder = Decoder()
    with lzma.open(_FOLDER / f"{name}.stream.xz") as file:
        while piece := file.read(_PIECE):
            yield from decoder.feed(piece)


@cache
def _planned(full: bool) -> dict[tuple[str, str], Case]:
    return {(case.name, case.view): case for case in plan(full)}


def _case(name: str, view: str) -> Case | None:
    """The case of that name, in the plan of today or not; None for a sequence that there is no more."""
    if case := _planned(False).get((name, view)) or _planned(True).get((name, view)):
        return case
    event, rest = name.split("/", 1)
    # A sequence may look like other words of a case: "split-irqchip".
    with contextlib.suppress(ValueError, KeyError):
        case = the(f"{event}.{view}/{rest}")
        case.look()
        return case
    return None


@cache
def read(name: str) -> Recorded:
    """The run ``name``."""
    receiver, cases, emulator = relay.Receiver(), [], _EMULATORS[name]
    for letter, fields in _lines(name):
        if letter == "H":
            parameters = dict(field.split("=", 1) for field in fields[4:])
            lab: dict[str, str | float] | None = {"emulator": emulator, "cpu": "", "kernel_source": ""} if emulator else None
            of = Host(*fields[:4], parameters, lab)
        elif letter == "C":
            case = _case(*fields)
        elif letter == "O":
            if case:
                cases.append((case.look(), *receiver.unpack(fields[0], of)))
        else:
            receiver.take(letter, fields[0])
    return Recorded(of, cases)


def chosen(name: str, every: int = 1) -> list[tuple[Look, tuple[Basis, ...], Any]]:
    """All cases of the run ``name``, or those of one in so many names."""
    cases = read(name).cases
    names = set(list(dict.fromkeys(look.case.name for look, _, _ in cases))[::every])
    return [one for one in cases if one[0].case.name in names]


def judged(name: str, every: int = 1) -> list[Observation]:
    """Judge the run ``name``."""
    cache, of = Cache(), read(name).host
    return [seen for look, bases, shown in chosen(name, every) for seen in judge(cache, look, of, bases, shown)]


def expected(name: str, every: int = 1) -> list[Observation]:
    """Return the results of the run as recorded, of the cases that still exist."""
    (run,) = saved.load(str(_FOLDER / f"{name}.jsonl.gz"))
    there = {look.case.name for look, _, _ in chosen(name, every)}
    return [one for one in run.observations if one.case and one.case.name in there]


def bare(observations: list[Observation]) -> list[Observation]:
    """``observations`` without reasons and citations, which may be worded anew."""
    made: dict[int, Block] = {}

    def without(block: Block) -> Block:
        if id(block) not in made:  # the observations keep it
            made[id(block)] = Block(tuple(record._replace(reason="", cite=()) for record in block.records))
        return made[id(block)]

    return [seen._replace(blocks=tuple(map(without, seen.blocks))) for seen in observations]


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


# Recording


class _Copied(Decoder):
    """A decoder that passes on what is evidence: neither the kernel's log nor signs of life."""

    def __init__(self, out: Encoder) -> None:
        super().__init__()
        self._out = out

    def feed(self, data: bytes) -> Iterable[tuple[str, list[Any]]]:
        """The lines that ``data`` completes."""
        for letter, fields in super().feed(data):
            if letter in "DVO":
                self._out.blob(letter, fields[0])
            elif letter in "HC":
                self._out.line(letter, *fields)
            yield letter, fields


def _here(cases: list[Case], out: Encoder) -> None:
    facts = host.detect()
    out.line("H", *facts[:4], *(f"{name}={value}" for name, value in facts.parameters.items()))
    with doctor.open_kvm("/dev/kvm") as kvm:
        judging = relay.Sender(out).judging
        done = list(run.run(kvm, facts, cases, 1.0, lambda case: out.case(case.name, case.view), judging=judging))
    assert len(done) == len(cases)


def _in_cell(name: str, cases: list[Case], out: Encoder) -> None:
    kernel, backend = name.split("-")
    with mock.patch("kvmtest.lab.cell.Decoder", lambda: _Copied(out)):
        for step in Cell(Spec(backend, kernels.find(kernel), cases=tuple(cases))).steps():
            of_kernel = [seen for seen in step if seen.trigger == "lab"] if isinstance(step, list) else []
            assert all(record.verdict is not Verdict.ERROR for seen in of_kernel for record in seen.records), of_kernel


def _record(name: str) -> None:
    # The stress check counts for as long as it is asked to: its counts in one run are no evidence of another.
    cases = [case for case in plan() if "stress" not in case.name]
    with lzma.open(_FOLDER / f"{name}.stream.xz", "wb", preset=9) as file:
        out = Encoder(file.write)
        out._zip = zlib.compressobj(0)  # xz finds what a zlib stream's 32 KiB do not reach
        if _EMULATORS[name]:
            _in_cell(name, cases, out)
        else:
            _here(cases, out)
        out.flush()


if __name__ == "__main__":
    if sys.argv[1] == "record":
        _record(sys.argv[2])
    for each in sys.argv[2:] or NAMES:
        _write(each)
