# SPDX-License-Identifier: GPL-2.0-only
"""The name of a case, and its parameters as data."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ("Case",)


class Case(NamedTuple):
    """A case as results know it: ``<event>.<trigger>/<words>``, one word for each parameter that is not the usual one.

    ``params`` are the parameters by name: target, vendor, irqchip, apic_mode, plant, state, how, vector, vcpus, boot_id. Nothing
    is ever read out of the name.
    """

    name: str
    params: tuple[tuple[str, str | int], ...] = ()

    @property
    def words(self) -> str:
        """The name without event and trigger: what a selector has after its slash."""
        return self.name.partition("/")[2]

    def get(self, param: str) -> str | int | None:
        """The value of ``param``, None where the case has none."""
        for name, value in self.params:  # asked for each observation: a loop is twice as fast as next() of a generator
            if name == param:
                return value
        return None
