# SPDX-License-Identifier: GPL-2.0-only
"""INIT to itself: a vCPU's code writes its ICR with its own APIC id and no shorthand (SDM vol. 3, Interrupt Command Register)."""

from __future__ import annotations

from time import monotonic

from kvmtest.kvm import Exit, RunTimeout, Vcpu
from kvmtest.state import inside
from kvmtest.triggers import msi, restart
from kvmtest.triggers.error import TriggerError
from kvmtest.uapi.kvm import KVM_MP_STATE_INIT_RECEIVED

__all__ = ("init",)

_EXTD, _BSP = 1 << 10, 1 << 8
#: An AP waits for its SIPI in KVM_RUN: it is looked at so often, and given so long to get there.
_WAIT_S, _LIMIT_S = 0.02, 1.0


def init(vcpu: Vcpu, icr: int = msi.INIT | msi.ASSERT) -> Exit | None:
    """Let ``vcpu``, planted by guest code in 64-bit mode, write ``icr`` (bits 31:0) to its own ICR.

    Returns the exit of a boot processor that has restarted. Raises TriggerError, KvmError.
    """
    base = vcpu.get_sregs().apic_base
    x2apic = bool(base & _EXTD)
    inside.resume(vcpu, "x2icr" if x2apic else "icr")
    regs = vcpu.get_regs()
    regs.rax, regs.rdx = icr, vcpu.id if x2apic else vcpu.id << 24
    vcpu.set_regs(regs)
    restart.watch(vcpu)
    if not base & _BSP:
        _wait_for_sipi(vcpu)
        return None
    try:
        seen = vcpu.run(_LIMIT_S)
    except RunTimeout as error:
        raise TriggerError(f"the boot processor did not restart: {error}") from error
    if not restart.restarted(seen):
        raise TriggerError(f"the boot processor was to restart by its own INIT: {seen}")
    return seen


def _wait_for_sipi(vcpu: Vcpu) -> None:
    """Run ``vcpu`` until it waits for a SIPI, as only its own INIT makes it."""
    end = monotonic() + _LIMIT_S
    while vcpu.get_mp_state() != KVM_MP_STATE_INIT_RECEIVED:
        if monotonic() > end:
            raise TriggerError(f"vcpu {vcpu.id} does not wait for a SIPI: it sent itself no INIT in {_LIMIT_S:g} s")
        try:
            seen = vcpu.run(_WAIT_S)
        except RunTimeout:
            continue
        raise TriggerError(f"the vCPU was to stop at its own INIT: {seen}")
