# SPDX-License-Identifier: GPL-2.0-only
"""The observer: the numbers of guests/observer, by its names."""

from __future__ import annotations

from kvmtest import guests

__all__ = ("NAME",)

NAME = "observer"


def __getattr__(name: str) -> int:
    return guests.symbol(NAME, name)
