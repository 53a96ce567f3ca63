# SPDX-License-Identifier: GPL-2.0-only
"""Judgements: of one item (Record), of all that one look at a vCPU showed (Observation), and of one item in its place (Result).

Most observations repeat what others showed, section by section. A Block holds the records of one section: it is made once,
counted once and written once, and observations refer to it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import cached_property
from typing import NamedTuple

from kvmtest.model.case import Case
from kvmtest.model.value import Expected, Value, differing, text
from kvmtest.model.verdict import Verdict

__all__ = ("EVENTS", "FIRST_TRY", "OUT_OF_TIME", "VIEWS", "Block", "Observation", "Record", "Result")

EVENTS = ("reset", "init", "sipi", "shutdown", "nmi", "none")
VIEWS = ("host", "guest", "views", "kernel")
#: In the reason of an error that was a time-out, also when it was tried again alone.
OUT_OF_TIME = "out of time"
#: Ends the reason of what passed only when it was tried again.
FIRST_TRY = "at the first try"


class Record(NamedTuple):
    """The judgement of one item, wherever it was made.

    ``planted`` was read back before the event, ``observed`` was read after it; None is what was not read. ``expected`` is None
    where no rule asks for a value. ``reason`` is one sentence, or the lines of a kernel's log. ``deviation`` is the commit or
    function of the listed deviation that explains it.
    """

    item: str
    verdict: Verdict
    planted: Value | None = None
    expected: Expected | None = None
    observed: Value | None = None
    reason: str = ""
    cite: tuple[str, ...] = ()
    deviation: str | None = None

    @property
    def differing(self) -> int:
        """The judged bits in which the observed value differs from the expected one."""
        return differing(self.expected, self.observed)

    @property
    def out_of_time(self) -> bool:
        """It ran out of time: KVM lost something, or the host was too busy."""
        return self.verdict is Verdict.ERROR and OUT_OF_TIME in self.reason


class Block:
    """Records that occur together. Compared by identity: their maker makes each block once."""

    def __init__(self, records: tuple[Record, ...]) -> None:
        self.records = records

    @cached_property
    def counts(self) -> Counter[Verdict]:
        """Records by verdict."""
        return Counter(record.verdict for record in self.records)

    @cached_property
    def second_tries(self) -> int:
        """Records of what passed only when it was tried again."""
        if not self.counts[Verdict.INFO]:
            return 0
        return sum(record.verdict is Verdict.INFO and record.reason.endswith(FIRST_TRY) for record in self.records)

    @cached_property
    def attention(self) -> tuple[Record, ...]:
        """The records that a report must show."""
        return tuple(record for record in self.records if record.verdict.attention)


class Observation(NamedTuple):
    """One look at the target after ``event``, by ``view``; ``case`` is None for what the kernel said outside of any.

    ``seconds`` is what the case took, on the observation that ended it.
    """

    case: Case | None
    event: str
    trigger: str
    view: str
    blocks: tuple[Block, ...]
    seconds: float | None = None

    @property
    def prefix(self) -> str:
        """The beginning of its records' ids."""
        return f"{self.event}.{self.trigger}.{self.view}"

    @property
    def records(self) -> Iterator[Record]:
        """All records, in the order of the project's tables."""
        for block in self.blocks:
            yield from block.records

    @property
    def results(self) -> Iterator[Result]:
        """All records in their place."""
        return (Result(self, record) for record in self.records)

    @property
    def attention(self) -> Iterator[Result]:
        """The results that a report must show."""
        return (Result(self, record) for block in self.blocks for record in block.attention)


class Result(NamedTuple):
    """One record of one observation."""

    of: Observation
    record: Record

    @property
    def id(self) -> str:
        """``<event>.<trigger>.<view>.<item>``."""
        return f"{self.of.prefix}.{self.record.item}"

    @property
    def event(self) -> str:
        """The event of the observation."""
        return self.of.event

    @property
    def trigger(self) -> str:
        """The trigger of the observation."""
        return self.of.trigger

    @property
    def view(self) -> str:
        """The view of the observation."""
        return self.of.view

    @property
    def item(self) -> str:
        """The item."""
        return self.record.item

    @property
    def case(self) -> str:
        """The name of the case, "" outside of any."""
        return self.of.case.name if self.of.case else ""

    @property
    def verdict(self) -> Verdict:
        """The verdict."""
        return self.record.verdict

    @property
    def planted(self) -> str | None:
        """The planted value as reports show it."""
        return text(self.record.item, self.record.planted)

    @property
    def expected(self) -> str | None:
        """The expected values as reports show them, alternatives separated by "|"."""
        expected = self.record.expected
        return "|".join(text(self.record.item, value) or "" for value in expected.values) if expected else None

    @property
    def observed(self) -> str | None:
        """The observed value as reports show it."""
        return text(self.record.item, self.record.observed)

    @property
    def reason(self) -> str:
        """The reason."""
        return self.record.reason

    @property
    def cite(self) -> tuple[str, ...]:
        """The citations."""
        return self.record.cite

    @property
    def deviation(self) -> str | None:
        """The deviation."""
        return self.record.deviation

    @property
    def prefix(self) -> str:
        """The beginning of the id."""
        return self.of.prefix

    @property
    def selector(self) -> str:
        """The selector that runs it alone."""
        return f"{self.id}/{self.of.case.words}" if self.of.case else self.id
