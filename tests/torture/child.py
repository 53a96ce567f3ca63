# SPDX-License-Identifier: GPL-2.0-only
"""kvmtest in a process of its own, to which things are done: forked from this one, where all is imported, or started anew."""

from __future__ import annotations

import contextlib
import os
import resource
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

__all__ = ("Child", "Ended", "start")

#: Seconds until a process that was to end counts as one that hangs: far more than any of them takes on a busy machine.
LONGEST_S = 180.0
_ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Ended(NamedTuple):
    """A finished command: its status (negative for a signal), its output, and what it left."""

    words: Sequence[str]
    status: int
    out: bytes
    err: bytes
    hung: bool
    left: list[str]


class Child:
    """A running kvmtest, in a session of its own."""

    def __init__(self, words: Sequence[str], folder: Path, pid: int, out: int | None, err: int | None) -> None:
        self.words, self.pid = words, pid
        self._mark = f"TMPDIR={folder / 'tmp'}".encode()
        self._fds = [fd for fd in (out, err) if fd is not None]
        self._out, self._err = out, err
        self._data: dict[int, bytearray] = {fd: bytearray() for fd in self._fds}
        self._status: int | None = None
        self.began = time.monotonic()

    def signal(self, number: int) -> None:
        """Send a signal, if it still runs."""
        if self._status is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def read(self, seconds: float) -> None:
        """Take what it writes for so long, or until it is over."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0 and self.running():
            if not self._take(min(left, 0.05)) and not self._fds:
                time.sleep(min(left, 0.002))

    def _take(self, seconds: float) -> bool:
        ready = select.select(self._fds, [], [], seconds)[0] if self._fds else []
        for fd in ready:
            try:
                data = os.read(fd, 1 << 16)
            except OSError:  # the other end of a terminal is closed
                data = b""
            if not data:
                self._fds.remove(fd)
            self._data[fd] += data
        return bool(ready)

    def stop_reading(self) -> None:
        """Close what reads its standard output."""
        if self._out in self._fds:
            assert self._out is not None
            self._fds.remove(self._out)
            os.close(self._out)
            self._out = None

    def running(self) -> bool:
        """Return True while it runs."""
        if self._status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._status = os.waitstatus_to_exitcode(status)
        return self._status is None

    def end(self) -> Ended:
        """Wait for its end."""
        hung = False
        self.read(LONGEST_S)
        if self.running():
            hung = True
            os.killpg(self.pid, signal.SIGKILL)
            self._status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        while self._fds and self._take(0.2):
            pass
        streams = [bytes(self._data[fd]) if fd in self._data else b"" for fd in (self._out, self._err)]
        for fd in (self._out, self._err):
            if fd is not None:
                os.close(fd)
        assert self._status is not None
        return Ended(self.words, self._status, streams[0], streams[1], hung, self._left())

    def _left(self) -> list[str]:
        """The processes of its session, and others that it started, that are still there a moment later; they are killed."""
        for _ in range(50):
            found = [pid for pid in filter(str.isdecimal, os.listdir("/proc")) if self._is_ours(pid)]
            if not found:
                return []
            time.sleep(0.05)
        names = []
        for pid in found:
            with contextlib.suppress(OSError):
                names.append(f"process {pid}: {Path(f'/proc/{pid}/cmdline').read_bytes()[:80]!r}")
                os.kill(int(pid), signal.SIGKILL)
        return names

    def _is_ours(self, pid: str) -> bool:
        session = _session(pid)
        try:
            # An emulator has a session of its own, and its parent is gone.
            return session == self.pid or session != 0 and self._mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        except OSError:
            return False


def _session(pid: str) -> int:
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return 0
    return 0 if fields[0] == b"Z" else int(fields[3])


def _leaks(before: set[str]) -> str:
    """Describe the descriptors that are open now and were not ``before``."""
    opened = set(os.listdir("/proc/self/fd")) - before
    names = []
    for fd in opened:
        with contextlib.suppress(OSError):
            names.append(os.readlink(f"/proc/self/fd/{fd}"))
    return ", ".join(name for name in names if name not in ("/proc/self/fd", os.devnull) and not name.startswith("/proc/"))


def start(
    words: Sequence[str],
    folder: Path,
    *,
    closed: Sequence[int] = (),
    limits: Sequence[tuple[int, int]] = (),
    environment: dict[str, str] | None = None,
    terminal: bool = False,
    anew: bool = False,
    prepare: Callable[[], None] = lambda: None,
) -> Child:
    """Start ``kvmtest WORDS`` in ``folder``, with these standard streams ``closed``, within ``limits``.

    ``terminal`` is whether standard error is one, which shows the progress. ``anew`` starts an interpreter; else it is a fork, in
    which ``prepare`` is called.
    """
    out, to_out = os.pipe()
    err, to_err = os.openpty() if terminal else os.pipe()
    more = {"TMPDIR": str(folder / "tmp"), "TERM": "xterm", "KVMTEST_DEBUG": ""} | (environment or {})
    (folder / "tmp").mkdir(exist_ok=True)

    def become() -> None:
        os.setsid()
        for number in _ENDS:
            # Where this program is in the background of a shell, SIGINT is ignored.
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT and not anew else signal.SIG_DFL)
        os.chdir(folder)
        empty = os.open(os.devnull, os.O_RDONLY)
        for number, fd in enumerate((empty, to_out, to_err)):
            os.dup2(fd, number)
        os.closerange(3, 256)
        for number in closed:
            os.close(number)
        for kind, value in limits:
            hard = resource.getrlimit(kind)[1]
            resource.setrlimit(kind, (value if hard < 0 else min(value, hard), hard))

    if anew:
        command = [sys.executable, "-m", "kvmtest", *words]
        process = subprocess.Popen(command, env=os.environ | more, preexec_fn=become, close_fds=False)
        # Waited for here.
        process.returncode = 0
        pid = process.pid
    else:
        sys.stdout.flush()
        sys.stderr.flush()
        # Those that come before kvmtest begins are kept for it.
        signal.pthread_sigmask(signal.SIG_BLOCK, _ENDS)
        pid = os.fork()
        if not pid:
            _be(words, become, more, prepare)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDS)
    os.close(to_out)
    os.close(to_err)
    return Child(words, folder, pid, out, err)


def _be(words: Sequence[str], become: Callable[[], None], more: dict[str, str], prepare: Callable[[], None]) -> None:
    """Be kvmtest, in a fork. Does not return."""
    status = 1
    try:
        os.environ.update(more)
        tempfile.tempdir = None  # that of the process that forked this one is another one
        become()
        streams = []
        for number, mode in enumerate(("r", "w", "w")):
            try:
                os.fstat(number)
                errors = "backslashreplace" if number == 2 else None
                streams.append(open(number, mode, encoding="utf-8", closefd=False, errors=errors))
            except OSError:
                streams.append(None)
        sys.stdin, sys.stdout, sys.stderr = streams
        sys.argv = ["kvmtest", *words]
        prepare()
        from kvmtest import cli

        before = set(os.listdir("/proc/self/fd"))
        try:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDS)
        except KeyboardInterrupt:  # one that waited: nothing of kvmtest has run yet
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)
        try:
            status = cli.main()
        except SystemExit as done:
            status = done.code if isinstance(done.code, int) else 0
        signal.pthread_sigmask(signal.SIG_BLOCK, _ENDS)
        if sys.stdout:
            with contextlib.suppress(OSError, ValueError):
                sys.stdout.flush()
        if leaks := _leaks(before):
            os.write(2, f"LEAK {leaks}\n".encode())
    except BaseException:
        import traceback

        with contextlib.suppress(BaseException):
            os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(status)
