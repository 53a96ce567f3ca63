# SPDX-License-Identifier: GPL-2.0-only
"""Hyper-V's synthetic MSRs with a value for a new virtual processor in Hyper-V's specification.

It does not mention INIT, and leaves open what "processor reset" means besides creation.
"""

from __future__ import annotations

from kvmtest.spec.cite import HYPERV, HYPERV_SCONTROL, HYPERV_SINT, HYPERV_SYNIC_PAGES
from kvmtest.spec.rule import Entry, entry, undefined, value

__all__ = ("RULES",)

_OPEN = undefined("a Hyper-V synthetic MSR, of which the specification does not say what INIT does")
_MASKED = 1 << 16


def _entry(name: str, created: int, cite: str) -> Entry:
    return entry(f"msr.hv_{name}", row=(), reset=value(created), init=_OPEN, sipi=_OPEN, shutdown=_OPEN, cite=(cite, HYPERV))


RULES: tuple[Entry, ...] = (
    _entry("scontrol", 0, HYPERV_SCONTROL),
    _entry("siefp", 0, HYPERV_SYNIC_PAGES),
    _entry("simp", 0, HYPERV_SYNIC_PAGES),
    *(_entry(f"sint{i}", _MASKED, HYPERV_SINT) for i in range(16)),
)
