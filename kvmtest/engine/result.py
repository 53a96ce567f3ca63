# SPDX-License-Identifier: GPL-2.0-only
"""One result, and the document of a run: the contract ``kvmtest.results/1``."""

from __future__ import annotations

import re
from typing import NamedTuple

__all__ = ("EVENTS", "FIRST_TRY", "ID", "OUT_OF_TIME", "SCHEMA", "UNEXPECTED", "VERDICTS", "VIEWS", "CaseTime", "Host", "Result")

SCHEMA = "kvmtest.results/1"
VERDICTS = ("pass", "fail", "known", "fixed", "skip", "error", "info")
EVENTS = ("reset", "init", "sipi", "shutdown", "nmi", "none")
VIEWS = ("host", "guest", "views", "kernel")
#: <event>.<trigger>.<view>.<item>
ID = re.compile(r"[a-z0-9-]+\.[a-z0-9-]+\.[a-z]+\.[a-z0-9_.-]+")
#: Verdicts that make a run exit with 1 (``known`` joins them under ``--strict``).
UNEXPECTED = frozenset(("fail", "error"))
#: In the reason of an error for the want of an answer in time, twice.
OUT_OF_TIME = "out of time"
#: Ends the reason of what passed only when it was tried again.
FIRST_TRY = "at the first try"


class Result(NamedTuple):
    """What one case says of one item. Values are lower-case 0x hex strings, names, or None."""

    id: str
    event: str
    trigger: str
    view: str
    item: str
    case: str
    planted: str | None
    expected: str | None
    observed: str | None
    verdict: str
    reason: str
    cite: tuple[str, ...]
    deviation: str | None

    @property
    def out_of_time(self) -> bool:
        """Whether it is an error because no answer came in time: KVM may have lost something, or the host was too busy."""
        return self.verdict == "error" and self.view != "kernel" and OUT_OF_TIME in self.reason

    @property
    def second_try(self) -> bool:
        """Whether it passed, though only when it was tried again."""
        return self.verdict == "info" and self.reason.endswith(FIRST_TRY)


class CaseTime(NamedTuple):
    """How long a case took, in seconds."""

    case: str
    duration_s: float


class Host(NamedTuple):
    """The KVM under test. ``parameters`` are the vendor module's, as sysfs prints them; ``lab`` describes the lab it ran in."""

    kernel: str
    backend: str
    cpu_vendor: str
    cpu_model: str
    parameters: dict[str, str]
    lab: dict[str, str | float] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """What the CPU under KVM is called: its model, and the emulator where there is one."""
        return (self.cpu_model, str(self.lab["emulator"])) if self.lab else (self.cpu_model,)
