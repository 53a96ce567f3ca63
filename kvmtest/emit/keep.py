# SPDX-License-Identifier: GPL-2.0-only
"""Parts that a reproducer must keep although its observations do not need them: without them another value would be expected."""

from __future__ import annotations

from collections.abc import Container

from kvmtest.emit.repro import Repro
from kvmtest.scenario import program as p
from kvmtest.uapi import kvm as uapi

__all__ = ("keeping_guest", "setting")

#: The beginnings of the names of buffers with the registers that make a CPU mode.
_REGISTERS = ("regs", "sregs")
#: The registers that say which mode a vCPU is in, and its local APIC, and the bits that do: CR0.PE and PG, EFER.LME and LMA. Of
#: CR4 such a mode needs what KVM refuses it without.
_MODE = {
    uapi.kvm_sregs.cr0.offset: 1 << 31 | 1 << 0,
    uapi.kvm_sregs.efer.offset: 1 << 10 | 1 << 8,
    uapi.kvm_sregs.apic_base.offset: (1 << 64) - 1,
}


def keeping_guest(repro: Repro) -> Repro:
    """``repro``, from which nothing of the guest is left out: its memory, CPUID, and the registers that it begins with."""
    vm = {at for at, (_, op) in enumerate(repro.vm.ops) if isinstance(op, p.Cpuid)}
    changes = {one[:2] for _, op in repro.vm.ops if isinstance(op, p.Cpuid) and op.vcpu == repro.target for one in op.changes}
    body = set()
    for at, (_, op) in enumerate(repro.body.ops):
        named = p.buffers_of(op) if isinstance(op, (p.Put, p.Ioctl)) else ()
        if isinstance(op, (p.Region, p.Write)) or any(name.startswith(_REGISTERS) for name in named):
            body.add(at)
    return repro._replace(pinned=repro.pinned | body, pinned_vm=repro.pinned_vm | vm, cpuid=repro.cpuid | changes)


def setting(repro: Repro, steps: Container[int]) -> Repro:
    """``repro``, from which neither ``steps`` are left out nor what puts a vCPU or its local APIC into a mode, with CPUID."""
    kept = {at for at, (step, op) in enumerate(repro.body.ops) if step in steps and not isinstance(op, (p.Region, p.Write))}
    mode: set[str] = set()
    bits = set(repro.bits)
    for at, (_, op) in enumerate(repro.body.ops):
        if isinstance(op, p.Put) and op.place.buffer.startswith("sregs") and op.place.offset in _MODE:
            if at not in kept | repro.pinned:
                bits.add((at, _MODE[op.place.offset]))
            kept.add(at)
            mode.add(op.place.buffer)
        elif isinstance(op, p.Ioctl) and op.request in (uapi.KVM_SET_SREGS, uapi.KVM_SET_SREGS2) and op.arg in mode:
            kept.add(at)
    vm = {at for at, (_, op) in enumerate(repro.vm.ops) if mode and isinstance(op, p.Cpuid) and op.vcpu == repro.target}
    return repro._replace(pinned=repro.pinned | kept, bits=frozenset(bits), pinned_vm=repro.pinned_vm | vm)
