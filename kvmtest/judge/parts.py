# SPDX-License-Identifier: GPL-2.0-only
"""Sections split for judging: items that differ in each case, and all other items together."""

from __future__ import annotations

from collections.abc import Hashable
from typing import NamedTuple

from kvmtest import spec
from kvmtest.judge.bits import Bits
from kvmtest.spec.untouched import COUNTERS
from kvmtest.state.layout import Layout
from kvmtest.state.sections import Snapshot

__all__ = ("OWN", "Part", "Parts", "Values")

#: Judged by themselves: what counts, and what names the vCPU, differs in each case and on each vCPU.
OWN = COUNTERS | {"lapic.id", "lapic.ldr"}
_TABLES = tuple(item for item in spec.ENTRIES if item not in spec.SYNTHETIC)


class Part:
    """One section of a layout: its items but for those that are judged by themselves."""

    def __init__(self, layout: Layout, section: str) -> None:
        names = layout.by_section[section]
        self.items = tuple(item for item in names if item not in OWN)
        self.own = tuple(item for item in names if item in OWN)
        self.fields = [layout.fields[item] for item in self.items]
        #: True if each item's bytes are its value, independent of all others.
        self.plain = all(field.component is None for field in self.fields)
        self._spans = [(layout.fields[item].offset, layout.fields[item].size) for item in self.own]
        self._values: dict[bytes, tuple[int | None, ...]] = {}
        #: By the number of the questions that are asked of the items.
        self.bits: dict[int, Bits] = {}

    def key(self, data: bytes) -> bytes:
        """``data`` without the items that are judged by themselves."""
        for at, size in self._spans:
            data = data[:at] + bytes(len(data[at : at + size])) + data[at + size :]
        return data

    def values(self, data: bytes) -> tuple[int | None, ...]:
        """The values of the items; ``data`` is a key."""
        found = self._values.get(data)
        if found is None:
            found = self._values[data] = tuple([field.get(data) for field in self.fields])
        return found

    def forget(self) -> None:
        """Forget all values."""
        self._values.clear()


class Values(NamedTuple):
    """The values of one vCPU's items, by item, at creation, before the event and after it."""

    created: dict[str, int | None]
    planted: dict[str, int | None]
    observed: dict[str, int | None]


class Parts:
    """The sections of one layout."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.by_section = {section: Part(layout, section) for section in layout.by_section}
        known = layout.fields
        self.rest = tuple(item for item in _TABLES if item not in known)

    def read(self, snapshot: Snapshot | None) -> dict[str, int | None]:
        """The value of each item in ``snapshot``; none of what was not read."""
        if snapshot is None:
            return {}
        if snapshot.unreadable:
            return {item: snapshot.get(self.layout, item) for item in self.layout.fields}
        found: dict[str, int | None] = {}
        for section, part in self.by_section.items():
            if (data := snapshot.sections.get(section)) is not None:
                found.update(zip(part.items, part.values(part.key(data)), strict=True))
                found.update((item, self.layout.fields[item].get(data)) for item in part.own)
        return found

    def keys(self, snapshot: Snapshot | None) -> Hashable:
        """Return a key that equal sections of snapshots share."""
        if snapshot is None:
            return None
        parts = self.by_section
        keys = [parts[name].key(data) if name in parts else data for name, data in snapshot.sections.items()]
        return (*snapshot.sections, *keys, *snapshot.unreadable.items())
