# SPDX-License-Identifier: GPL-2.0-only
"""Execute the program that creates a VM and its vCPUs."""

from __future__ import annotations

import ctypes
from typing import NamedTuple

from kvmtest.kvm import CpuidEntry, KvmError, Vcpu, Vm
from kvmtest.kvm.ioctl import ioctl
from kvmtest.scenario import program as p
from kvmtest.uapi.kvm import (
    KVM_ENABLE_CAP,
    KVM_MSR_FILTER_READ,
    KVM_MSR_FILTER_WRITE,
    kvm_enable_cap,
    kvm_msr_filter,
    kvm_msr_filter_range,
)
from kvmtest.x86 import cpuid

__all__ = ("Host", "Made", "SetupError", "leaves_of", "make")


class SetupError(RuntimeError):
    """This host's KVM lacks a capability that the VM of a case needs."""


class Host:
    """The facts that the program of ``vm`` depends on; ``supported`` are KVM_GET_SUPPORTED_CPUID's entries. Raises KvmError."""

    def __init__(self, vm: Vm, supported: list[CpuidEntry]) -> None:
        self._vm, self.supported = vm, supported

    @property
    def mce_cap(self) -> int:
        """KVM_X86_GET_MCE_CAP_SUPPORTED."""
        return self._vm.kvm.mce_cap_supported()

    def check_extension(self, cap: int) -> int:
        """KVM_CHECK_EXTENSION on the VM."""
        return self._vm.check_extension(cap)


class Made(NamedTuple):
    """The vCPUs in the order of their creation, and the leaves of CPUID that the last one got."""

    vcpus: list[Vcpu]
    leaves: list[CpuidEntry]


def make(vm: Vm, program: p.Program, supported: list[CpuidEntry]) -> Made:
    """Execute ``program``, that of a VM, on ``vm``. Raises SetupError, KvmError."""
    buffers = {name: ctypes.create_string_buffer(kept.contents, len(kept.contents)) for name, kept in program.buffers.items()}
    for name, kept in program.buffers.items():
        if kept.kind == p.DENIED:
            made = _filter(kept.contents)
            buffers[name] = (ctypes.c_char * ctypes.sizeof(made)).from_buffer(made)
    vcpus: dict[int, Vcpu] = {}
    leaves: list[CpuidEntry] = []
    for _, op in program.ops:
        if isinstance(op, p.Create):
            vcpus[op.vcpu] = vm.create_vcpu(op.vcpu)
        elif isinstance(op, p.Cpuid):
            leaves = leaves_of(op, supported)
            vcpus[op.vcpu].set_cpuid2(leaves)
        elif isinstance(op, p.Ioctl):
            fd, what = (vm.fd, "vm") if op.on == p.VM else (vcpus[op.on].fd, f"vcpu {op.on}")
            try:
                ioctl(fd, op.request, op.arg if isinstance(op.arg, int) else ctypes.addressof(buffers[op.arg]), what)
            except KvmError as error:
                if op.request != KVM_ENABLE_CAP or not isinstance(op.arg, str) or error.passing:
                    raise
                raise _lacking(vm, buffers[op.arg].raw, error) from None
        else:
            raise TypeError(f"no op of a VM's: {op}")
    return Made(list(vcpus.values()), leaves)


def leaves_of(op: p.Cpuid, supported: list[CpuidEntry]) -> list[CpuidEntry]:
    """The leaves that ``op`` gives a vCPU."""
    return cpuid.changed([leaf for leaf in supported if not op.only or leaf.function in op.only], op.changes)


#: The bitmap of one MSR that is denied.
_NONE = ctypes.create_string_buffer(1)


def _filter(contents: bytes) -> kvm_msr_filter:
    """The filter that denies each of the MSRs in a buffer of the kind DENIED."""
    made = kvm_msr_filter()
    for number, at in enumerate(range(0, len(contents), 4)):
        base = int.from_bytes(contents[at : at + 4], "little")
        accesses = KVM_MSR_FILTER_READ | KVM_MSR_FILTER_WRITE
        made.ranges[number] = kvm_msr_filter_range(accesses, 1, base, ctypes.addressof(_NONE))
    return made


def _lacking(vm: Vm, contents: bytes, error: KvmError) -> Exception:
    """Return the exception for a capability that KVM does not enable."""
    asked = kvm_enable_cap.from_buffer_copy(contents)
    cap, argument = asked.cap, asked.args[0]
    there = vm.check_extension(cap)
    # For most capabilities with flags KVM_CHECK_EXTENSION returns the supported ones.
    if there and there & argument == argument:
        return error
    return SetupError(f"KVM_ENABLE_CAP of {cap} with {argument:#x} fails with {error.name}: not there")
