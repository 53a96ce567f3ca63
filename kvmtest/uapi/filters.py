# SPDX-License-Identifier: GPL-2.0-only
"""Structures of filters of MSRs."""

from __future__ import annotations

from ctypes import Structure, c_uint32, c_void_p

from .consts import KVM_MSR_FILTER_MAX_RANGES


class kvm_msr_filter_range(Structure):
    """`nmsrs` from `base` on, with a bit each in `bitmap`: 1 allows the accesses of `flags`."""

    _fields_ = (("flags", c_uint32), ("nmsrs", c_uint32), ("base", c_uint32), ("bitmap", c_void_p))


class kvm_msr_filter(Structure):
    """For KVM_X86_SET_MSR_FILTER."""

    _fields_ = (("flags", c_uint32), ("ranges", kvm_msr_filter_range * KVM_MSR_FILTER_MAX_RANGES))
