# SPDX-License-Identifier: GPL-2.0-only
"""Signals that come at any moment, to the process and to its threads, change no verdict."""

from __future__ import annotations

import os
import random
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from kvmtest.engine import native
from kvmtest.engine.machine import Machines
from kvmtest.engine.plan import Case
from tests.cases import ran, the
from tests.engine.refusing import CHOSEN

_HALTED = the("init.msi.host/ap,intel,xapic,plant-guest-long,in-hlt")
_CASES = (*CHOSEN[:10], _HALTED)
_SIGNALS = (signal.SIGALRM, signal.SIGUSR1)


@contextmanager
def _storm() -> Iterator[Counter[int]]:
    """SIGALRM from a timer, and SIGUSR1 from rng, each more often than an ioctl takes; by number, how many there were."""
    came: Counter[int] = Counter()
    over = threading.Event()
    before = {number: signal.signal(number, lambda number, _: came.update((number,))) for number in _SIGNALS}

    def send() -> None:
        rng = random.Random(1)
        while not over.wait(rng.uniform(0, 0.003)):
            os.kill(os.getpid(), signal.SIGUSR1)

    sender = threading.Thread(target=send)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.0007, 0.0013)
        sender.start()
        yield came
    finally:
        over.set()
        signal.setitimer(signal.ITIMER_REAL, 0)
        sender.join()
        for number, handler in before.items():
            signal.signal(number, handler)


def _verdicts(cases: tuple[Case, ...], machines: Machines) -> dict[tuple[str, str], str]:
    return {(result.id, result.case): result.verdict for case in cases for result in ran(case, machines)}


@pytest.mark.parametrize("issued", ["natively", "in Python"])
def test_signals_change_no_verdict(issued: str, machines: Machines, monkeypatch: pytest.MonkeyPatch) -> None:
    library = native.library()
    without: Callable[[], native.Library | None] = lambda: library if issued == "natively" else None  # noqa: E731
    monkeypatch.setattr(native, "library", without)
    quiet = _verdicts(_CASES, machines)
    machines.close()
    with _storm() as came:
        seen = _verdicts(_CASES, machines)
    assert {key: (verdict, seen.get(key)) for key, verdict in quiet.items() if seen.get(key) != verdict} == {}
    assert seen.keys() == quiet.keys() and min(came[number] for number in _SIGNALS) > 20
