# SPDX-License-Identifier: GPL-2.0-only
"""Checks before an ioctl: values that ctypes would truncate, and buffers that KVM would read beyond, are refused."""

from __future__ import annotations

from ctypes import Structure

__all__ = ["structure", "unsigned"]


def unsigned(bits: int, **fields: object) -> None:
    """Raise ValueError, with the field's name, where one of `fields` is not an integer from 0 that `bits` bits hold."""
    for name, value in fields.items():
        if not isinstance(value, int):
            raise ValueError(f"{name} {value!r} is not an integer")
        if not 0 <= value < 1 << bits:
            raise ValueError(f"{name} {value:#x} does not fit in {bits} bits")


def structure(kind: type[Structure], **fields: object) -> None:
    """Raise ValueError, with the field's name, where one of `fields` is no `kind`: KVM reads as many bytes as that has."""
    for name, value in fields.items():
        if not isinstance(value, kind):
            raise ValueError(f"{name} is a {type(value).__name__}, not a struct {kind.__name__}")
