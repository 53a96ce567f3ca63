# SPDX-License-Identifier: GPL-2.0-only
"""Opinions: how CPUs that are no KVM's were measured to be after RESET, INIT and SIPI, beside the rules.

The lines of opinions.tsv are measured by `kvmtest vmm` and `kvmtest observer judge`, and written by `kvmtest observer opinions`.
"""

from __future__ import annotations

import functools
from importlib import resources
from typing import NamedTuple

__all__ = ("FIELDS", "FILE", "Opinion", "of", "parse", "printed")

FILE = "opinions.tsv"
FIELDS = ("item", "event", "vendor", "who", "shows", "asked")
_HEAD = "# SPDX-License-Identifier: GPL-2.0-only\n# " + "\t".join(FIELDS) + "\n"


class Opinion(NamedTuple):
    """The value of ``item`` after ``event`` in ``who``, a machine with its version, whose CPUID says ``vendor``.

    ``asked`` is what the rule asks for where it ``shows`` something else; else both are "".
    """

    item: str
    event: str
    vendor: str
    who: str
    shows: str = ""
    asked: str = ""

    @property
    def departs(self) -> bool:
        """True if it disagrees with the rule."""
        return bool(self.asked)


def parse(text: str) -> tuple[Opinion, ...]:
    """The opinions in a file's ``text``."""
    rows = (line.split("\t") for line in text.splitlines() if line and not line.startswith("#"))
    return tuple(Opinion(*row) for row in rows)


def printed(opinions: tuple[Opinion, ...]) -> str:
    """The file that `parse` reads."""
    return _HEAD + "".join("\t".join(one) + "\n" for one in sorted(opinions))


@functools.cache
def _by_item() -> dict[str, list[Opinion]]:
    found: dict[str, list[Opinion]] = {}
    for one in parse(resources.files(__package__).joinpath(FILE).read_text("utf-8")):
        found.setdefault(one.item, []).append(one)
    return found


def of(item: str) -> list[Opinion]:
    """The opinions on ``item``."""
    return _by_item().get(item, [])
