# SPDX-License-Identifier: GPL-2.0-only
"""struct kvm_msrs and Python dictionaries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ctypes import byref, c_uint64

from ..uapi.ioctls import KVM_GET_MSRS, KVM_SET_MSRS
from .check import unsigned
from .ioctl import ioctl

__all__ = ["read_msrs", "write_msrs"]

# KVM accepts fewer than MAX_IO_MSRS (256) at a time. The structure is read and written as 64-bit words: `nmsrs` with its
# padding, then for each MSR `index` with its padding, and `data`.
_MOST = 255


def read_msrs(fd: int, indices: Sequence[int], what: str) -> dict[int, int]:
    """KVM_GET_MSRS of any number of MSRs; those that KVM refuses are left out. Raises KvmError."""
    for index in indices:
        unsigned(32, index=index)
    values: dict[int, int] = {}
    count = len(indices)
    buffer = (c_uint64 * (1 + 2 * count))()
    buffer[1::2] = list(indices)
    at = 0
    while at < count:
        # The header lies right before the next MSR, over the data of one that has been read or refused: hundreds may be refused.
        asked = min(_MOST, count - at)
        buffer[2 * at] = asked
        got = ioctl(fd, KVM_GET_MSRS, byref(buffer, 16 * at), what)
        values.update(zip(indices[at : at + got], buffer[2 * at + 2 : 2 * (at + got) + 2 : 2], strict=True))
        at += got + (got < asked)
    return values


def write_msrs(fd: int, values: Mapping[int, int], what: str) -> int:
    """KVM_SET_MSRS of any number of MSRs, in order; stops at the first that KVM refuses.

    Returns how many were set. Raises KvmError.
    """
    for index, value in values.items():
        unsigned(32, index=index)
        unsigned(64, **{f"MSR {index:#x}": value})
    items = list(values.items())
    done = 0
    while done < len(items):
        part = items[done : done + _MOST]
        words = [len(part)]
        for item in part:
            words += item
        count = ioctl(fd, KVM_SET_MSRS, (c_uint64 * len(words))(*words), what)
        done += count
        if count < len(part):
            break
    return done
