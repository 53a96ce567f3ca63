# SPDX-License-Identifier: GPL-2.0-only
"""What a check is made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from kvmtest.kvm import Vcpu

__all__ = ("Check",)


class Check(NamedTuple):
    """One behaviour. ``observe`` drives an AP and returns what it saw, to be held against ``expected``.

    ``rows`` are those of the project's event table. ``undefined`` says why a check is recorded and not judged. ``observe``
    raises KvmError and TriggerError.
    """

    event: str
    trigger: str
    name: str
    rows: tuple[str, ...]
    expected: str
    observe: Callable[[Vcpu], str]
    cite: tuple[str, ...]
    undefined: str = ""

    @property
    def id(self) -> str:
        """The result id; the host's ioctls are the view."""
        return f"{self.event}.{self.trigger}.host.{self.name}"
