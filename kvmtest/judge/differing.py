# SPDX-License-Identifier: GPL-2.0-only
"""The items in which two snapshots differ, and whether they prove that an event happened between them."""

from __future__ import annotations

from collections.abc import Iterable

from kvmtest.spec.untouched import COUNTERS
from kvmtest.state.layout import Layout
from kvmtest.state.sections import Snapshot

__all__ = ("differences", "unproven")

#: An event shows in one of these. MSRs and LAPIC have counters that run by themselves, INIT leaves the others alone.
_TRACES = ("mp_state", "regs", "sregs", "debugregs")


def differences(layout: Layout, before: Snapshot, after: Snapshot, but: Iterable[str] = ()) -> list[str]:
    """The items whose values differ, without those that count on by themselves and those of ``but``."""
    left_out = COUNTERS.union(but)
    found = []
    for section, names in layout.by_section.items():
        one, other = before.sections.get(section), after.sections.get(section)
        if one == other or _still(layout, names, one) == _still(layout, names, other):
            continue
        if not one or not other or section == "xsave" or before.unreadable or after.unreadable:
            found += [item for item in names if before.get(layout, item) != after.get(layout, item)]
        else:
            # Of items that are bytes and nothing else these need not become numbers.
            places, end = [layout.fields[item] for item in names], min(len(one), len(other))
            spans = [(field.offset, field.offset + field.size) for field in places]
            found += [item for item, (at, to) in zip(names, spans, strict=True) if to <= end and one[at:to] != other[at:to]]
    return [item for item in found if item not in left_out]


def _still(layout: Layout, names: Iterable[str], data: bytes | None) -> bytes | None:
    """A section without what counts on by itself: mostly that alone differs."""
    for field in (layout.fields[item] for item in COUNTERS.intersection(names)):
        if data is not None and field.offset + field.size <= len(data):
            data = data[: field.offset] + bytes(field.size) + data[field.offset + field.size :]
    return data


def unproven(layout: Layout, event: str, before: Snapshot, after: Snapshot, *, silent: bool = False) -> str:
    """Return why nothing proves that ``event`` happened between two snapshots; "" if something does.

    KVM_GET_MP_STATE makes KVM process a pending INIT. ``silent`` is set for an event that may change nothing.
    """
    if event == "init":
        for section in ("mp_state", "events"):
            if section not in after.sections:
                why = layout.missing_sections.get(section) or after.lost(layout, section)
                return f"cannot determine if the INIT was accepted: {why}"
        if after.get(layout, "events.smi_latched_init"):
            return "the INIT that was sent is still pending"
    if silent:
        return ""
    lost = ""
    for section in _TRACES:
        if section in before.sections and section in after.sections:
            if before.sections[section] != after.sections[section]:
                return ""
        else:
            lost = lost or before.lost(layout, section) or after.lost(layout, section)
    if lost:
        return f"cannot determine if the event happened: {lost}"
    return "the event left no trace: registers and activity state are as planted"
