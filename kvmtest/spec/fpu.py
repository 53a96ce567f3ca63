# SPDX-License-Identifier: GPL-2.0-only
"""x87, SSE, AVX and the other state that XSAVE manages."""

from __future__ import annotations

from kvmtest.spec.cite import A_T1, A_T3, S_MPX, S_T1, S_T1_X87, S_X87, SANDPILE
from kvmtest.spec.rule import Entry, cited, entry, unchanged, undefined, value, vendors

__all__ = ("RULES",)

_CITE = (S_T1, A_T1)
_X87 = (S_T1_X87, S_X87, A_T1, A_T3)
_KEEP_X87 = unchanged("the INIT column shows what FINIT gives; INIT itself changes nothing")
_UNLISTED = cited(undefined("AMD's table names XMM and MXCSR only"), A_T1)
_AVX_RESET = vendors(intel=cited(value(0), S_T1), amd=_UNLISTED)
_AVX_INIT = vendors(intel=cited(unchanged(), S_T1), amd=_UNLISTED)
_MPX = vendors(intel=cited(value(0, "RESET and INIT"), S_T1, S_MPX), amd=cited(undefined("AMD documents no MPX"), A_T1))
_AMX = undefined("neither manual's table lists AMX state")
_APX = undefined("found in one independent compilation only (RESET 0, INIT unchanged)")

RULES: tuple[Entry, ...] = (
    entry("fcw", row=27, reset=value(0x40), init=_KEEP_X87, cite=_X87),
    entry("fsw", row=28, reset=value(0), init=_KEEP_X87, cite=_X87),
    entry("ftw", row=29, reset=value(0xFF, "FXSAVE's abridged form: the tags 5555H are zero-valued, not empty, registers"), init=_KEEP_X87, cite=_X87),
    *(entry(item, row=30, reset=value(0), init=_KEEP_X87, cite=_X87) for item in ("fop", "fip", "fdp")),
    *(entry(f"st{i}", row=31, reset=value(0, "+0.0"), init=_KEEP_X87, cite=_X87) for i in range(8)),
    *(entry(f"xmm{i}", row=32, reset=value(0), init=unchanged(), cite=_CITE) for i in range(16)),
    entry("mxcsr", row=33, reset=value(0x1F80), init=unchanged(), cite=_CITE),
    *(entry(f"ymm{i}_hi128", row=34, reset=_AVX_RESET, init=_AVX_INIT, cite=_CITE) for i in range(16)),
    *(entry(f"k{i}", row=35, reset=_AVX_RESET, init=_AVX_INIT, cite=_CITE) for i in range(8)),
    *(entry(f"zmm{i}_hi256", row=35, reset=_AVX_RESET, init=_AVX_INIT, cite=_CITE) for i in range(16)),
    *(entry(f"zmm{i}", row=35, reset=_AVX_RESET, init=_AVX_INIT, cite=_CITE) for i in range(16, 32)),
    *(entry(f"bnd{i}", row=36, reset=_MPX, init=_MPX, cite=_CITE) for i in range(4)),
    *(entry(item, row=36, reset=_MPX, init=_MPX, cite=_CITE) for item in ("bndcfgu", "bndstatus")),
    entry("pkru", row=38, reset=value(0), init=unchanged(), cite=_CITE),
    entry("tilecfg", row=40, reset=_AMX, init=_AMX, cite=_CITE),
    *(entry(f"tile{i}", row=40, reset=_AMX, init=_AMX, cite=_CITE) for i in range(8)),
    *(entry(f"r{i}", row=4, reset=_APX, init=_APX, cite=(SANDPILE,)) for i in range(16, 32)),
)
