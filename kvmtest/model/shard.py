# SPDX-License-Identifier: GPL-2.0-only
"""A part of the work: which part is decided by its number, the number of parts, and the name of a case alone.

Several machines that run one part each run everything once, in whatever order, and need not know of each other.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

__all__ = ("MOST", "WHOLE", "Shard", "ShardError")

#: More parts than there are cases.
MOST = 10_000
_TEXT = re.compile(r"([0-9]{1,5}(?:,[0-9]{1,5})*)/([0-9]{1,5})")

T = TypeVar("T")


class ShardError(ValueError):
    """A text is no shard."""


class Shard(NamedTuple):
    """The parts ``numbers``, counted from 1, of ``of`` parts: one where a command line asks for it, several in merged results."""

    numbers: tuple[int, ...]
    of: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """The shard that ``text`` names: ``2/4``, or ``1,2/4``. Raises ShardError."""
        found = _TEXT.fullmatch(text)
        of = int(found[2]) if found else 0
        numbers = tuple(int(word) for word in found[1].split(",")) if found else ()
        if not 0 < of <= MOST or not all(0 < number <= of for number in numbers) or list(numbers) != sorted(set(numbers)):
            raise ShardError(f"{text[:80]!r} is not I/N, with I from 1 to N, and N at most {MOST}")
        return cls(numbers, of)

    def __str__(self) -> str:
        return f"{','.join(map(str, self.numbers))}/{self.of}"

    def split(self, count: int) -> list[Shard]:
        """Return ``count`` shards that have together what this one has."""
        return [Shard(tuple(number + self.of * part for number in self.numbers), self.of * count) for part in range(count)]

    def has(self, name: str) -> bool:
        """Return True if the case with this ``name`` is in this part."""
        digest = hashlib.sha256(name.encode()).digest()
        return int.from_bytes(digest[:8], "big") % self.of + 1 in self.numbers

    def counts(self, number: int) -> bool:
        """Return True if this part has the thing with that ``number``, of things that are counted from 1 without an end."""
        return (number - 1) % self.of + 1 in self.numbers

    def deal(self, things: Sequence[T]) -> list[tuple[T, Shard | None]]:
        """The ``things`` of this part, each whole (None); where there are more parts than things, each with the part of it.

        This part has one number.
        """
        (number,), count = self.numbers, len(things)
        if self.of <= count:
            return [(thing, None) for place, thing in enumerate(things, 1) if self.counts(place)]
        share, place = divmod(number - 1, count)
        parts = len(range(place, self.of, count))
        return [(things[place], Shard((share + 1,), parts) if parts > 1 else None)]


#: All of the work.
WHOLE = Shard((1,), 1)
