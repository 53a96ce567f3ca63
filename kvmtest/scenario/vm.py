# SPDX-License-Identifier: GPL-2.0-only
"""Lower a setup to a program: the ops that create its VM and vCPUs."""

from __future__ import annotations

from ctypes import sizeof
from typing import Protocol

from kvmtest.scenario.memory import IDENTITY_MAP, TSS
from kvmtest.scenario.program import DENIED, VM, Buffer, Cpuid, Create, Ioctl, Op, Program
from kvmtest.scenario.setup import SPARSE, Setup
from kvmtest.uapi import kvm as uapi
from kvmtest.x86 import cpuid

__all__ = ("Host", "lower")

#: Limits of ids: of an xAPIC FFH, which is the broadcast; with 32-bit ids what every KVM has accepted since v4.9.
_END_XAPIC, _END_X2APIC = 255, 288
#: Those below the last one that say something: on both sides of each power of two and of FFH, and at the ends of the clusters of
#: 16 that logical x2APIC ids have.
_SPARSE = (0, 1, 2, 3, 4, 7, 8, 15, 16, 17, 31, 32, 63, 64, 127, 128, 253, 254, 255, 256, 257, 271, 272)
_X2APIC_API = uapi.KVM_X2APIC_API_USE_32BIT_IDS | uapi.KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK
#: Capabilities with which KVM_GET_VCPU_EVENTS reports pending exceptions apart from injected ones, and a pending triple fault.
_EVENT_CAPS = (uapi.KVM_CAP_EXCEPTION_PAYLOAD, uapi.KVM_CAP_X86_TRIPLE_FAULT_EVENT)
#: IA32_MCG_CAP.Count: as many banks as show what there is to show.
_BANKS, _MCE_BANKS = 0xFF, 4
#: CPUID.1:ECX, the local APIC's timer has the TSC-deadline mode.
_TSC_DEADLINE = 1 << 24
#: Features that a setup may leave out: function, register, bit.
_WITHOUT = {
    "no-long-mode": (0x80000001, "edx", 29),
    "no-svm": (0x80000001, "ecx", 2),
    "no-x2apic": (1, "ecx", 21),
}
#: The pins of the IOAPIC that userspace has with the split irqchip.
_PINS = 24


class Host(Protocol):
    """The facts about the host that a VM's program depends on."""

    #: The entries of KVM_GET_SUPPORTED_CPUID.
    supported: list[cpuid.CpuidEntry]

    @property
    def mce_cap(self) -> int:
        """The value of KVM_X86_GET_MCE_CAP_SUPPORTED."""

    def check_extension(self, cap: int) -> int:
        """KVM_CHECK_EXTENSION on the VM."""


def lower(setup: Setup, host: Host) -> Program:
    """The program that creates the VM of ``setup``, from after KVM_CREATE_VM on; each op is a step of its own."""
    buffers: dict[str, Buffer] = {}
    ops: list[Op] = []

    def ioctl(on: int, request: int, name: str, kind: str, contents: bytes) -> None:
        buffers[name] = Buffer(kind, contents)
        ops.append(Ioctl(on, request, name))

    def enable(cap: int, argument: int) -> None:
        args = (argument, 0, 0, 0)
        ioctl(VM, uapi.KVM_ENABLE_CAP, f"cap{cap}", "kvm_enable_cap", bytes(uapi.kvm_enable_cap(cap, 0, args)))

    ioctl(VM, uapi.KVM_SET_IDENTITY_MAP_ADDR, "identity_map", "u64", IDENTITY_MAP.to_bytes(8, "little"))
    ops.append(Ioctl(VM, uapi.KVM_SET_TSS_ADDR, TSS))
    asked = [cap for cap, _ in setup.caps]
    for cap in (cap for cap in _EVENT_CAPS if cap not in asked):
        if host.check_extension(cap):
            enable(cap, 1)
    if setup.irqchip == "full":
        ops.append(Ioctl(VM, uapi.KVM_CREATE_IRQCHIP))
    elif setup.irqchip == "split":
        enable(uapi.KVM_CAP_SPLIT_IRQCHIP, _PINS)
    if setup.boot_id:
        ops.append(Ioctl(VM, uapi.KVM_SET_BOOT_CPU_ID, setup.boot_id))
    if setup.x2apic_ids:
        enable(uapi.KVM_CAP_X2APIC_API, _X2APIC_API)
    for cap, argument in setup.caps:
        enable(cap, argument)
    if setup.denied:
        contents = b"".join(index.to_bytes(4, "little") for index in setup.denied)
        ioctl(VM, uapi.KVM_X86_SET_MSR_FILTER, "denied", DENIED, contents)
    ids = setup.ids or (tuple(range(setup.vcpus)) if setup.vcpus != SPARSE else _sparse(setup, host))
    ops += map(Create, ids)
    for id in ids:
        if setup.vendor and setup.leaves != "none":
            ops.append(_cpuid(setup, host, id))
        if setup.mce:
            mcg_cap = host.mce_cap & ~_BANKS | _MCE_BANKS
            ioctl(id, uapi.KVM_X86_SETUP_MCE, f"mcg_cap{id}", "u64", mcg_cap.to_bytes(8, "little"))
    if setup.irqchip != "none" and setup.heard:
        # The vCPU created last is missing from KVM's map of APIC ids until something recalculates it.
        ioctl(ids[-1], uapi.KVM_GET_LAPIC, "heard", "kvm_lapic_state", bytes(sizeof(uapi.kvm_lapic_state)))
        ops.append(Ioctl(ids[-1], uapi.KVM_SET_LAPIC, "heard"))
    return Program(buffers, tuple(enumerate(ops)))


def _sparse(setup: Setup, host: Host) -> tuple[int, ...]:
    end = _END_X2APIC if setup.x2apic_ids else _END_XAPIC
    last = min(host.check_extension(uapi.KVM_CAP_MAX_VCPUS), end) - 1
    return (*(i for i in _SPARSE if i < last), last)


def _cpuid(setup: Setup, host: Host, id: int) -> Cpuid:
    """Return a vCPU's CPUID, as changes to KVM_GET_SUPPORTED_CPUID."""
    changes = cpuid.changes(host.supported, setup.vendor, id)
    if setup.leaves == "0":
        return Cpuid(id, (*(change for change in changes if change[0] == 0), (0, "eax", cpuid.ALL, 0)), (0,))
    if setup.leaves == "deadline":
        # KVM has the mode when this bit is set, which KVM_GET_SUPPORTED_CPUID does not do on all kernels.
        changes = (*changes, (1, "ecx", _TSC_DEADLINE, _TSC_DEADLINE))
    if setup.leaves in _WITHOUT:
        function, register, bit = _WITHOUT[setup.leaves]
        changes = (*changes, (function, register, 1 << bit, 0))
    return Cpuid(id, changes)
