# SPDX-License-Identifier: GPL-2.0-only
"""A VMM or an emulator with the observer in it: started, watched, reset from outside, saved and restored."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from kvmtest.lab.cache import workspace
from kvmtest.lab.launch import launched
from kvmtest.observer import monitor
from kvmtest.observer.image import build
from kvmtest.observer.templates import Files, Machine, VmmError, completed, kind

__all__ = ("Seen", "run")

#: Seconds between two looks at the log.
_POLL = 0.05
#: Far more bytes than an observer prints in all its boots, and so often the longest silence it may take for that.
_MOST, _LONGEST = 64 << 20, 60
#: Seconds for a program to tell its version, and so many bytes of that.
_TELLS_S, _SAID = 20.0, 1 << 16
_BEGIN = re.compile(rb"KVMTEST-OBSERVER \S+ \S+ boot ")
_SEND, _END = re.compile(rb"^send (\S+)\ncrc [0-9a-f]+\n", re.MULTILINE), re.compile(rb"^end\ncrc [0-9a-f]+\n", re.MULTILINE)


class Seen(NamedTuple):
    """The log, True if it came to its end, the version of what printed it, and what that said on standard error."""

    log: bytes
    ended: bool
    version: str
    errors: str


def run(machine: Machine, say: Callable[[str], None]) -> Seen:
    """Start the machine, wait until the observer has ended or says nothing any more, and stop it. Raises VmmError, ImageError."""
    which, methods = kind(machine.command), machine.options.methods
    if "restore" in methods and which != "qemu-system":
        raise VmmError("restore needs QEMU: kvmtest saves a machine through QEMU's monitor only")
    with workspace(tempfile.gettempdir(), "kvmtest-vmm-") as folder:
        image, log, qmp, state = (os.path.join(folder, name) for name in ("image", "log", "qmp", "state"))
        files = Files(image, log, qmp, state, folder)
        with open(files.image, "wb") as file:
            file.write(build(machine.form, machine.options))
        captured = which == "firecracker" or which == "other" and not any("{log}" in word for word in machine.command)
        with _Running(machine, files, which == "bochs", captured) as running:
            if "wait" in methods and which != "qemu-system":
                say("nothing resets this VMM from outside: do it when the observer waits")
            asked = {b"wait": running.reset, b"restore": running.restore} if which == "qemu-system" else {}
            ended = _watch(running, files.log, machine, asked, say)
        with open(os.path.join(folder, "errors"), encoding="utf-8", errors="replace") as text:
            return Seen(_read(files.log), ended, _version(machine.command[0]), text.read(_MOST).strip())


class _Terminal:
    """A terminal whose screen nobody looks at."""

    def __init__(self) -> None:
        self._master, self.slave = os.openpty()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        # EIO once nobody has the other end open.
        with contextlib.suppress(OSError):
            while os.read(self._master, 1 << 16):
                pass

    def close(self) -> None:
        """After the program has ended."""
        os.close(self.slave)
        self._reader.join()
        os.close(self._master)


class _Running:
    """A VMM's process, and, after each time that its machine was saved and restored, the one after it."""

    def __init__(self, machine: Machine, files: Files, on_terminal: bool, captured: bool) -> None:
        self._machine, self._files = machine, files
        self._restored = 0
        # Bochs' only display that needs none is a terminal.
        self._terminal = _Terminal() if on_terminal else None
        self._out = files.log if captured else os.path.join(files.folder, "out")

    def __enter__(self) -> _Running:
        try:
            self._start()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()
        self._close()

    def _close(self) -> None:
        if self._terminal:
            self._terminal.close()

    def _start(self) -> None:
        command = completed(self._machine, self._files, self._restored)
        folder = self._files.folder
        with open(self._out, "wb") as out, open(os.path.join(folder, "errors"), "ab") as err:
            screen = self._terminal.slave if self._terminal else out
            keys = self._terminal.slave if self._terminal else subprocess.DEVNULL
            if not shutil.which(os.path.join(folder, command[0]) if "/" in command[0] else command[0]):
                raise VmmError(f"cannot run {command[0]}: there is no such program")
            self._process = subprocess.Popen(
                launched(command), stdin=keys, stdout=screen, stderr=err, start_new_session=True, cwd=folder
            )

    def _stop(self) -> None:
        # The whole session: a script may have started the VMM.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    @property
    def over(self) -> bool:
        """True if it has ended."""
        return self._process.poll() is not None

    def reset(self) -> None:
        """Reset the machine from outside. Raises MonitorError."""
        monitor.system_reset(self._files.monitor)

    def restore(self) -> None:
        """Save the machine, and let it go on in another process. Raises MonitorError."""
        monitor.save(self._files.monitor, self._files.state)
        self._stop()
        os.unlink(self._files.monitor)
        self._restored += 1
        self._start()


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(_MOST)
    except FileNotFoundError:
        return b""


def _watch(
    running: _Running, path: str, machine: Machine, asked: dict[bytes, Callable[[], None]], say: Callable[[str], None]
) -> bool:
    """Wait for the end of the log or the process, or for silence; do for the observer what it has ``asked`` for."""
    begun = last = time.monotonic()
    seen = answered = 0
    while True:
        over = running.over
        data = _read(path).replace(b"\r", b"")
        if _END.search(data):
            return True
        if len(data) != seen:
            seen, last = len(data), time.monotonic()
        if len(_BEGIN.findall(data)) > len(machine.options.methods) + 1:
            # It begins anew and anew, as after a triple fault that nobody asked for.
            return False
        sent = [found[1] for found in _SEND.finditer(data)]
        for method in sent[answered:]:
            answered += 1
            if answer := asked.get(method):
                # The image halts a moment after its last line.
                time.sleep(_POLL)
                try:
                    answer()
                except monitor.MonitorError as error:
                    say(str(error))
                last = time.monotonic()
        now = time.monotonic()
        if over or now - last > machine.timeout_s or now - begun > _LONGEST * machine.timeout_s or len(data) >= _MOST:
            return False
        time.sleep(_POLL)


def _version(program: str) -> str:
    """The first line of what a program says of its version."""
    option = "--help" if os.path.basename(program).startswith("bochs") else "--version"
    command = [program, option]
    try:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
        )
    except OSError:
        return os.path.basename(program)
    assert process.stdout
    # The whole session: what a script has started keeps the pipe open, too.
    over = threading.Timer(_TELLS_S, os.killpg, (process.pid, signal.SIGKILL))
    over.start()
    with process.stdout:
        said = process.stdout.read(_SAID).decode(errors="replace")
    over.cancel()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    found = re.search(r"(QEMU|Bochs x86) (?:emulator version|Emulator) (\S+)", said)
    return f"{found[1].split()[0]} {found[2]}" if found else said.strip().partition("\n")[0][:60] or os.path.basename(program)
