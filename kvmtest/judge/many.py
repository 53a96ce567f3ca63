# SPDX-License-Identifier: GPL-2.0-only
"""One record for several observations: of many vCPUs, or of several orders of ioctls."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from kvmtest.judge.cache import Cache
from kvmtest.model.record import Block, Record
from kvmtest.model.verdict import Verdict, worst

__all__ = ("Label", "merged", "ranges")

Label = int | str
_Of = Callable[[Iterable[Verdict]], Verdict]


def ranges(labels: Sequence[Label]) -> str:
    """``labels`` in few words: ids that follow each other as ``first-last``."""
    parts: list[str] = []
    i = 0
    while i < len(labels):
        first = last = labels[i]
        while isinstance(last, int) and i + 1 < len(labels) and labels[i + 1] == last + 1:
            last += 1
            i += 1
        parts.append(f"{first}" if first == last else f"{first}-{last}")
        i += 1
    return ", ".join(parts)


def merged(
    what: str, labels: Sequence[Label], seen: Sequence[tuple[Block, ...]], cache: Cache, of: _Of = worst
) -> tuple[Block, ...]:
    """The worst record of each item, of the blocks that were seen under each of ``labels``; ``what`` are labels, in the plural.
    ``of`` says which of some verdicts counts.

    All of ``seen`` have the same items in the same order. The reason of a record names where it was seen, unless everywhere.
    """
    found = []
    for blocks in zip(*seen, strict=True):
        if all(block is blocks[0] for block in blocks):
            found.append(blocks[0])
            continue
        distinct = dict.fromkeys(blocks)
        rows = zip(*(block.records for block in distinct), strict=True)
        found.append(cache.block(_worst(what, labels, blocks, dict(zip(distinct, row, strict=True)), of) for row in rows))
    return tuple(found)


def _worst(what: str, labels: Sequence[Label], blocks: Sequence[Block], records: dict[Block, Record], of: _Of) -> Record:
    verdict = of([record.verdict for record in records.values()])
    first = next(record for record in records.values() if record.verdict is verdict)
    if all(record.verdict is verdict for record in records.values()):
        return first
    where = [label for label, block in zip(labels, blocks, strict=True) if records[block].verdict is verdict]
    reason = f"{what} {ranges(where)} of {len(labels)}"
    return first._replace(reason=f"{reason}: {first.reason}" if first.reason else reason)
