# SPDX-License-Identifier: GPL-2.0-only
"""The state of a vCPU as the host's ioctls showed it: raw sections, decoded only where somebody asks. Pure."""

from __future__ import annotations

from typing import NamedTuple

from kvmtest.state.layout import Layout

__all__ = ("Snapshot",)


class Snapshot(NamedTuple):
    """Sections by name, as the ioctls filled them; ``unreadable`` holds items that could not be read, with the reason."""

    sections: dict[str, bytes]
    unreadable: dict[str, str]

    def get(self, layout: Layout, item: str) -> int | None:
        """The value of ``item``, or None where it was not read."""
        field = layout.fields.get(item)
        if field is None or item in self.unreadable or field.section not in self.sections:
            return None
        return field.get(self.sections[field.section])

    def put(self, layout: Layout, item: str, value: int) -> Snapshot:
        """Return a copy with ``value`` for ``item``, which was read."""
        field = layout.fields[item]
        section = bytearray(self.sections[field.section])
        field.put(section, value)
        return self._replace(sections=self.sections | {field.section: bytes(section)})

    def why(self, layout: Layout, item: str) -> str:
        """Return why ``item``, which has a place in ``layout``, has no value here."""
        section = layout.fields[item].section
        if why := self.unreadable.get(item) or self.lost(layout, section):
            return why
        return f"it lies beyond the {len(self.sections[section])} bytes that were read of the section {section}"

    def lost(self, layout: Layout, section: str) -> str:
        """Return why ``section``, which ``layout`` has, was not read; "" if it was."""
        if section in self.sections or section not in layout.by_section:
            return ""
        return self.unreadable.get(layout.by_section[section][0], f"the section {section} was not read")
