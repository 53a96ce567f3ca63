# SPDX-License-Identifier: GPL-2.0-only
"""struct kvm_cpuid2 and Python lists."""

from __future__ import annotations

import errno
from collections.abc import Iterable
from ctypes import Array, c_uint32
from functools import lru_cache

from kvmtest.x86.cpuid import CpuidEntry

from .check import unsigned
from .error import KvmError
from .ioctl import ioctl

__all__ = ["CpuidEntry", "pack_cpuid", "read_cpuid"]


def pack_cpuid(entries: Iterable[CpuidEntry]) -> Array[c_uint32]:
    """A struct kvm_cpuid2 with these leaves, as 32-bit words."""
    contents = _contents(tuple(entries))
    return (c_uint32 * (len(contents) // 4)).from_buffer_copy(contents)


@lru_cache(maxsize=64)  # most vCPUs get the leaves of an earlier one
def _contents(entries: tuple[CpuidEntry, ...]) -> bytes:
    words = [len(entries), 0]
    for entry in entries:
        unsigned(32, **{f"cpuid {name}": value for name, value in entry._asdict().items()})
        words += (*entry, 0, 0, 0)
    return bytes((c_uint32 * len(words))(*words))


def read_cpuid(fd: int, request: int, what: str) -> list[CpuidEntry]:
    """The leaves that an ioctl with a struct kvm_cpuid2 gives; asked again with more room on E2BIG. Raises KvmError."""
    count = 128
    while True:
        buffer = (c_uint32 * (2 + 10 * count))(count)
        try:
            ioctl(fd, request, buffer, what)
        except KvmError as error:
            if error.errno != errno.E2BIG or count >= 1 << 16:
                raise
            count *= 2
        else:
            words = buffer[:]
            return [CpuidEntry(*words[at : at + 7]) for at in range(2, 2 + 10 * words[0], 10)]
