# SPDX-License-Identifier: GPL-2.0-only
"""Methods chosen by the type of their argument."""

from __future__ import annotations

from typing import NamedTuple

from kvmtest.model.by_type import ByType


class One(NamedTuple):
    """A kind of argument."""

    value: int


class Other(NamedTuple):
    """Another one, whose values are equal."""

    value: int


class Counts:
    """Counts by kind."""

    def __init__(self, base: int) -> None:
        self.base = base

    @ByType
    def of(self, one: object) -> int:
        """Count what is of no kind."""
        return -1

    @of.register
    def _(self, one: One) -> int:
        return self.base + one.value

    @of.register
    def _(self, one: Other) -> int:
        return self.base - one.value


def test_each_type_has_its_method_bound_to_the_instance() -> None:
    first, second = Counts(10), Counts(20)
    assert [first.of(One(1)), second.of(One(1)), first.of(Other(1))] == [11, 21, 9]


def test_what_is_registered_for_no_type_is_left_to_the_first() -> None:
    assert Counts(10).of((1,)) == -1
    assert Counts.__dict__["of"].__doc__ == "Count what is of no kind."
