# SPDX-License-Identifier: GPL-2.0-only
"""The numbers of guests/stress.S, by its names."""

from __future__ import annotations

from kvmtest.guests import PAGE, load, symbol

__all__ = ("NAME", "page")

NAME = "stress"


def __getattr__(name: str) -> int:
    return symbol(NAME, name)


def page() -> bytes:
    """The code for the page of any SIPI vector."""
    return load(NAME)[:PAGE]
