# SPDX-License-Identifier: GPL-2.0-only
"""The state of a vCPU after its VM was saved and restored: as before, except for counters."""

from __future__ import annotations

import re
from typing import NamedTuple

from kvmtest.spec.cite import KVM_API
from kvmtest.spec.rule import Rule, cited, formula, masked, unchanged, undefined
from kvmtest.x86.cpuid import MIRRORS

__all__ = ("AS_SAVED", "COUNTED", "About", "added", "rule")

AS_SAVED = ("a vCPU that was saved and restored continues as before", KVM_API)
_ALONE = cited(unchanged(), *AS_SAVED)
_ALL = (1 << 64) - 1
#: Items that count on from the value that was saved.
COUNTED: dict[str, Rule] = {
    "msr.tsc": cited(formula("TSC-on", "counts on from what was saved"), *AS_SAVED),
    "lapic.timer_current": cited(formula("timer-on", "counts down from what was saved"), *AS_SAVED),
}
#: MSRs that KVM_GET_MSR_INDEX_LIST never names and VMMs save all the same: the machine-check banks, of which the API says so, the
#: memory types, which QEMU (kvm_get_msrs()) and Cloud Hypervisor (get_msr_list()) add, and what QEMU adds of SGX and of SynIC.
_ADDED = re.compile(r"msr\.(mtrr|mc\d+_|sgxlepubkeyhash|hv_sint|hv_si[em]|hv_stimer)")
#: MSRs that it names only if the host's CPU has them (kvm_probe_msr_to_save()). Else only the host can access them.
_PROBED = re.compile(
    r"msr\.(bndcfgs|tsc_aux|umwait_control|rtit_|xfd|tsx_ctrl|xss|spec_ctrl|[us]_cet|pl\d_ssp|int_ssp_tab|debugctl|last(branch|int)"
    r"|pmc|perfevtsel|fixed_ctr|perf_|amd_perf|k7_|pebs_|ds_area)"
)
_OTHERS = {
    **dict.fromkeys(("msr.hv_vp_runtime", "msr.hv_time_ref_count"), cited(undefined("it counts by itself"), *AS_SAVED)),
    "lapic.ppr": cited(undefined("KVM recomputes it from TPR and ISR"), *AS_SAVED),
}
_MIRRORED = {mirror.item: mirror.bits for mirror in MIRRORS}
_STALE = "it did not follow CR4 when it was saved, which is judged by itself"
_PAYLOAD = "events.exception_has_payload"
_NO_PAYLOAD = cited(undefined("no exception is pending that it could belong to (KVM API, KVM_SET_VCPU_EVENTS)"), *AS_SAVED)
_NOT_HERE = cited(undefined("KVM_GET_MSR_INDEX_LIST names it only where the host's CPU has it"), *AS_SAVED)


def added(item: str) -> bool:
    """Return True if a VMM saves the MSR ``item`` though KVM_GET_MSR_INDEX_LIST does not name it."""
    return bool(_ADDED.match(item))


class About(NamedTuple):
    """The facts that the rules of one migration depend on.

    ``lost`` are items, the bits that the order of restoring cannot keep, and why; ``unlisted`` are those that
    KVM_GET_MSR_INDEX_LIST does not name; ``pending`` is set if an exception is pending. ``stale`` are items of CPUID that did not
    follow CR4 when they were saved, and do once CR4 is restored.
    """

    lost: tuple[tuple[str, int, str], ...] = ()
    unlisted: tuple[str, ...] = ()
    pending: bool = True
    stale: tuple[str, ...] = ()


def rule(item: str, about: About | None = None) -> Rule:
    """The rule of ``item`` after a migration, the same for every vendor."""
    about = about or About()
    for name, bits, why in about.lost:
        if name == item:
            return cited(masked(0, unchanged=_ALL & ~bits, ignore=bits, note=why), *AS_SAVED)
    if item in about.stale:
        return cited(masked(0, unchanged=_ALL & ~_MIRRORED[item], ignore=_MIRRORED[item], note=_STALE), *AS_SAVED)
    if item == _PAYLOAD and not about.pending:
        return _NO_PAYLOAD
    if item in about.unlisted and _PROBED.match(item):
        return _NOT_HERE
    return COUNTED.get(item) or _OTHERS.get(item) or _ALONE
