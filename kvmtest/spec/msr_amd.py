# SPDX-License-Identifier: GPL-2.0-only
"""MSRs that only AMD documents."""

from __future__ import annotations

from kvmtest.spec.catchall import INTEL_NONE, KEEP_AMD
from kvmtest.spec.cite import A_HWCR, A_MEMORY, A_OTH, A_SMM, A_SPEC, A_SVM, A_VM_CR, S_T22
from kvmtest.spec.rule import Entry, Rule, Vendored, cited, entry, masked, unchanged, undefined, value, vendors

__all__ = ("RULES",)

_ALL = 0xFFFFFFFFFFFFFFFF
_SVMDIS, _SMM_LOCK = 1 << 4, 1 << 0
_CITE = (S_T22, A_OTH)


def _amd(rule: Rule, *cite: str) -> Vendored:
    """The RESET rule of a register that only AMD documents."""
    return vendors(intel=INTEL_NONE, amd=cited(rule, *cite))


_VM_CR_INIT = vendors(
    intel=INTEL_NONE,
    amd=cited(masked(0, unchanged=_ALL ^ _SVMDIS, note="SVMDIS is cleared because LOCK is 0 in every plant; with LOCK it would be unchanged"), A_VM_CR, A_OTH),
)
#: The bits below those that the APM's figure of SYSCFG defines; the value in its cross-reference is that of a K8's bus controls.
_SYSCFG_BUS = 0x3FFFF
_SYSCFG = masked(0, ignore=_SYSCFG_BUS, note="the APM gives 00020601H: bits 17:0 are a processor's own, and no guest has that bus")
_HWCR_INIT = vendors(intel=INTEL_NONE, amd=cited(unchanged(), A_HWCR, A_OTH))

RULES: tuple[Entry, ...] = (
    entry("msr.virt_spec_ctrl", row=97, reset=_amd(value(0), A_SPEC), init=KEEP_AMD, cite=_CITE),
    entry("msr.vm_cr", row=107, reset=_amd(undefined("AMD's cross-reference says undefined"), A_SVM), init=_VM_CR_INIT, cite=_CITE),
    entry("msr.vm_hsave_pa", row=108, reset=_amd(undefined("AMD's cross-reference says undefined"), A_SVM), init=KEEP_AMD, cite=_CITE),
    entry("msr.hwcr", row=112, reset=_amd(masked(0, ignore=_ALL ^ _SMM_LOCK, note="by implementation, but for SmmLock"), A_HWCR), init=_HWCR_INIT, cite=_CITE),
    entry("msr.syscfg", row=113, reset=_amd(_SYSCFG, A_MEMORY), init=KEEP_AMD, cite=_CITE),
    *(entry(f"msr.osvw_{reg}", row=116, reset=_amd(undefined("the BIOS sets it"), A_OTH), init=KEEP_AMD, cite=_CITE) for reg in ("id_length", "status")),
    *(entry(f"msr.smm_{reg}", row=117, reset=_amd(value(0), A_SMM), init=KEEP_AMD, cite=_CITE) for reg in ("addr", "mask")),
)
