# SPDX-License-Identifier: GPL-2.0-only
"""Decoder of the coverage records of KVM's modules (`kvmtest/lab/kvmcov/kvmcov.c`): each is the difference from the last case."""

from __future__ import annotations

import struct
from collections.abc import Iterable

from kvmtest.lab.steps import Executed
from kvmtest.model.case import Case

__all__ = ("Hits",)

#: struct kvmcov_word: address, bits.
_WORD = struct.Struct("<QQ")


class Hits:
    """Addresses of the modules' sections, and the coverage words of the last case."""

    def __init__(self) -> None:
        self._sections: dict[tuple[str, str], int] = {}
        self._words: dict[int, int] = {}

    def section(self, module: str, name: str, address: str) -> None:
        """A section with code (S). Raises ValueError."""
        self._sections[module, name] = int(address, 16)

    def executed(self, case: Case | None, data: bytes) -> Executed:
        """Return the coverage of ``case`` from its record (K). Raises ValueError."""
        words: Iterable[tuple[int, int]] = _WORD.iter_unpack(data)
        try:
            new = dict(words)
        except struct.error as error:
            raise ValueError(str(error)) from error
        self._words = {at: bits for at, bits in (self._words | new).items() if bits}
        return Executed(case, self._sections.copy(), self._words)
