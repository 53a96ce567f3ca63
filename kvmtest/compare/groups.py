# SPDX-License-Identifier: GPL-2.0-only
"""Changed results in as few blocks as say it: the same item and the same change over triggers and cases is one. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from kvmtest.compare.results import Change, changed
from kvmtest.engine.result import UNEXPECTED, Result

__all__ = ("Block", "blocks", "within")

#: Verdicts that come without a value: such a change of a whole case is one thing to look at, not one an item.
_WITHOUT = frozenset(("skip", "error", "-"))


def within(names: Iterable[str]) -> str:
    """``names`` as a shell would write them: one, or ``{a,b}``."""
    found = list(dict.fromkeys(names))
    return found[0] if len(found) == 1 else "{" + ",".join(found) + "}"


class Values(NamedTuple):
    """The values before and after of one result; None where there is no result."""

    a: tuple[str | None, str | None, str | None]
    b: tuple[str | None, str | None, str | None]


_NOTHING = (None, None, None)


def _values(result: Result | None) -> tuple[str | None, str | None, str | None]:
    return (result.planted, result.expected, result.observed) if result else _NOTHING


class Block:
    """Results of one item after one event that changed in the same way, or of several items without values to show."""

    def __init__(self, first: Change) -> None:
        self.first = first
        self.items: dict[str, None] = {}
        self.triggers: dict[str, None] = {}
        self.cases: dict[str, None] = {}
        self.values: dict[Values, None] = {}
        self.count = 0

    def add(self, change: Change) -> None:
        """One more result that changed so."""
        result = change.either
        self.count += 1
        self.items[result.item] = None
        self.triggers[result.trigger] = None
        self.cases[result.case.partition("/")[2] or result.case] = None
        self.values[Values(_values(change.a), _values(change.b))] = None

    def take(self, other: Block) -> None:
        """What ``other`` has as well."""
        self.count += other.count
        for mine, theirs in ((self.items, other.items), (self.triggers, other.triggers), (self.cases, other.cases)):
            mine.update(theirs)

    @property
    def verdicts(self) -> tuple[str, str]:
        """Before and after."""
        return self.first.verdicts

    @property
    def name(self) -> str:
        """The result id, with triggers as a shell would write them; of several items what their ids begin with."""
        result = self.first.either
        prefix = f"{result.event}.{within(self.triggers)}.{result.view}"
        return f"{prefix}.{result.item}" if len(self.items) == 1 else prefix

    @property
    def reason(self) -> str:
        """Why it is as it is now."""
        return self.first.b.reason if self.first.b else ""


def blocks(changes: Iterable[Change]) -> list[Block]:
    """``changes`` in blocks: what fails now first, then what failed, then other verdicts, then values."""
    found: dict[tuple[object, ...], Block] = {}
    for change in changes:
        result = change.either
        which = changed(change.a, change.b) if change.a and change.b else ()
        reason = result.reason if result.view == "kernel" else ""
        key = (result.event, result.view, result.item, *change.verdicts, which, reason)
        found.setdefault(key, Block(change)).add(change)
    return sorted(_merged(found.values()), key=_rank)


def _merged(found: Iterable[Block]) -> Iterable[Block]:
    """Blocks of the same cases that changed for the same reason, and have no values on one side, are one."""
    merged: dict[tuple[object, ...], Block] = {}
    for block in found:
        result = block.first.either
        key: tuple[object, ...] = (id(block),)
        if not _WITHOUT.isdisjoint(block.verdicts) and result.view != "kernel":
            key = (result.event, result.view, block.verdicts, block.reason, *block.cases)
        if key in merged:
            merged[key].take(block)
        else:
            merged[key] = block
    return merged.values()


def _rank(block: Block) -> int:
    a, b = block.verdicts
    if a == b:
        return 3
    return 0 if b in UNEXPECTED else 1 if a in UNEXPECTED else 2
