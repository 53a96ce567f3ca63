# SPDX-License-Identifier: GPL-2.0-only
"""General-purpose registers, RIP and RFLAGS."""

from __future__ import annotations

from kvmtest.spec.cite import A_FIRST, A_STEPPING, A_T1, S_EFLAGS, S_FIRST, S_STEPPING, S_T1, SDM_SIPI
from kvmtest.spec.rule import Entry, cited, entry, formula, masked, value, vendors

__all__ = ("RULES",)

_CITE = (S_T1, A_T1)
_BIST = value(0, "non-zero only if a built-in self-test ran and failed; the SDM speaks of EAX")
_SIGNATURE = formula("CPUID.1:EAX", "the processor's signature: family, model and stepping")
#: The ten most significant bits of EFLAGS.
_EFLAGS_HIGH = 0xFFC00000

RULES: tuple[Entry, ...] = (
    entry("rax", row=1, reset=_BIST, init=value(0), cite=_CITE),
    *(entry(reg, row=2, reset=value(0), init=value(0), cite=_CITE) for reg in ("rbx", "rcx", "rsi", "rdi", "rbp", "rsp")),
    *(entry(f"r{i}", row=3, reset=value(0), init=value(0), cite=_CITE) for i in range(8, 16)),
    entry("rdx", row=5, reset=_SIGNATURE, init=_SIGNATURE, cite=(S_T1, S_STEPPING, A_T1, A_STEPPING)),
    entry("rip", row=6, reset=value(0xFFF0), init=value(0xFFF0), sipi=cited(value(0), SDM_SIPI), cite=(S_T1, S_FIRST, A_T1, A_FIRST)),
    entry(
        "rflags",
        row=7,
        reset=vendors(intel=masked(0x2, ignore=_EFLAGS_HIGH, note="bits 31:22 are undefined after RESET"), amd=value(0x2)),
        init=value(0x2),
        cite=(S_T1, S_EFLAGS, A_T1),
    ),
)
