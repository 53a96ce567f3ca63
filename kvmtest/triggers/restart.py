# SPDX-License-Identifier: GPL-2.0-only
"""Seeing a boot processor restart: what is behind the reset vector says so by one OUT, before anything else is executed."""

from __future__ import annotations

from kvmtest.guests import spine
from kvmtest.kvm import Exit, Vcpu
from kvmtest.uapi.kvm import KVM_EXIT_IO, KVM_EXIT_IO_OUT

__all__ = ("PORT", "SIZE_OF_OUT", "restarted", "watch")

PORT = 0xF4
#: Bytes of OUT imm8, AL: how far RIP is behind the reset vector when the exit is complete.
SIZE_OF_OUT = 2

_GPA, _SIZE, _SLOT = 0xFFFFF000, 0x1000, 5
_VECTOR = 0xFFFFFFF0
#: OUT PORT, AL, then HLT over and over.
_CODE = bytes((0xE6, PORT, 0xF4, 0xEB, 0xFD))


def watch(vcpu: Vcpu) -> None:
    """Put the OUT behind the reset vector of ``vcpu``'s VM, where it has no memory there. Raises KvmError."""
    if vcpu.vm.memory_at(_VECTOR) is None:
        vcpu.vm.add_memory(_SLOT, _GPA, _SIZE).write(_VECTOR, _CODE)


def restarted(seen: Exit | None) -> bool:
    """Whether ``seen`` is the exit of the first instruction at the reset vector, which proves that the vCPU came by it."""
    if seen is None or seen.reason != KVM_EXIT_IO or seen.direction != KVM_EXIT_IO_OUT:
        return False
    # The other port is that of the guest that reports its state, where that one lies at the vector.
    return seen.port == PORT or seen.port == spine.PORT_RAX
