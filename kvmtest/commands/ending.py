# SPDX-License-Identifier: GPL-2.0-only
"""The end of a command: the one place that turns an exception into an exit status and a line."""

from __future__ import annotations

import errno
import os
import traceback
from typing import NamedTuple

from kvmtest.commands.common import INTERRUPTED, OK, UNTESTABLE, USAGE, Failed
from kvmtest.kvm.error import KvmError

__all__ = ("DEBUG", "INTERNAL", "Ending", "debugged", "of")

#: An unforeseen error: kvmtest's own fault, not a verdict on a KVM. EX_SOFTWARE of <sysexits.h>.
INTERNAL = 70
#: Not empty in the environment: show tracebacks.
DEBUG = "KVMTEST_DEBUG"
#: Errors of a file system that is full or broken.
_CANNOT_WRITE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF, errno.EROFS)
#: Errors of a system that has run out of a resource.
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN)
_LIMIT = "a limit of this process, as ulimit shows them, or of this machine"
_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


class Ending(NamedTuple):
    """The exit status, and the line for standard error, or none."""

    status: int
    line: str = ""


def of(error: BaseException, output: str | None = None) -> Ending:
    """Return the end of a command that raised ``error``; ``output`` is the file that it writes."""
    if isinstance(error, Failed):
        return Ending(error.status, str(error))
    from kvmtest.model.select import SelectorError

    if isinstance(error, SelectorError):
        return Ending(USAGE, str(error))
    if isinstance(error, KeyboardInterrupt):
        return Ending(INTERRUPTED, "interrupted")
    if isinstance(error, BrokenPipeError):
        return Ending(OK)
    if isinstance(error, MemoryError) or isinstance(error, RuntimeError) and "start new thread" in str(error):
        return Ending(UNTESTABLE, f"out of memory, or of threads: {_LIMIT}")
    if isinstance(error, OSError):
        return _of_system(error, output)
    return Ending(INTERNAL, f"{_said(error)}; this is a fault of kvmtest itself: please report it; {DEBUG}=1 shows more")


def _of_system(error: OSError, output: str | None) -> Ending:
    said = error.strerror or str(error)
    if error.errno in _EXHAUSTED:
        return Ending(UNTESTABLE, f"{error if isinstance(error, KvmError) else said}: {_LIMIT}")
    if error.filename is not None:
        return Ending(USAGE, f"{os.fsdecode(error.filename)}: {said}" if isinstance(error.filename, str | bytes) else said)
    if error.errno in _CANNOT_WRITE:
        said = "it is closed" if error.errno == errno.EBADF else said
        return Ending(USAGE, f"cannot write {output or 'standard output'}: {said}")
    return Ending(UNTESTABLE, str(error))


def _said(error: BaseException) -> str:
    """Return the exception in a line, with its place in this package."""
    where = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.startswith(_PACKAGE)]
    place = f" ({os.path.relpath(where[-1].filename, os.path.dirname(_PACKAGE))}:{where[-1].lineno})" if where else ""
    first = str(error).partition("\n")[0][:200]
    return f"{type(error).__name__}{f': {first}' if first else ''}{place}"


def debugged(error: BaseException) -> str:
    """Return the traceback of ``error``, if requested."""
    return "".join(traceback.format_exception(error)) if os.environ.get(DEBUG) else ""
