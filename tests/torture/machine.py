# SPDX-License-Identifier: GPL-2.0-only
"""Faults of the machine below: ioctls that fail, are interrupted or late; short time limits; processors that others use."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kvmtest.engine import native as code
from kvmtest.kvm import ioctl as calls
from kvmtest.model.record import Result
from kvmtest.report import FORMATS
from kvmtest.uapi.names import IOCTLS
from tests.engine.refusing import NUMBERS, Refusal, Refusing, departures
from tests.torture import rules
from tests.torture.child import start
from tests.torture.faults import SELECTORS, Native

__all__ = ("KINDS",)

_REQUESTS = sorted(IOCTLS)
_KVM_RUN = NUMBERS["KVM_RUN"]
#: So often an ioctl is interrupted in a row, here: nothing is learnt from a thousand times.
_INTERRUPTED = 5


class _Watched(Refusing):
    """Ioctls that fail, or come ``late_s`` late; ``shared`` shows the process that forked this one which were issued."""

    def __init__(self, shared: mmap.mmap, late_s: float) -> None:
        super().__init__(pytest.MonkeyPatch())
        self._shared, self._late_s = shared, late_s

    def _refuses(self, request: int) -> bool:
        refuses = super()._refuses(request)
        if request & 0xFFFFFFFF in IOCTLS:
            self._shared[_REQUESTS.index(request & 0xFFFFFFFF)] = 1
        if refuses:
            self._shared[len(_REQUESTS)] = 1
            if self._late_s:
                time.sleep(self._late_s)
        return refuses and not self._late_s


def _watch(refusal: Refusal | None, late_s: float = 0.0, issued: bool = True) -> tuple[mmap.mmap, Callable[[], None]]:
    """Return the bytes that tell which ioctls were issued, then whether one was refused; and what has to run in the child."""
    shared = mmap.mmap(-1, len(_REQUESTS) + 1)

    def prepare() -> None:
        calls.INTERRUPTED = code.INTERRUPTED = _INTERRUPTED
        _Watched(shared, late_s).start(refusal, native=issued)

    return shared, prepare


_USED: dict[tuple[str, ...], list[int]] = {}


def _used(native: Native, selectors: tuple[str, ...]) -> list[int]:
    """The ioctls that a quiet run issues."""
    if selectors not in _USED:
        where, (shared, prepare) = native.new(), _watch(None)
        rules.ended(start(["run", *selectors, "-o", "main"], where, prepare=prepare).end(), (0, 1))
        _USED[selectors] = [request for number, request in enumerate(_REQUESTS) if shared[number]]
        native.over(where, {"main"}, Path("/proc/mounts").read_bytes())
    return _USED[selectors]


def _when(rng: random.Random) -> dict[str, Any]:
    kind = rng.choice(("always", "each", "each", "once", "once"))
    if kind == "once":
        return {"after": int(2 ** rng.uniform(0, 7)) - 1}
    return {"every": 1 if kind == "always" else rng.randrange(2, 40)}


def refused(native: Native, rng: random.Random) -> str:
    """An ioctl that fails, always or now and then."""
    selectors, format = rng.choice(SELECTORS), rng.choice(FORMATS)
    known, _ = native.known(selectors)
    error = rng.choice((errno.EINVAL, errno.ENOMEM, errno.EIO, errno.EFAULT, errno.EBADF, errno.EINTR, errno.EINTR))
    refusal = Refusal(rng.choice(_used(native, selectors)), error, **_when(rng))
    where, mounts = native.new(), Path("/proc/mounts").read_bytes()
    shared, prepare = _watch(refusal, issued=rng.random() < 0.7)
    words = ["run", *selectors, "--timeout", "0.1" if refusal.request == _KVM_RUN else "1"]
    done = start([*words, "--format", format, "-o", "main", "--report", "jsonl=lines"], where, prepare=prepare).end()
    done = done._replace(words=[*done.words, *refusal.words, refusal.time])
    rules.ended(done, (0, 1, 3))
    if done.status != 3:
        rules.whole(where / "main", format)
        (run,) = rules.report(where / "lines")
        rules.documented(done, [run])
        if error == errno.EINTR and refusal.every != 1:
            rules.same_verdicts(run, known)
        quiet = {key: next(iter(verdicts)) for key, verdicts in known.items() if len(verdicts) == 1}
        # What is an error or a skip has its reason; that this is the right one, tests/engine/ shows case by case.
        judged: dict[tuple[str, str], Result] = {
            (one.id, one.case): one for one in run.results if one.verdict not in ("error", "skip")
        }
        judged = {key: one for key, one in judged.items() if str(one.verdict) not in known.get(key, ())}
        wrong = departures({key: quiet[key] for key in judged if key in quiet}, judged, refusal)
        rules.need(not wrong, "no other verdict", len(wrong), wrong[:2], done.words)
    native.over(where, {"main", "lines"} & set(os.listdir(where)), mounts)
    return f"ioctls, {errno.errorcode[error]}{'' if shared[len(_REQUESTS)] else ', not issued so often'}"


def late(native: Native, rng: random.Random) -> str:
    """An ioctl that is late now and then."""
    selectors = rng.choice(SELECTORS)
    known, _ = native.known(selectors)
    request = rng.choice(_used(native, selectors))
    late_s = 10 ** rng.uniform(-4, -1)
    where, mounts = native.new(), Path("/proc/mounts").read_bytes()
    _, prepare = _watch(Refusal(request, 0, every=max(1, int(rng.uniform(200, 2000) * late_s))), late_s)
    done = start(["run", *selectors, "--format", "jsonl", "-o", "main"], where, prepare=prepare).end()
    rules.ended(done, (0, 1))
    (run,) = rules.report(where / "main")
    rules.documented(done, [run])
    rules.same_verdicts(run, known, ("error", "skip", "info"))
    native.over(where, {"main"}, mounts)
    return "ioctls, late"


#: Items that guest code finds by what it can still read, offset by offset: the longest steps there are.
_LIMITS = ("reset.create/*full-irqchip,amd*", "init.msi.guest.*.limit/*plant-a", "init.icr-xapic.guest.*.limit/*plant-a")


def short(native: Native, rng: random.Random) -> str:
    """A time limit that ends guests anywhere."""
    selectors = rng.choice((*SELECTORS, _LIMITS, _LIMITS))
    known, _ = native.known(selectors)
    where, mounts = native.new(), Path("/proc/mounts").read_bytes()
    limit = f"{10 ** rng.uniform(-3.5, -2):.5f}"
    done = start(["run", *selectors, "--timeout", limit, "--format", "jsonl", "-o", "main"], where).end()
    rules.ended(done, (0, 1))
    (run,) = rules.report(where / "main")
    rules.documented(done, [run])
    rules.same_verdicts(run, known, ("error", "skip", "info"))
    native.over(where, {"main"}, mounts)
    return "time limits"


def busy(native: Native, rng: random.Random) -> str:
    """Other processes that use each processor."""
    selectors, format = rng.choice(SELECTORS), rng.choice(FORMATS)
    known, _ = native.known(selectors)
    where, mounts = native.new(), Path("/proc/mounts").read_bytes()
    others = []
    for _ in range(rng.randrange(2, 9)):
        if not (pid := os.fork()):
            ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
            while True:
                pass
        others.append(pid)
    try:
        jobs = rng.choice(("1", "1", "2", "3"))
        words = ["run", *selectors, "--jobs", jobs, "--format", format, "-o", "main", "--report", "jsonl=lines"]
        done = start(words, where).end()
    finally:
        for pid in others:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    rules.ended(done, (0, 1))
    rules.whole(where / "main", format)
    (run,) = rules.report(where / "lines")
    rules.documented(done, [run])
    rules.same_verdicts(run, known)
    native.over(where, {"main", "lines"}, mounts)
    return f"busy loops, {len(others)}"


KINDS: dict[str, tuple[int, Callable[[Native, random.Random], str]]] = {
    "refused": (8, refused),
    "late": (2, late),
    "short": (2, short),
    "busy": (1, busy),
}
