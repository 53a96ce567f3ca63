# SPDX-License-Identifier: GPL-2.0-only
"""KVM's binary statistics (KVM API, 4.133 KVM_GET_STATS_FD)."""

from __future__ import annotations

import os
from ctypes import c_uint64, sizeof

from ..uapi.structs import kvm_stats_desc, kvm_stats_header

__all__ = ["read_stats"]


def read_stats(fd: int) -> dict[str, list[int]]:
    """Every statistic that a descriptor of KVM_GET_STATS_FD shows, by name; more than one number where it is a histogram.

    Closes ``fd``. Raises OSError.
    """
    try:
        return _read(fd)
    finally:
        os.close(fd)


def _read(fd: int) -> dict[str, list[int]]:
    header = kvm_stats_header.from_buffer_copy(os.pread(fd, sizeof(kvm_stats_header), 0))
    step = sizeof(kvm_stats_desc) + header.name_size
    raw = os.pread(fd, step * header.num_desc, header.desc_offset)
    stats: dict[str, list[int]] = {}
    for at in range(0, len(raw) - step + 1, step):
        desc = kvm_stats_desc.from_buffer_copy(raw, at)
        name = raw[at + sizeof(kvm_stats_desc) : at + step].split(b"\0", 1)[0].decode("ascii", "replace")
        data = os.pread(fd, 8 * desc.size, header.data_offset + desc.offset)
        stats[name] = list((c_uint64 * (len(data) // 8)).from_buffer_copy(data))
    return stats
