# SPDX-License-Identifier: GPL-2.0-only
"""Cases found by what they judge: one look at each, however many selectors there are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar

from kvmtest.model.select import Selector, parse

__all__ = ("Lookup",)

#: The beginning of ids, and the items below it.
Look = tuple[str, tuple[str, ...]]


class _Named(Protocol):
    @property
    def name(self) -> str: ...


_Case = TypeVar("_Case", bound=_Named)


class Lookup(Generic[_Case]):
    """``cases``, each with its ``looks``; ``matches`` is whether a selector matches one of them."""

    def __init__(
        self,
        cases: Sequence[_Case],
        looks: Callable[[_Case], tuple[Look, ...]],
        matches: Callable[[Selector, str, tuple[str, ...]], bool],
    ) -> None:
        self.cases = cases
        self._matches = matches
        self._names = [case.name for case in cases]
        self._by_look: dict[Look, list[int]] = {}
        for number, case in enumerate(cases):
            for look in looks(case):
                self._by_look.setdefault(look, []).append(number)

    def taken(self, selector: str) -> set[int]:
        """The numbers of the cases with a result that ``selector`` matches. Raises SelectorError."""
        found: set[int] = set()
        for one in parse(selector):
            here = {number for look, numbers in self._by_look.items() if self._matches(one, *look) for number in numbers}
            found |= {number for number in here if one.case_matches(self._names[number])}
        return found
