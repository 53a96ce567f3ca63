# SPDX-License-Identifier: GPL-2.0-only
"""Errors of ioctls."""

from __future__ import annotations

import errno as _errno
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .vcpu import Vcpu

_PASSING = (_errno.EAGAIN, _errno.EINTR, _errno.EIO, _errno.ENOMEM)


def ioctl_name(request: int) -> str:
    """The header's name of an ioctl number, e.g. "KVM_GET_REGS"; "ioctl 0x..." for one that kvmtest.uapi lacks."""
    from ..uapi.names import IOCTLS

    return IOCTLS.get(request, f"ioctl {request:#x}")


class KvmError(OSError):
    """An ioctl that failed, e.g. "KVM_SET_SREGS: Invalid argument [EINVAL] (vcpu 1)".

    `errno` and `strerror` are those of OSError, `request` is the ioctl number, `ioctl` its name and `what` whom it was
    asked of, with its arguments.
    """

    def __init__(self, errno: int, request: int, what: str = "") -> None:
        super().__init__(errno, os.strerror(errno))
        self.request = request
        self.ioctl = ioctl_name(request)
        self.what = what

    @property
    def passing(self) -> bool:
        """True if KVM lacked memory or time: it says nothing of what KVM supports or accepts, and another try may succeed."""
        return self.errno in _PASSING

    @property
    def name(self) -> str:
        """The errno's name, e.g. "EINVAL"."""
        return _errno.errorcode.get(self.errno or 0, f"errno {self.errno}")

    def __str__(self) -> str:
        return f"{self.ioctl}: {self.strerror} [{self.name}]" + (f" ({self.what})" if self.what else "")

    def __reduce__(self) -> tuple[type[KvmError], tuple[int, int, str]]:
        return type(self), (self.errno or 0, self.request, self.what)


class RunTimeout(TimeoutError):
    """The guest made no exit to userspace in time; `vcpu` can still be read, and run again. `timeout_s` in seconds.

    `at` says where the vCPU is.
    """

    def __init__(self, vcpu: Vcpu, timeout_s: float, at: str = "") -> None:
        super().__init__(f"KVM_RUN: no exit within {timeout_s:g} s (vcpu {vcpu.id}{', ' + at if at else ''})")
        self.vcpu = vcpu
        self.timeout_s = timeout_s
