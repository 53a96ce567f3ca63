# SPDX-License-Identifier: GPL-2.0-only
"""A vCPU's position in one line, for error messages."""

from __future__ import annotations

from ..uapi import consts as _c
from .error import KvmError
from .state import VcpuState

__all__ = ["where"]

_MP_STATES = {value: name for name, value in vars(_c).items() if name.startswith("KVM_MP_STATE_")}


def where(vcpu: VcpuState) -> str:
    """CS:RIP with the base of CS, RFLAGS, CR0 and the activity state; "unreadable" where KVM refuses even that.

    Reading the activity state makes KVM accept a pending INIT or SIPI; the registers are those from before.
    """
    try:
        regs, sregs = vcpu.get_regs(), vcpu.get_sregs()
        at = f"cs:rip {sregs.cs.selector:04x}:{regs.rip:x} cs.base {sregs.cs.base:#x}"
        at += f" rflags {regs.rflags:#x} cr0 {sregs.cr0:#x}"
        state = vcpu.get_mp_state()
    except KvmError:
        return "unreadable"
    return f"{at} {_MP_STATES.get(state, f'mp_state {state}')}"
