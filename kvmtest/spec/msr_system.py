# SPDX-License-Identifier: GPL-2.0-only
"""MSRs of system calls, features, CET, XSAVE and system management."""

from __future__ import annotations

from kvmtest.spec.catchall import AMD_NONE, KEEP_INTEL, KEEP_LISTED, KEEP_OTHER
from kvmtest.spec.cite import (
    A_CET,
    A_OTH,
    A_SMM,
    A_SPEC,
    A_SYSTEM,
    A_T1,
    I_CET,
    LINUX_CET,
    LINUX_XSS,
    S_MPX,
    S_OVERVIEW_KEPT,
    S_SGX_KEY,
    S_SMBASE,
    S_SMI_COUNT,
    S_SPEC_CTRL,
    S_T1,
    S_T1_075,
    S_T22,
    S_THERMAL,
    S_UCODE,
    S_VMX_ENTER,
    S_XCR0,
    SANDPILE,
)
from kvmtest.spec.rule import Entry, Rule, Vendored, cited, entry, masked, unchanged, undefined, value, vendors

__all__ = ("RULES",)

_ALL = 0xFFFFFFFFFFFFFFFF
_TM1, _EIST = 1 << 3, 1 << 16


def _intel(rule: Rule, *cite: str) -> Vendored:
    """The RESET rule of a register that only Intel documents."""
    return vendors(intel=cited(rule, *cite), amd=AMD_NONE)


_AMD_UNDEFINED = cited(undefined("AMD's cross-reference says undefined"), A_SYSTEM)
_SYSCALL = vendors(intel=cited(value(0), S_T1), amd=_AMD_UNDEFINED)
_SYSCALL_UNLISTED = vendors(intel=cited(undefined("Intel's table does not list it; its catch-all row says undefined"), S_T22), amd=_AMD_UNDEFINED)
_FROM_MEMORY = undefined("Intel's table does not list it; its catch-all row says undefined")
_CET_RESET = vendors(intel=cited(value(0), I_CET, SANDPILE), amd=cited(value(0), A_CET))
_CET_KVM = undefined("the APM speaks of it in its catch-all row alone (not modified); KVM zeroes what XSAVES holds of it, for every vendor")
_CET_INIT = vendors(intel=cited(value(0), I_CET, SANDPILE), amd=cited(_CET_KVM, A_OTH, LINUX_CET))
_XSS_RESET = vendors(intel=cited(value(0), S_T1, S_XCR0), amd=cited(undefined("AMD's table gives no value"), A_OTH))
_XSS_INIT = vendors(intel=cited(unchanged("revisions up to 074 say 0"), S_T1_075, LINUX_XSS), amd=cited(unchanged(), A_OTH))
_BNDCFGS = vendors(intel=cited(value(0, "RESET and INIT"), S_T1, S_MPX), amd=cited(undefined("AMD documents no MPX"), A_OTH))
_XFD = undefined("no manual's table lists it")
_FRED = undefined("no manual's table lists the FRED MSRs")
_MISC_ENABLE = masked(0, ignore=_ALL ^ (_TM1 | _EIST), note="model-specific, but for TM1 and Enhanced SpeedStep, which start disabled")
_SPEC_CTRL = vendors(intel=cited(value(0), S_SPEC_CTRL), amd=cited(value(0), A_SPEC))
_SPEC_CTRL_INIT = vendors(intel=cited(unchanged(), S_SPEC_CTRL), amd=cited(unchanged(), A_OTH))
_SMI_COUNT_INIT = vendors(intel=cited(unchanged("counts since RESET"), S_SMI_COUNT, S_OVERVIEW_KEPT), amd=AMD_NONE)
_UCODE_INIT = vendors(intel=cited(unchanged('"maintained across a processor INIT"'), S_UCODE), amd=cited(unchanged(), A_OTH))
_UCODE_RESET = vendors(intel=cited(undefined("the revision is that of the update loaded after RESET"), S_UCODE), amd=AMD_NONE)
_SMBASE_INIT = vendors(intel=cited(unchanged(), S_SMBASE, S_OVERVIEW_KEPT, S_T22), amd=cited(unchanged(), A_T1, A_SMM))

RULES: tuple[Entry, ...] = (
    *(entry(f"msr.sysenter_{reg}", row=83, reset=_SYSCALL, init=KEEP_LISTED, cite=(S_T1, A_SYSTEM)) for reg in ("cs", "esp", "eip")),
    *(entry(f"msr.{reg}", row=84, reset=_SYSCALL, init=KEEP_LISTED, cite=(S_T1, A_SYSTEM)) for reg in ("star", "lstar")),
    *(entry(f"msr.{reg}", row=85, reset=_SYSCALL_UNLISTED, init=KEEP_OTHER, cite=(S_T22, A_SYSTEM)) for reg in ("cstar", "sfmask")),
    *(entry(f"msr.{seg}_base", row=86, reset=value(0), init=value(0, "the base of the segment register"), cite=(S_T1, A_T1, A_SYSTEM)) for seg in ("fs", "gs")),
    entry("msr.kernel_gs_base", row=87, reset=_SYSCALL_UNLISTED, init=KEEP_OTHER, cite=(S_T22, A_SYSTEM)),
    entry("msr.misc_enable", row=88, reset=_intel(_MISC_ENABLE, S_THERMAL), init=KEEP_INTEL, cite=(S_T22, A_OTH)),
    entry("msr.feat_ctl", row=89, reset=_intel(value(0), S_VMX_ENTER), init=KEEP_INTEL, cite=(S_T22, A_OTH)),
    entry("msr.smbase", row=90, reset=value(0x30000), init=_SMBASE_INIT, cite=(S_SMBASE, A_T1, A_SMM)),
    entry("msr.smi_count", row=(), reset=_intel(value(0), S_SMI_COUNT), init=_SMI_COUNT_INIT, cite=(S_SMI_COUNT, A_OTH)),
    entry("msr.spec_ctrl", row=96, reset=_SPEC_CTRL, init=_SPEC_CTRL_INIT, cite=(S_SPEC_CTRL, A_SPEC)),
    entry("msr.tsx_ctrl", row=98, reset=_intel(_FROM_MEMORY, S_T22), init=KEEP_INTEL, cite=(S_T22, A_OTH)),
    entry("msr.umwait_control", row=99, reset=_intel(_FROM_MEMORY, S_T22), init=KEEP_INTEL, cite=(S_T22, A_OTH)),
    entry("msr.misc_features_enables", row=100, reset=_intel(_FROM_MEMORY, S_T22), init=KEEP_INTEL, cite=(S_T22, A_OTH)),
    *(
        entry(
            f"msr.sgxlepubkeyhash{i}",
            row=102,
            reset=_intel(undefined("the digest of Intel's own key, which the tool does not know"), S_SGX_KEY),
            init=vendors(intel=cited(unchanged(), S_OVERVIEW_KEPT, S_SGX_KEY), amd=AMD_NONE),
            cite=(S_SGX_KEY, A_OTH),
        )
        for i in range(4)
    ),
    entry("msr.ucode_rev", row=104, reset=_UCODE_RESET, init=_UCODE_INIT, cite=(S_UCODE, A_OTH)),
    *(entry(f"msr.fred_{reg}", row=105, reset=_FRED, init=_FRED, cite=(S_T1, A_T1)) for reg in ("rsp0", "rsp1", "rsp2", "rsp3", "stklvls")),
    *(entry(f"msr.fred_{reg}", row=105, reset=_FRED, init=_FRED, cite=(S_T1, A_T1)) for reg in ("ssp1", "ssp2", "ssp3", "config")),
    entry("msr.bndcfgs", row=37, reset=_BNDCFGS, init=_BNDCFGS, cite=(S_T1, A_OTH)),
    *(entry(f"msr.{reg}", row=41, reset=_XFD, init=_XFD, cite=(S_T1, A_T1)) for reg in ("xfd", "xfd_err")),
    entry("msr.xss", row=42, reset=_XSS_RESET, init=_XSS_INIT, cite=(S_T1, A_OTH)),
    *(entry(f"msr.{reg}", row=43, reset=_CET_RESET, init=_CET_INIT, cite=(I_CET, A_CET)) for reg in ("u_cet", "s_cet")),
    *(entry(f"msr.pl{i}_ssp", row=44, reset=_CET_RESET, init=_CET_INIT, cite=(I_CET, A_CET)) for i in range(4)),
    entry("msr.int_ssp_tab", row=44, reset=_CET_RESET, init=_CET_INIT, cite=(I_CET, A_CET)),
)
