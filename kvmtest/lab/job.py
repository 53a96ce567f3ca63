# SPDX-License-Identifier: GPL-2.0-only
"""What a cell can do besides running cases: make a reproducer, or execute programs. This runs inside."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from typing import Any, TypedDict

from kvmtest.engine.plan import Case
from kvmtest.kvm import Kvm
from kvmtest.lab.stream import Encoder
from kvmtest.model.host import Host

__all__ = ("Job", "execute", "reproduce")

#: Seconds that a program gets: it waits for no exit longer than one.
_LONGEST_S = 60
_SHOWN = 4000


class Job(TypedDict):
    """What to do: ``programs`` by their names, static ones, or a reproducer of what ``selectors`` take."""

    programs: dict[str, bytes]
    selectors: tuple[str, ...]
    minimise: bool


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
    """Make a reproducer, and send it; a text says why there is none."""
    from kvmtest.emit.plain import dump
    from kvmtest.emit.repro import NoRepro
    from kvmtest.engine.plan import select
    from kvmtest.engine.reproduce import first
    from kvmtest.model.select import Selection

    def told(what: str) -> None:
        out.blob("R", ("told", what))
        out.flush()

    answer: Any
    for selector in job["selectors"]:
        chosen = select(cases, (selector,))
        try:
            answer = dump(first(kvm, host, chosen, Selection((selector,)), timeout_s, minimise=job["minimise"], told=told))
        except NoRepro as error:
            answer = str(error)
        except (ArithmeticError, AssertionError, LookupError, TypeError, ValueError) as error:
            # Of one that cannot be made; the others still can.
            answer = f"it cannot be made: {type(error).__name__}: {error}"
        out.blob("R", ("shown", selector, answer))
        out.flush()
