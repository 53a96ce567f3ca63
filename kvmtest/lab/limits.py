# SPDX-License-Identifier: GPL-2.0-only
"""Time limits for a guest, in the CPU time that its emulator got instead of wall time.

On a busy machine an emulator may get a second of CPU time a minute: a guest that makes no progress then does not hang, it
starves. So a limit counts the CPU time that the emulator used. An emulator that sleeps uses none, for example where the guest
is halted for ever. So the time in which it neither ran nor waited for a CPU has a limit, too. That one is long: a slow disk,
swapping, or a machine that is itself a guest without a CPU look the same. (So does waiting for a CPU, where the kernel of this
machine was built without CONFIG_SCHED_INFO.)
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from typing import NamedTuple

from kvmtest.lab.start import Emulator

__all__ = ("Died", "Limits", "Spent")

#: The time in which an emulator may neither run nor wait for a CPU, if its limit is not longer.
_ASLEEP_S = 600.0
#: The factor by which the limit of silence is shorter in a cell whose tries may hang.
_SHORTER = 4
#: For the console of a dying kernel to say why.
_DYING_S = 3.0
#: Not checked more often: it reads a file of each thread.
_EVERY_S = 0.1
_TICKS = os.sysconf("SC_CLK_TCK")


class Died(Exception):
    """The guest gave no end of its own."""


class Spent(NamedTuple):
    """Seconds: of CPU time, on the wall, and of those for which the thread that waits most was ready to run and did not."""

    cpu_s: float
    wall_s: float
    queued_s: float

    @classmethod
    def by(cls, pid: int) -> Spent:
        """Return what the process ``pid`` has used so far."""
        cpu = queued = 0.0
        with contextlib.suppress(OSError):
            with open(f"/proc/{pid}/stat", "rb") as file:
                user, system = file.read().rpartition(b")")[2].split()[11:13]
            cpu = (int(user) + int(system)) / _TICKS
            for thread in os.listdir(f"/proc/{pid}/task"):
                with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{thread}/schedstat", "rb") as file:
                    queued = max(queued, int(file.read().split()[1]) / 1e9)
        return cls(cpu, time.monotonic(), queued)

    def since(self, before: Spent) -> Spent:
        """Return what was used since ``before``."""
        return Spent(*(max(0.0, now - then) for now, then in zip(self, before, strict=True)))

    @property
    def own_s(self) -> float:
        """The time in which nobody else kept it from running."""
        return max(0.0, self.wall_s - self.queued_s)

    def exceeds(self, limit_s: float) -> str:
        """Describe by how much ``limit_s`` is exceeded; "" if it is not."""
        if self.cpu_s > limit_s:
            return f"{self.cpu_s:.0f} s of CPU time ({self.wall_s:.0f} s of wall time)"
        asleep = self.own_s - self.cpu_s
        if asleep > max(_ASLEEP_S, limit_s):
            return f"{asleep:.0f} s asleep and {self.cpu_s:.0f} s of CPU time ({self.wall_s:.0f} s of wall time)"
        return ""


class Limits:
    """The limits of one cell, of an ``emulator`` that has ``spent`` so much. One that is ``short`` is not waited for as long:
    it tries what may well hang its kernel.
    """

    def __init__(self, emulator: Emulator, spent: Callable[[], Spent], short: bool = False) -> None:
        self._emulator = emulator
        self._silence_s = emulator.silence_s / (_SHORTER if short else 1)
        self._spent = spent
        self._up = self._sign = self._step = False
        self._dying: Spent | None = None
        self._last = self._began = self._looked = spent()

    def heard(self) -> None:
        """A sign of life came."""
        self._sign = True

    def entered(self) -> None:
        """Note that the guest is up, and has begun a new case or another step."""
        self._up = self._sign = self._step = True

    def check(self, where: str, dying: str) -> None:
        """Raise Died if the guest is silent for too long, or too long at ``where``, or ``dying``."""
        if time.monotonic() - self._looked.wall_s < _EVERY_S:
            return
        now = self._looked = self._spent()
        if self._sign:
            self._last = now
        if self._step:
            self._began = now
        self._sign = self._step = False
        self._dying = (self._dying or now) if dying else None
        if self._dying and now.since(self._dying).own_s > _DYING_S:
            raise Died(dying)
        emulator = self._emulator
        # What is no guest yet may send what it likes: its boot has one limit.
        since, limit = (self._last, self._silence_s) if self._up else (self._began, emulator.boot_s)
        if spent := now.since(since).exceeds(limit):
            raise Died(f"it hangs: no sign of life for {spent}")
        if self._up and (spent := now.since(self._began).exceeds(emulator.case_s)):
            raise Died(f"{where} takes longer than {spent}, though the guest is alive")
