# SPDX-License-Identifier: GPL-2.0-only
"""The folder that keeps kernels and initramfs. What is in it is whole: everything is made beside its place and then renamed."""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from kvmtest.lab.error import LabError

__all__ = ("file", "folder", "home", "keep", "locked", "scratch", "trim", "workspace")

#: The number of files of one kind, and of folders given to `keep`, that are kept.
_KEPT = 4
_LOCK = ".lock"


def home() -> str:
    """The cache's folder: ``$XDG_CACHE_HOME/kvmtest`` or ``~/.cache/kvmtest``."""
    return os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "kvmtest")


@contextmanager
def workspace(parent: str, prefix: str) -> Iterator[str]:
    """A new folder in ``parent``, removed at the end. Raises OSError.

    Folders of that prefix whose process was killed go, too: nobody holds their lock any more. In a folder that others may write
    to, what is theirs is left alone, and so is what is not a file: to open a FIFO may take for ever.
    """
    for entry in os.scandir(parent):
        if entry.name.startswith(prefix):
            with suppress(OSError):
                _remove_left(entry.path)
    made, held = _locked(parent, prefix)
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)
        os.close(held)


def _remove_left(path: str) -> None:
    """Remove the folder ``path``, if it is ours and nobody holds its lock. Raises OSError."""
    if not _is_ours(os.lstat(path)) or not stat.S_ISDIR(os.lstat(path).st_mode):
        return
    lock = os.open(os.path.join(path, _LOCK), os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        found = os.fstat(lock)
        if _is_ours(found) and stat.S_ISREG(found.st_mode):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path, ignore_errors=True)
    finally:
        os.close(lock)


def _is_ours(found: os.stat_result) -> bool:
    return found.st_uid == os.geteuid()


def _locked(parent: str, prefix: str) -> tuple[str, int]:
    """A new folder, and its lock. Before it is locked somebody else may find it so, and remove it."""
    while True:
        made = tempfile.mkdtemp(prefix=prefix, dir=parent)
        path = os.path.join(made, _LOCK)
        with suppress(FileNotFoundError):
            lock = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(lock, fcntl.LOCK_EX)
            if os.path.exists(path):
                return made, lock
            os.close(lock)


@contextmanager
def locked(name: str, say: Callable[[str], None] = lambda line: None) -> Iterator[None]:
    """Within it no other process is within it for the same ``name``; ``say`` is called if it waits for one.

    Raises LabError where the cache cannot be written to.
    """
    path = os.path.join(home(), f"{name}{_LOCK}")
    try:
        os.makedirs(home(), exist_ok=True)
        # As it is made it is a file; whatever else somebody put there is not waited for.
        lock = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC, 0o600), "wb")
    except OSError as error:
        raise LabError(f"cannot write to {home()}: {error.strerror}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for another kvmtest, which holds {path}")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def scratch(kind: str) -> Iterator[str]:
    """A folder beside the kept ones, removed at the end. Raises LabError where it cannot be written to."""
    parent = os.path.join(home(), kind)
    try:
        os.makedirs(parent, exist_ok=True)
        with workspace(parent, ".new-") as made:
            yield made
    except OSError as error:
        raise LabError(f"cannot write to {parent}: {error.strerror or error}") from error


def file(kind: str, name: str, make: Callable[[], bytes]) -> str:
    """The path of the cached file ``name``; ``make`` gives its contents where it is not there. The oldest ones go."""
    parent = os.path.join(home(), kind)
    path = os.path.join(parent, name)
    # An empty one is what a file system may leave of a new file where the power fails.
    if os.path.exists(path) and os.path.getsize(path):
        os.utime(path)
        return path
    with scratch(kind) as work:
        fresh = os.path.join(work, name)
        with open(fresh, "wb") as out:
            out.write(make())
        os.replace(fresh, path)
    for old in _oldest(entry for entry in os.scandir(parent) if entry.is_file()):
        os.unlink(old)
    return path


def folder(kind: str, name: str, fill: Callable[[str], None]) -> str:
    """The path of the cached folder ``name``; ``fill`` is given a new one to fill where it is not there."""
    path = os.path.join(home(), kind, name)
    if not os.path.isdir(path):
        with scratch(kind) as work:
            fresh = os.path.join(work, "whole")
            os.mkdir(fresh)
            fill(fresh)
            _place(fresh, path)
    return path


def keep(kind: str, name: str, fresh: str, number: int = _KEPT) -> None:
    """Keep the folder ``fresh``, of `scratch`, as ``name``. But for ``number`` of the kind the oldest ones go."""
    _place(fresh, os.path.join(home(), kind, name))
    trim(kind, number)


def trim(kind: str, number: int) -> None:
    """Remove all but ``number`` of the folders of ``kind``, the oldest ones."""
    entries = os.scandir(os.path.join(home(), kind))
    for old in _oldest((entry for entry in entries if not entry.name.startswith(".")), number):
        shutil.rmtree(old, ignore_errors=True)


def _place(fresh: str, path: str) -> None:
    try:
        os.rename(fresh, path)
    except OSError:
        if not os.path.isdir(path):  # somebody else was faster: theirs is as good
            raise


def _oldest(entries: Iterator[os.DirEntry[str]], number: int = _KEPT) -> list[str]:
    aged = []
    for entry in entries:
        with suppress(FileNotFoundError):  # gone by somebody else
            aged.append((entry.stat().st_mtime, entry.path))
    return [path for _, path in sorted(aged)[:-number]]
