# SPDX-License-Identifier: GPL-2.0-only
"""The numbers of guests/vmx.S and of guests/l1.inc, by their names."""

from __future__ import annotations

from kvmtest.guests import symbol

__all__ = ("NAME",)

NAME = "vmx"


def __getattr__(name: str) -> int:
    return symbol(NAME, name)
