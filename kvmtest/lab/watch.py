# SPDX-License-Identifier: GPL-2.0-only
"""An emulator's process, and its outputs: the parallel port, the guest's console and its own terminal."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import selectors
import signal
import subprocess
import time
from collections import deque
from collections.abc import Iterator

from kvmtest.lab import klog
from kvmtest.lab.launch import launched
from kvmtest.lab.limits import Died, Spent
from kvmtest.lab.start import Started

__all__ = ("Watch",)

_TICK_S = 0.5
_CHUNK = 1 << 16
_PAUSE_S = 0.005
_CONSOLE_LINES = 200
_LINE = 1 << 12
#: Bytes of the emulator's own terminal that are kept.
_SCREEN = 4096
_DISPLAY = re.compile(rb'connected to screen "(/dev/pts/\d+)"')
#: Output to a terminal that is not text (ECMA-48 control sequences, character sets).
_CONTROL = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*[@-~]|[()][0-9A-Za-z]|[ -/]*[0-~])|[\x00-\x09\x0b-\x1f]")


class Watch:
    """The process of the emulator ``name``, which runs within `opened`.

    ``console`` is the end of the guest's, line by line, and ``dying`` what that said of its death.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self.console: deque[str] = deque(maxlen=_CONSOLE_LINES)
        self.dying = ""
        self._shown = False
        self._rest = self._screen = b""
        self._open: dict[str, int] = {}

    @contextlib.contextmanager
    def opened(self, started: Started, folder: str) -> Iterator[None]:
        """The emulator, in a session of its own, which writes to the FIFOs in ``folder``; killed at the end."""
        with contextlib.ExitStack() as self._stack:
            stack = self._stack
            self._watch = stack.enter_context(selectors.DefaultSelector())
            for fifo in ("serial", "parallel"):
                fd = os.open(os.path.join(folder, fifo), os.O_RDONLY | os.O_NONBLOCK)
                stack.callback(os.close, fd)
                self._listen(fifo, fd)
            self._process = stack.enter_context(self._running(started, folder))
            yield

    def _listen(self, name: str, fd: int) -> None:
        self._open[name] = fd
        self._watch.register(fd, selectors.EVENT_READ)

    def read(self) -> Iterator[bytes]:
        """Yield data from the parallel port until it pauses for a moment. Raises Died."""
        self._watch.select(_TICK_S)
        # The port after the console, and heard before it: what a guest sent before it died is in what came by then.
        came = {name: self._take(name) for name in ("terminal", "display", "serial", "parallel")}
        if came["parallel"]:
            yield came["parallel"]
            # The emulator writes byte by byte: let it fill the FIFO instead of being woken for each.
            time.sleep(_PAUSE_S)
        self._hear(came["serial"])
        self._screen = (self._screen + came["terminal"])[-_SCREEN:]
        self._watch_display()
        if self._process.poll() is not None and not any(came.values()):
            raise Died(self.dying or _how(self._process.returncode, self._name))

    def _take(self, name: str) -> bytes:
        """Read from one of the emulator's outputs; nothing if it is not open, or closed."""
        fd = self._open.get(name)
        if fd is None:
            return b""
        try:
            data = os.read(fd, _CHUNK)
        except BlockingIOError:
            return b""
        except OSError:
            data = b""  # a terminal nobody has open any more
        if not data:
            # Before the emulator has opened it a FIFO is at its end, too.
            if self._process.poll() is None:
                time.sleep(0.01)
            else:
                self._watch.unregister(fd)
                del self._open[name]
        return data

    def goes_on(self) -> None:
        """The guest does: what its console said of its death was of another thread than the one that works."""
        self.dying = ""

    def spent(self) -> Spent:
        """Return the CPU and wall time that the emulator has used."""
        return Spent.by(self._process.pid)

    def alive(self) -> bool:
        """Return True while the emulator runs."""
        return self._process.poll() is None

    def wait(self, seconds: float) -> None:
        """Give the emulator so long to end by itself."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)

    def last_lines(self) -> tuple[list[str], list[str]]:
        """Return the last lines of the guest's console and of the emulator's own terminal."""
        console = [line for line in [*self.console, self._rest.decode(errors="replace")] if line.strip()]
        screen = [line.strip() for line in _CONTROL.sub(b"", self._screen).decode(errors="replace").split("\n")]
        return console, [line for line in screen if line]

    @contextlib.contextmanager
    def _running(self, started: Started, folder: str) -> Iterator[subprocess.Popen[bytes]]:
        """The emulator, in a session of its own; killed at the end."""
        command = launched(started.command)
        with contextlib.ExitStack() as stack:
            if started.terminal:
                ours, theirs = pty.openpty()
                stack.callback(os.close, ours)
                os.set_blocking(ours, False)
                self._listen("terminal", ours)
                stack.callback(os.close, theirs)
                files = {"stdin": theirs, "stdout": theirs, "stderr": theirs}
            else:
                error = stack.enter_context(open(os.path.join(folder, "serial"), "r+b", buffering=0))
                files = {"stdin": subprocess.DEVNULL, "stdout": error, "stderr": error}  # type: ignore[dict-item]
            environment = os.environ | {"TERM": "xterm"} | started.environment
            process = subprocess.Popen(command, cwd=folder, start_new_session=True, env=environment, **files)  # type: ignore[call-overload]
            try:
                yield process
            finally:
                process.kill()
                process.wait()

    def _hear(self, data: bytes) -> None:
        *lines, rest = (self._rest + data).split(b"\n")
        self._rest = rest[:_LINE]
        for line in lines:
            said = klog.stripped(line[:_LINE].decode("utf-8", "replace"))
            self.console.append(said)
            self.dying = self.dying or klog.death(said)

    def _watch_display(self) -> None:
        """Drain the terminal that the emulator opens for its display: nobody else reads it, and the emulator blocks if it is
        full.

        A Bochs with a debugger has one beside its own terminal, which is the debugger's.
        """
        found = _DISPLAY.search(self._screen)
        if found and not self._shown:
            self._shown = True
            with contextlib.suppress(OSError):
                fd = os.open(found[1], os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
                self._stack.callback(os.close, fd)
                self._listen("display", fd)


def _how(status: int, name: str) -> str:
    return f"{name} was killed by {signal.Signals(-status).name}" if status < 0 else f"{name} exited with status {status}"
