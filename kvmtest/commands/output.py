# SPDX-License-Identifier: GPL-2.0-only
"""The output of commands: standard output, or a file that is complete or not there."""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import stat
import sys
import time
from collections.abc import Iterator
from typing import TextIO, cast

from kvmtest.commands.common import USAGE, Failed

__all__ = ("Output", "forget_output", "opened")


class _Gzip(io.TextIOWrapper):
    """Text that is gzipped as it is written. A flush reaches the file at most once a second, as each costs some bytes."""

    def __init__(self, path: str, mode: str) -> None:
        self._flushed = time.monotonic()
        super().__init__(gzip.GzipFile(path, f"{mode}b", compresslevel=6), encoding="utf-8", write_through=True)

    def flush(self) -> None:
        """Write what there is to the file, if the last time is a second ago."""
        now = time.monotonic()
        if now - getattr(self, "_flushed", now) >= 1:
            self._flushed = now
            super().flush()


class Output:
    """Text on its way to ``path``, standard output for None; gzipped where it ends in .gz. Raises Failed.

    A regular file gets its name by `keep`; until then what was there before stays. Written `by_line` it is written in its
    place, of which each whole line counts. So is what is not a regular file, and one in a folder that cannot be written to.
    """

    def __init__(self, path: str | None, by_line: bool = False) -> None:
        self.name = path or "standard output"
        self._to = self._fresh = ""
        if path is None:
            if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal that is not UTF-8 gets \xNN, no traceback
                sys.stdout.reconfigure(errors="backslashreplace")
            self.text: TextIO = sys.stdout
            return
        try:
            self.text = self._beside(path) if not by_line and _is_replaceable(path) else _open(path, path, "w")
        except OSError as error:
            raise Failed(f"cannot write {path}: {error.strerror}", USAGE) from error

    def _beside(self, path: str) -> TextIO:
        to = os.path.realpath(path)
        # A name that nobody can foresee, in a folder that others may write to, too.
        fresh = os.path.join(os.path.dirname(to), f".{os.path.basename(to)[:200]}.{os.urandom(4).hex()}.new")
        try:
            made = _open(path, fresh, "x")
        except PermissionError:
            return _open(path, path, "w")
        self._to, self._fresh = to, fresh
        with contextlib.suppress(OSError):  # the rights of the file that it replaces
            os.chmod(fresh, stat.S_IMODE(os.stat(to).st_mode))
        return made

    def keep(self) -> None:
        """All of it was written. Raises OSError."""
        if self.text is sys.stdout:
            self.text.flush()
            return
        try:
            if self._fresh and not isinstance(self.text, _Gzip):
                self.text.flush()
                os.fsync(self.text.fileno())
            self.text.close()
            if self._fresh:
                os.replace(self._fresh, self._to)
                self._fresh = ""
        finally:
            self.drop()

    def drop(self) -> None:
        """Close it; what has no name yet is gone."""
        if self.text is not sys.stdout:
            with contextlib.suppress(OSError, ValueError):  # said already, when it was written
                self.text.close()
        if self._fresh:
            with contextlib.suppress(OSError):
                os.unlink(self._fresh)
            self._fresh = ""


def _is_replaceable(path: str) -> bool:
    """Return True if there is no file, or one that can be replaced: not a device, a pipe, or a file with several names."""
    if os.path.abspath(path).startswith(("/dev/std", "/dev/fd/", "/proc/")):  # /dev/stdout: somebody has the file open already
        return False
    try:
        there = os.stat(path)
    except OSError:
        return True
    return stat.S_ISREG(there.st_mode) and there.st_nlink == 1 and os.access(path, os.W_OK)


def _open(name: str, path: str, mode: str) -> TextIO:
    if name.endswith(".gz"):
        return _Gzip(path, mode)
    return cast(TextIO, open(path, mode, encoding="utf-8"))


@contextlib.contextmanager
def opened(path: str | None) -> Iterator[TextIO]:
    """Yield the stream for ``path``, standard output for None; the file is kept at the end. Raises Failed."""
    to = Output(path)
    try:
        yield to.text
        to.keep()
    except OSError as error:
        if isinstance(error, BrokenPipeError) or error.filename is not None:
            raise
        raise Failed(f"cannot write {to.name}: {error.strerror}", USAGE) from error
    finally:
        to.drop()


def forget_output() -> None:
    """Drop the rest of standard output, after its reader went away (| head) or its disk was full: no traceback
    now, and none of the interpreter's own flush at exit.
    """
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
