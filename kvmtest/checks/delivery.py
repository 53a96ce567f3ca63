# SPDX-License-Identifier: GPL-2.0-only
"""An AP that is past its SIPI, and where a vCPU stands."""

from __future__ import annotations

from kvmtest.kvm import Vcpu
from kvmtest.model.value import MP_STATES
from kvmtest.triggers import msi
from kvmtest.uapi.kvm import KVM_MP_STATE_RUNNABLE

__all__ = ("run_at", "seen", "set_svr")

#: Where a vCPU "runs" that never enters the guest: neither the reset vector nor a SIPI's.
_RIP = 0x1234
#: The spurious-interrupt vector register: enabled.
_SVR, _ENABLED = 0xF0, 0x1FF


def set_svr(vcpu: Vcpu, value: int) -> None:
    """Write the spurious-interrupt vector register."""
    lapic = vcpu.get_lapic()
    lapic.regs[_SVR : _SVR + 4] = list(value.to_bytes(4, "little"))
    vcpu.set_lapic(lapic)


def run_at(vcpu: Vcpu, mp_state: int = KVM_MP_STATE_RUNNABLE) -> None:
    """An AP that is past its SIPI and has enabled its local APIC: running, or halted."""
    msi.init(vcpu)
    vcpu.get_mp_state()
    msi.sipi(vcpu, 0)
    vcpu.get_mp_state()
    regs = vcpu.get_regs()
    regs.rip = _RIP
    vcpu.set_regs(regs)
    set_svr(vcpu, _ENABLED)
    vcpu.set_mp_state(mp_state)


def seen(vcpu: Vcpu) -> str:
    """Activity state, then where it would execute: CS selector and RIP."""
    state = MP_STATES.get(vcpu.get_mp_state(), "unknown")
    return f"{state} {vcpu.get_sregs().cs.selector:04x}:{vcpu.get_regs().rip:04x}"
