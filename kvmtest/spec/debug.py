# SPDX-License-Identifier: GPL-2.0-only
"""Debug registers."""

from __future__ import annotations

from kvmtest.spec.cite import A_T1, S_T1
from kvmtest.spec.rule import Entry, Vendored, cited, entry, undefined, value, vendors

__all__ = ("RULES",)

_CITE = (S_T1, A_T1)
_AMD_INIT = cited(undefined('the APM\'s table says "Not modified", which other sources contradict'), A_T1)


def _init(v: int) -> Vendored:
    return vendors(intel=cited(value(v), S_T1), amd=_AMD_INIT)


RULES: tuple[Entry, ...] = (
    *(entry(f"dr{i}", row=23, reset=value(0), init=_init(0), cite=_CITE) for i in range(4)),
    entry("dr6", row=24, reset=value(0xFFFF0FF0), init=_init(0xFFFF0FF0), cite=_CITE),
    entry("dr7", row=25, reset=value(0x400), init=_init(0x400), cite=_CITE),
)
