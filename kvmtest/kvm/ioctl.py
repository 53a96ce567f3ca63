# SPDX-License-Identifier: GPL-2.0-only
"""The one place that calls ioctl(2).

For a hot path: `ioctl(vcpu.fd, KVM_GET_REGS, byref(regs))`, with the constants of kvmtest.uapi.kvm.
"""

from __future__ import annotations

import ctypes
import errno
from typing import Any

from ..uapi.ioctls import KVM_RUN
from .error import KvmError

__all__ = ["INTERRUPTED", "get_errno", "ioctl", "libc", "raw_ioctl"]

#: So often in a row an ioctl may be interrupted: no signals come like that, and an ioctl that never gets through has an end.
INTERRUPTED = 1000

libc = ctypes.CDLL(None, use_errno=True)

#: ioctl(fd, request, pointer or integer) -> int; -1 on failure, with the reason in get_errno(). Releases the GIL.
raw_ioctl = libc.ioctl
raw_ioctl.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p)
raw_ioctl.restype = ctypes.c_int

get_errno = ctypes.get_errno


def ioctl(fd: int, request: int, arg: Any = None, what: str = "") -> int:
    """Call ioctl(2) and return its result, which is not negative.

    `arg` is byref() of a structure, a ctypes array, an address, or an integer for an ioctl without a structure; `what`
    goes into the error. Tried again on EINTR, INTERRUPTED times and KVM_RUN excepted. Raises KvmError.
    """
    result: int = raw_ioctl(fd, request, arg)
    left = INTERRUPTED
    while result < 0:
        error, left = get_errno(), left - 1
        if error != errno.EINTR or request == KVM_RUN or not left:
            raise KvmError(error, request, what)
        result = raw_ioctl(fd, request, arg)
    return result
