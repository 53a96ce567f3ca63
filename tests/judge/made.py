# SPDX-License-Identifier: GPL-2.0-only
"""Evidence made up for the judges' tests."""

from __future__ import annotations

from kvmtest.engine import plan
from kvmtest.judge.evidence import Basis
from kvmtest.judge.item import Context
from kvmtest.model.host import Host
from kvmtest.state.layout import Layout
from kvmtest.state.sections import Snapshot

__all__ = ("HOST", "LAYOUT", "NEW", "SIZES", "USED", "basis", "filled", "lost")

HOST = Host("6.1.0", "vmx", "GenuineIntel", "test", {})
LAYOUT = Layout((0x10, 0x277, 0xC0000081), {}, {"ssp": "no CET here", "nested": "no nesting here"})
SIZES = {s: max(LAYOUT.fields[i].offset + LAYOUT.fields[i].size for i in items) for s, items in LAYOUT.by_section.items()}


def filled(fill: int, **values: int) -> Snapshot:
    """Every byte is ``fill``, but for the items of ``values``, named with _ for the dot."""
    sections = {name: bytearray([fill]) * size for name, size in SIZES.items()}
    for name, value in values.items():
        field = LAYOUT.fields[name.replace("_", ".", 1)]
        field.put(sections[field.section], value)
    return Snapshot({name: bytes(contents) for name, contents in sections.items()}, {})


NEW, USED = filled(0), filled(0x5A)


def lost(snapshot: Snapshot, section: str) -> Snapshot:
    """The ``snapshot`` without ``section``, which could not be read."""
    sections = {name: contents for name, contents in snapshot.sections.items() if name != section}
    return Snapshot(sections, dict.fromkeys(LAYOUT.by_section[section], "EFAULT"))


def basis(case: plan.Case, number: int = 1) -> Basis:
    """Return the basis of vCPU ``number`` before ``case``."""
    ctx = Context(case.prefix, case.name, HOST, "intel", False, number, signature=0x506E3)
    return Basis(ctx, LAYOUT, NEW, None)
