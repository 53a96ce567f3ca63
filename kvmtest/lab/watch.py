# SPDX-License-Identifier: GPL-2.0-only
"""An emulator's process, and what comes out of it: by the parallel port, on the guest's console and on its own terminal."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import selectors
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator

from kvmtest.lab import klog
from kvmtest.lab.emulator import Started
from kvmtest.lab.limits import Died, Spent

__all__ = ("Watch",)

_TICK_S = 0.5
_CHUNK = 1 << 16
_PAUSE_S = 0.005
_CONSOLE_LINES = 200
#: Bytes of the emulator's own terminal that are kept.
_SCREEN = 4096
_DISPLAY = re.compile(rb'connected to screen "(/dev/pts/\d+)"')
#: What a program writes to a terminal besides text (ECMA-48 control sequences, character sets).
_CONTROL = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*[@-~]|[()][0-9A-Za-z]|[ -/]*[0-~])|[\x00-\x09\x0b-\x1f]")
#: Dies with this program, however that ends; then becomes the emulator.
_LEASH = """import ctypes, os, sys
ctypes.CDLL(None).prctl(1, 9)
if os.getppid() == int(sys.argv[1]):
    os.execvp(sys.argv[2], sys.argv[2:])
"""


class Watch:
    """The process of the emulator ``name``, which runs within `opened`; ``console`` is the end of the guest's, line by line."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.console: deque[str] = deque(maxlen=_CONSOLE_LINES)
        self._rest = self._screen = b""
        self._display: list[int] = []

    @contextlib.contextmanager
    def opened(self, started: Started, folder: str) -> Iterator[None]:
        """The emulator, in a session of its own, which writes to the FIFOs in ``folder``; killed at the end."""
        with contextlib.ExitStack() as stack:
            self._watch = stack.enter_context(selectors.DefaultSelector())
            for fifo in ("serial", "parallel"):
                fd = os.open(os.path.join(folder, fifo), os.O_RDONLY | os.O_NONBLOCK)
                stack.callback(os.close, fd)
                self._watch.register(fd, selectors.EVENT_READ, fifo)
            stack.callback(self._close_display)
            self._process = stack.enter_context(_process(started, folder, self._watch))
            yield

    def read(self) -> Iterator[bytes]:
        """What comes through the parallel port, until there is nothing for a moment. Raises Died."""
        heard = False
        for key, _ in self._watch.select(_TICK_S):
            try:
                data = os.read(key.fd, _CHUNK)
            except BlockingIOError:
                continue
            except OSError:
                data = b""  # a terminal nobody has open any more
            if not data:
                # Before the emulator has opened it a FIFO is at its end, too.
                time.sleep(0.01) if self._process.poll() is None else self._watch.unregister(key.fd)
                continue
            heard = True
            if key.data == "parallel":
                yield data
                # The emulator writes byte by byte: let it fill the FIFO instead of being woken for each.
                time.sleep(_PAUSE_S)
            elif key.data == "serial":
                self._hear(data)
            elif key.data == "terminal":
                self._screen = (self._screen + data)[-_SCREEN:]
                self._watch_display()
        if self._process.poll() is not None and not heard:
            raise Died(_how(self._process.returncode, self._name))

    def spent(self) -> Spent:
        """What the emulator has had of this machine."""
        return Spent.by(self._process.pid)

    def wait(self, seconds: float) -> None:
        """Give the emulator so long to end by itself."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)

    def last_lines(self) -> tuple[list[str], list[str]]:
        """What the guest's console and the emulator's own terminal show."""
        console = [line for line in [*self.console, self._rest.decode(errors="replace")] if line.strip()]
        screen = [line.strip() for line in _CONTROL.sub(b"", self._screen).decode(errors="replace").split("\n")]
        return console, [line for line in screen if line]

    def _hear(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        self.console.extend(klog.stripped(line.decode("utf-8", "replace")) for line in lines)

    def _watch_display(self) -> None:
        """Take from a terminal that the emulator opens for its display what it shows there: nobody reads it, and full it blocks.

        A Bochs with a debugger has one beside its own terminal, which is the debugger's.
        """
        found = _DISPLAY.search(self._screen)
        if found and not self._display:
            with contextlib.suppress(OSError):
                fd = os.open(found[1], os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
                self._display.append(fd)
                self._watch.register(fd, selectors.EVENT_READ, "display")

    def _close_display(self) -> None:
        while self._display:
            os.close(self._display.pop())


def _how(status: int, name: str) -> str:
    return f"{name} was killed by {signal.Signals(-status).name}" if status < 0 else f"{name} exited with status {status}"


@contextlib.contextmanager
def _process(started: Started, folder: str, watch: selectors.BaseSelector) -> Iterator[subprocess.Popen[bytes]]:
    """The emulator, in a session of its own; killed at the end."""
    command = [sys.executable, "-ISc", _LEASH, str(os.getpid()), *started.command]
    with contextlib.ExitStack() as stack:
        if started.terminal:
            ours, theirs = pty.openpty()
            stack.callback(os.close, ours)
            watch.register(ours, selectors.EVENT_READ, "terminal")
            stack.callback(os.close, theirs)
            files = {"stdin": theirs, "stdout": theirs, "stderr": theirs}
        else:
            error = stack.enter_context(open(os.path.join(folder, "serial"), "r+b", buffering=0))
            files = {"stdin": subprocess.DEVNULL, "stdout": error, "stderr": error}  # type: ignore[dict-item]
        environment = os.environ | {"TERM": "xterm"}
        process = subprocess.Popen(command, cwd=folder, start_new_session=True, env=environment, **files)  # type: ignore[call-overload]
        try:
            yield process
        finally:
            process.kill()
            process.wait()
