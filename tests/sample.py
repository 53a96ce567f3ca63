# SPDX-License-Identifier: GPL-2.0-only
"""The size of samples: everything, or with Hypothesis's profile ``fast`` a part as small as its number of examples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from hypothesis import settings

__all__ = ("at_most", "one_in", "some")

_Any = TypeVar("_Any")


def one_in() -> int:
    """One of so many is tried."""
    return max(1, 100 // settings().max_examples)


def some(every: Sequence[_Any]) -> Sequence[_Any]:
    """The ones of ``every`` that are tried."""
    return every[:: one_in()]


def at_most(count: int) -> int:
    """So many examples, or fewer where Hypothesis's profile says so."""
    return min(count, settings().max_examples)
