# SPDX-License-Identifier: GPL-2.0-only
"""Judging a section at once: one comparison of all judged bits finds the items that may depart."""

from __future__ import annotations

from collections.abc import Sequence

from kvmtest.judge.item import Question
from kvmtest.state.layout import Field

__all__ = ("Bits",)

_BY_BITS = ("value", "masked", "unchanged")


class Bits:
    """The bits that the rules of a section's items require. ``questions`` are those of its ``fields``, in their order.

    An item of which a rule asks for something else than bits may always depart.
    """

    def __init__(self, fields: Sequence[Field], questions: Sequence[Question]) -> None:
        self._keep = self._value = self._judged = 0
        #: By the offset of each byte the number of the item, and by that its bits.
        self._owners: dict[int, int] = {}
        self._masks: dict[int, int] = {}
        self._always: list[int] = []
        #: No fewer bytes than these have all items.
        self.size = max((field.offset + field.size for field in fields), default=0)
        for number, (field, question) in enumerate(zip(fields, questions, strict=True)):
            rule = question.rule
            if question.skip or rule.kind == "undefined":
                continue
            value, all_bits = 0 if rule.value is None else rule.value, (1 << 8 * field.size) - 1
            if rule.kind not in _BY_BITS or not question.before or not isinstance(value, int) or value & ~all_bits:
                self._always.append(number)
                continue
            keep = all_bits if rule.kind == "unchanged" else rule.unchanged & all_bits
            shift = 8 * field.offset
            self._keep |= keep << shift
            self._value |= (value & ~keep) << shift
            self._judged |= (all_bits & ~rule.ignore) << shift
            self._masks[number] = all_bits << shift
            self._owners.update(dict.fromkeys(range(field.offset, field.offset + field.size), number))

    def departing(self, before: bytes, after: bytes) -> list[int]:
        """The numbers of the items that may depart, where a section was ``before`` an event and ``after`` it."""
        wanted = int.from_bytes(before, "little") & self._keep | self._value
        differ, found = (int.from_bytes(after, "little") ^ wanted) & self._judged, [*self._always]
        while differ:
            number = self._owners[(differ & -differ).bit_length() - 1 >> 3]
            found.append(number)
            differ &= ~self._masks[number]
        return found
