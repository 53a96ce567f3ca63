# SPDX-License-Identifier: GPL-2.0-only
"""The catalogue of KVM's commits on RESET, INIT, SIPI and SHUTDOWN, one topic a file.

An entry says what a commit changed, and either which result ids show it or why nothing outside of the kernel can.
"""

from __future__ import annotations

import re

from kvmtest.spec.commits.before import BEFORE
from kvmtest.spec.commits.entry import Entry
from kvmtest.spec.commits.later import LATER
from kvmtest.spec.commits.v1 import V1
from kvmtest.spec.commits.v2 import V2

__all__ = ("ENTRIES", "PARTS", "find")

#: The parts of the catalogue, by what they are called.
PARTS: dict[str, tuple[Entry, ...]] = {
    "The series as first posted (43 patches)": V1,
    "What its second version added": V2,
    "Before it": BEFORE,
    "Beside and after it": LATER,
}
ENTRIES: tuple[Entry, ...] = tuple(entry for part in PARTS.values() for entry in part)

_HEX = re.compile(r"[0-9a-f]{7,40}")


def find(name: str) -> list[Entry]:
    """The entries that ``name`` means: a commit id, at least its first 7 digits, or a place such as ``v1#14``."""
    asked = name.lower()
    if not _HEX.fullmatch(asked):
        return [entry for entry in ENTRIES if "#" in asked and entry.place == asked]
    return [entry for entry in ENTRIES if any(one.startswith(asked[:12]) for one in entry.names())]
