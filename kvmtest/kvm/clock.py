# SPDX-License-Identifier: GPL-2.0-only
"""Time limits that a busy host does not use up."""

from __future__ import annotations

import os
import threading
from time import monotonic

__all__ = ["Limit"]


class Limit:
    """So many seconds from now: wall time, less what the calling thread waits for a CPU while it could run.

    Not CPU time, which does not pass for a vCPU that is halted. The kernel counts the wait in the run queue for each thread
    (sched_info.run_delay; Documentation/scheduler/sched-stats.rst); one built without CONFIG_SCHED_INFO does not, and there it is
    wall time. For the thread that makes it alone.
    """

    def __init__(self, seconds: float) -> None:
        self._path = f"/proc/self/task/{threading.get_native_id()}/schedstat"
        self._waited = self._wait()
        self._end = monotonic() + seconds

    def left(self) -> float:
        """The seconds that are left, none or less when they have passed."""
        now = monotonic()
        if now >= self._end:
            waited = self._wait()
            self._end += waited - self._waited
            self._waited = waited
        return self._end - now

    def _wait(self) -> float:
        """The seconds that the thread has waited in the run queue since it began."""
        try:
            fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                return int(os.read(fd, 128).split()[1]) / 1e9
            finally:
                os.close(fd)
        except (OSError, ValueError, IndexError):
            return 0.0
