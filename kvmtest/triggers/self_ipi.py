# SPDX-License-Identifier: GPL-2.0-only
"""INIT to itself: a vCPU's code writes its ICR with its own APIC id and no shorthand (SDM vol. 3, Interrupt Command Register)."""

from __future__ import annotations

from kvmtest.kvm import Exit, RunTimeout, Vcpu
from kvmtest.state import inside
from kvmtest.triggers import msi, restart
from kvmtest.triggers.error import TriggerError
from kvmtest.uapi.kvm import KVM_EXIT_IO

__all__ = ("init",)

_EXTD, _BSP = 1 << 10, 1 << 8
#: An AP waits for its SIPI in KVM_RUN: long enough to get there.
_WAIT_S = 0.02


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
    try:
        seen = vcpu.run(_WAIT_S if not base & _BSP else 1.0)
    except RunTimeout as error:
        if base & _BSP:
            raise TriggerError(f"the boot processor did not restart: {error}") from error
        return None
    if not base & _BSP or seen.reason != KVM_EXIT_IO:
        raise TriggerError(f"the vCPU was to stop at its own INIT: {seen}")
    return seen
