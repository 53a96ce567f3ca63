# SPDX-License-Identifier: GPL-2.0-only
"""The kernel's own coverage of what threads of this process have it do, Documentation/dev-tools/kcov.rst."""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import threading
from collections.abc import Iterator

__all__ = ("PATH", "Kcov", "KcovError", "Trace")

PATH = "/sys/kernel/debug/kcov"

#: From linux/kcov.h.
_INIT_TRACE, _ENABLE, _DISABLE = 0x80086301, 0x6364, 0x6365
_TRACE_PC = 0
#: Addresses that one thread can have executed between two looks; the number of them comes before them.
_ENTRIES = 1 << 22
_SIZE = 8


class KcovError(OSError):
    """The reason why tracing is impossible, in one line, with the remedy."""


class Trace:
    """A trace of what one thread executes between `on` and `off`, which that thread calls. Raises OSError."""

    def __init__(self, path: str = PATH) -> None:
        with contextlib.ExitStack() as stack:
            self._fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            stack.callback(os.close, self._fd)
            fcntl.ioctl(self._fd, _INIT_TRACE, _ENTRIES)
            self._map = mmap.mmap(self._fd, _ENTRIES * _SIZE)
            stack.callback(self._map.close)
            self._words = memoryview(self._map).cast("Q")
            stack.callback(self._words.release)
            self._stack = stack.pop_all()
        #: True if there were more addresses than the buffer has room for.
        self.cut = False

    def on(self) -> None:
        """Begin."""
        self._words[0] = 0
        fcntl.ioctl(self._fd, _ENABLE, _TRACE_PC)

    def off(self) -> None:
        """End."""
        fcntl.ioctl(self._fd, _DISABLE, 0)

    def take(self) -> set[int]:
        """The addresses since the last time."""
        count = self._words[0]
        self.cut = self.cut or count >= _ENTRIES - 1
        found = set(self._words[1 : 1 + count])
        self._words[0] = 0
        return found

    def close(self) -> None:
        """Give everything back."""
        self._stack.close()


class Kcov:
    """Traces the thread that makes it, and others while they are in `thread`. Raises KcovError where this kernel has none."""

    def __init__(self, path: str = PATH) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._others: set[int] = set()
        self.cut = False
        try:
            self._main = Trace(path)
            self._main.on()
        except FileNotFoundError:
            why = "a kernel with CONFIG_KCOV has it, once debugfs is mounted; kvmtest lab coverage needs neither"
            raise KcovError(f"no {path}: {why}") from None
        except OSError as error:
            raise KcovError(f"{path}: {error.strerror}; it is root's, and one trace at a time is a thread's") from error

    @contextlib.contextmanager
    def thread(self) -> Iterator[None]:
        """Within it the calling thread is traced."""
        trace = Trace(self._path)
        try:
            trace.on()
            yield
        finally:
            with contextlib.suppress(OSError):
                trace.off()
            with self._lock:
                self._others |= trace.take()
                self.cut = self.cut or trace.cut
            trace.close()

    def take(self) -> set[int]:
        """The addresses that were executed since the last time, by the thread that made it and by others that ended."""
        with self._lock:
            found, self._others = self._main.take() | self._others, set()
            self.cut = self.cut or self._main.cut
        return found

    def close(self) -> None:
        """End the trace."""
        with contextlib.suppress(OSError):
            self._main.off()
        self._main.close()
