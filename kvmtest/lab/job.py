# SPDX-License-Identifier: GPL-2.0-only
"""Jobs of a cell other than running cases: make a reproducer, execute programs, fuzz. This runs inside the guest."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from typing import Any, NotRequired, TypedDict

from kvmtest.engine.plan import Case
from kvmtest.kvm import Kvm
from kvmtest.lab.stream import Encoder
from kvmtest.model.host import Host

__all__ = ("Fuzzing", "Job", "execute", "fuzz", "reproduce")

#: Seconds that a program gets: it waits for no exit longer than one.
_LONGEST_S = 60
_SHOWN = 4000


#: Between two words of how far it is, in seconds.
_OFTEN_S = 2.0
#: For how many seconds, the seed, events and states, after how many findings it ends, and which shard ("" for all).
Fuzzing = tuple[float, int, tuple[str, ...], tuple[str, ...], int, str]


class Job(TypedDict):
    """A cell's job: execute ``programs`` (static, by name), make a reproducer of the results that ``selectors`` match, or, with
    ``fuzz``, run random scenarios and report their results; with ``tried`` also given, run these scenarios instead. ``minimise``
    and ``small_guest`` say how a reproducer is reduced, ``known`` are the outcomes of its first tries in earlier cells.
    """

    programs: dict[str, bytes]
    selectors: tuple[str, ...]
    minimise: bool
    small_guest: NotRequired[bool]
    known: NotRequired[tuple[Any, ...]]
    fuzz: NotRequired[Fuzzing]
    tried: NotRequired[tuple[Any, ...]]


def execute(job: Job, out: Encoder, between: Callable[[], None]) -> None:
    """Execute the programs one after the other, and send what each prints, and its exit status.

    ``between`` is called after each.
    """
    for name, image in job["programs"].items():
        path = f"/program-{os.getpid()}"
        with open(path, "wb") as file:
            file.write(image)
        os.chmod(path, 0o755)
        out.line("L", f"executing {name}")
        out.flush()
        try:
            done = subprocess.run([path], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=_LONGEST_S, check=False)
            status, said = done.returncode, done.stdout
        except subprocess.TimeoutExpired as late:
            status, said = -1, (late.output or b"") + f"not over within {_LONGEST_S} s\n".encode()
        except OSError as error:
            status, said = -1, f"it does not start: {error.strerror}\n".encode()
        os.unlink(path)
        between()
        out.blob("R", (name, status, said[-_SHOWN:].decode("utf-8", "replace")))
        out.flush()


def reproduce(job: Job, kvm: Kvm, host: Host, cases: list[Case], timeout_s: float, out: Encoder) -> None:
    """Make a reproducer, and send it; a text says why there is none. Before and after each try a word is sent."""
    from kvmtest.emit.plain import dump
    from kvmtest.emit.repro import NoRepro
    from kvmtest.engine.plan import select
    from kvmtest.engine.reproduce import first
    from kvmtest.engine.trial import Outcome, Tried
    from kvmtest.model.select import Selection

    def progress(what: str) -> None:
        out.blob("R", ("progress", what))
        out.flush()

    def tries(outcome: Outcome | None) -> None:
        out.blob("R", ("trying",) if outcome is None else ("tried", _bare(outcome)))
        out.flush()

    made: Any
    known = [Outcome(*one) for one in job.get("known", ())]
    for selector in job["selectors"]:
        chosen = select(cases, (selector,))
        try:
            how = {"minimise": job["minimise"], "small_guest": job.get("small_guest", False)}
            selection, tried = Selection((selector,)), Tried(known, tries)
            made = dump(first(kvm, host, chosen, selection, timeout_s, **how, tried=tried, progress=progress))
        except NoRepro as error:
            made = str(error)
        except (ArithmeticError, AssertionError, LookupError, TypeError, ValueError) as error:
            # Of one that cannot be made; the others still can.
            made = f"it cannot be made: {type(error).__name__}: {error}"
        out.blob("R", ("shown", selector, made))
        out.flush()
        known = []


def _bare(value: Any) -> Any:
    """``value`` with plain tuples alone, as marshal can write them."""
    return tuple(map(_bare, value)) if isinstance(value, tuple) else value


def fuzz(job: Job, kvm: Kvm, host: Host, out: Encoder, between: Callable[[], bool]) -> None:
    """Run random scenarios, and send each finding at once, and how far it is; or run those given, and send what departs in each.

    ``between`` is called after each scenario, and returns True if that ran code of KVM for the first time.
    """
    from kvmtest.fuzz.loop import Fuzzer
    from kvmtest.model.select import Selection
    from kvmtest.model.shard import Shard
    from kvmtest.scenario import file

    seconds, seed, events, states, most, shard = job["fuzz"]
    part, selection = Shard.parse(shard) if shard else None, Selection(job["selectors"])
    fuzzer = Fuzzer(kvm, host, seed, selection, events=frozenset(events), states=frozenset(states), shard=part)
    last = time.monotonic()

    if "tried" in job:
        try:
            for data in job["tried"]:
                out.blob("R", ("shows", sorted(fuzzer.alone(file.loads(data)))))
                out.flush()
                between()
        finally:
            fuzzer.close()
        return

    def counted() -> None:
        out.blob("R", ("counts", tuple(fuzzer.counts)))
        out.flush()

    def after() -> bool:
        nonlocal last
        new = between()
        if time.monotonic() - last >= _OFTEN_S:
            last = time.monotonic()
            counted()
        return new

    try:
        for number, found in enumerate(fuzzer.run(seconds, after), 1):
            out.blob("R", ("found", file.dump(found.scenario), found.keys, found.said, found.again))
            out.flush()
            if number == most:
                break
        counted()
    finally:
        fuzzer.close()
