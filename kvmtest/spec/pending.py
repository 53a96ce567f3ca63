# SPDX-License-Identifier: GPL-2.0-only
"""Rules for pending events, the activity state, and virtualization state."""

from __future__ import annotations

from kvmtest.spec.cite import (
    A_GIF,
    A_INIT_IPI,
    A_MP,
    A_SHUTDOWN,
    A_SMM_INIT,
    A_SVM_INIT,
    A_SVM_INIT_IMPLIED,
    KVM_API,
    S_DF,
    S_MP,
    S_OVERVIEW,
    S_OVERVIEW_IMPLIED,
    S_SMM_INIT,
    S_VMX_ACTIVITY,
    S_VMX_EXITS_CLEAR,
    S_VMX_LIMITS,
    SDM_SIPI,
)
from kvmtest.spec.rule import Entry, Rule, Vendored, cited, entry, formula, undefined, value, vendors

__all__ = ("RULES",)

_BOUNDARY = (S_OVERVIEW_IMPLIED, A_SVM_INIT_IMPLIED)
_SMM = (S_SMM_INIT, A_SMM_INIT)
_NONE = value(0, "implied: INIT is recognized at an instruction boundary, and execution starts anew")
_STALE = undefined("valid only with a pending or injected event (KVM API, KVM_GET_VCPU_EVENTS)")
_NOT_IN_SMM = value(0, "INIT is not recognized in SMM, so it is accepted outside of SMM")
_HELD = vendors(
    intel=cited(value(0, "INIT clears what was pending"), S_VMX_EXITS_CLEAR),
    amd=cited(undefined("the APM holds those pending that come while a processor waits for its STARTUP IPI; it does not speak of earlier ones"), A_INIT_IPI),
)
_DELIVERED = undefined("one that was held pending may be delivered by now")
_NMI_BLOCKING = undefined("neither manual says whether INIT ends the blocking of NMIs")
_SIPI_VECTOR = undefined("KVM's own bookkeeping of the last vector")
_STATE = formula("mp_state", "which vCPU runs after RESET and INIT depends on IA32_APIC_BASE.BSP; KVM has no state for shutdown")


def _event(name: str, row: int, init: Rule | Vendored, *cite: str, sipi: Rule | None = None) -> Entry:
    """A field of struct kvm_vcpu_events: nothing is pending after RESET."""
    return entry(f"events.{name}", row=row, reset=value(0), init=init, sipi=sipi, cite=cite)


_FLAGS = vendors(
    intel=cited(value(0, "INIT is blocked in VMX root operation and exits from non-root: it is accepted outside VMX operation only"), S_VMX_LIMITS, KVM_API),
    amd=cited(value(0x100, "GIF is 1: RESET sets it, and INIT is held while it is 0; an accepted INIT leaves guest mode"), A_GIF, A_SVM_INIT, KVM_API),
)
_NOT_VMX = vendors(
    intel=cited(value(0xFFFFFFFFFFFFFFFF, "KVM's value for none"), S_VMX_LIMITS, KVM_API),
    amd=cited(undefined("SVM's nested state has other fields in this place"), KVM_API),
)

RULES: tuple[Entry, ...] = (
    _event("exception_injected", 123, _NONE, *_BOUNDARY),
    _event("exception_pending", 123, _NONE, *_BOUNDARY),
    _event("exception_has_payload", 123, _STALE, *_BOUNDARY, sipi=_STALE),
    _event("interrupt_injected", 123, _NONE, *_BOUNDARY),
    _event("interrupt_soft", 123, _STALE, *_BOUNDARY, sipi=_STALE),
    _event("interrupt_shadow", 123, _NONE, *_BOUNDARY),
    _event("nmi_injected", 123, _NONE, *_BOUNDARY),
    _event("nmi_pending", 125, _HELD, S_VMX_ACTIVITY, A_INIT_IPI, sipi=_DELIVERED),
    _event("nmi_masked", 124, _NMI_BLOCKING, S_OVERVIEW, A_INIT_IPI),
    _event("smi_smm", 127, _NOT_IN_SMM, *_SMM),
    _event("smi_pending", 125, _HELD, S_VMX_ACTIVITY, A_INIT_IPI, sipi=_DELIVERED),
    _event("smi_inside_nmi", 127, _NOT_IN_SMM, *_SMM),
    _event("smi_latched_init", 127, value(0, "the INIT that was latched in SMM is the one accepted"), *_SMM),
    _event("triple_fault_pending", 123, value(0, "INIT ends the shutdown state"), S_DF, A_SHUTDOWN),
    entry("events.sipi_vector", row=(), reset=_SIPI_VECTOR, init=_SIPI_VECTOR, sipi=_SIPI_VECTOR, cite=(KVM_API,)),
    entry("mp_state", row=129, reset=_STATE, init=_STATE, sipi=cited(_STATE, SDM_SIPI), shutdown=cited(_STATE, S_DF), cite=(S_MP, A_MP, A_INIT_IPI)),
    entry("nested.flags", row=(110, 128), reset=_FLAGS, init=_FLAGS, cite=(KVM_API,), hidden=True),
    entry("nested.vmxon_pa", row=128, reset=_NOT_VMX, init=_NOT_VMX, cite=(KVM_API,), hidden=True),
    entry("nested.vmcs12_pa", row=128, reset=_NOT_VMX, init=_NOT_VMX, cite=(KVM_API,), hidden=True),
)
