# SPDX-License-Identifier: GPL-2.0-only
"""MTRRs, PAT and machine check."""

from __future__ import annotations

from kvmtest.spec.cite import A_CACHES, A_MC, A_MEMORY, A_OTH, A_T1, S_MTRR, S_OVERVIEW_KEPT, S_PAT, S_T1, S_T2, S_T22
from kvmtest.spec.rule import Entry, cited, entry, masked, unchanged, undefined, value, vendors

__all__ = ("RULES",)

_ALL = 0xFFFFFFFFFFFFFFFF
_E, _V = 0x800, 0x800
_MTRR = (S_T1, S_MTRR, A_CACHES, A_MEMORY)
_KEEP_MTRR = vendors(intel=cited(unchanged(), S_T1, S_OVERVIEW_KEPT), amd=cited(unchanged(), A_CACHES, A_OTH))
_KEEP_MC = vendors(intel=cited(unchanged(), S_T1, S_OVERVIEW_KEPT, S_T22), amd=cited(unchanged(), A_OTH))
_DEF_TYPE = vendors(
    intel=cited(masked(0, ignore=_ALL ^ _E, note="disabled; the other bits are undefined"), S_T1, S_MTRR),
    amd=cited(value(0), A_CACHES, A_MEMORY),
)
_PHYSMASK = masked(0, ignore=_ALL ^ _V, note="not valid; the other bits are undefined")
_MTRR_UNDEFINED = undefined("the MTRRs are disabled; what they hold is undefined")
_PAT = value(0x0007040600070406)
_MC_CTL = vendors(intel=cited(undefined("the table says undefined"), S_T1), amd=cited(value(0), A_MC))
_MC_UNDEFINED = undefined("both manuals say undefined; on some models it survives a warm RESET")

RULES: tuple[Entry, ...] = (
    entry("msr.mtrr_def_type", row=79, reset=_DEF_TYPE, init=_KEEP_MTRR, cite=_MTRR),
    *(entry(f"msr.mtrr_physbase{i}", row=80, reset=_MTRR_UNDEFINED, init=_KEEP_MTRR, cite=_MTRR) for i in range(8)),
    *(entry(f"msr.mtrr_physmask{i}", row=80, reset=_PHYSMASK, init=_KEEP_MTRR, cite=_MTRR) for i in range(8)),
    entry("msr.mtrr_fix64k_00000", row=81, reset=_MTRR_UNDEFINED, init=_KEEP_MTRR, cite=_MTRR),
    *(entry(f"msr.mtrr_fix16k_{base}", row=81, reset=_MTRR_UNDEFINED, init=_KEEP_MTRR, cite=_MTRR) for base in ("80000", "a0000")),
    *(entry(f"msr.mtrr_fix4k_{0xC0000 + 0x8000 * i:x}", row=81, reset=_MTRR_UNDEFINED, init=_KEEP_MTRR, cite=_MTRR) for i in range(8)),
    entry("msr.pat", row=82, reset=_PAT, init=vendors(intel=cited(unchanged(), S_T1), amd=cited(unchanged(), A_T1, A_OTH)), cite=(S_T1, S_PAT, A_T1, A_MEMORY)),
    entry("msr.mcg_status", row=91, reset=_MC_UNDEFINED, init=_KEEP_MC, cite=(S_T1, A_MC)),
    entry("msr.mcg_ctl", row=92, reset=_MC_CTL, init=_KEEP_MC, cite=(S_T1, A_MC)),
    *(entry(f"msr.mc{i}_ctl", row=93, reset=_MC_CTL, init=_KEEP_MC, cite=(S_T1, A_MC)) for i in range(32)),
    *(entry(f"msr.mc{i}_status", row=94, reset=_MC_UNDEFINED, init=_KEEP_MC, cite=(S_T1, S_T2, A_MC)) for i in range(32)),
    *(entry(f"msr.mc{i}_addr", row=94, reset=_MC_UNDEFINED, init=_KEEP_MC, cite=(S_T1, S_T2, A_MC)) for i in range(32)),
    *(entry(f"msr.mc{i}_misc", row=94, reset=_MC_UNDEFINED, init=_KEEP_MC, cite=(S_T1, S_T2, A_MC)) for i in range(32)),
)
