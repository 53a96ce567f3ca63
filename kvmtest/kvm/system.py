# SPDX-License-Identifier: GPL-2.0-only
"""/dev/kvm. Sections named are those of Documentation/virt/kvm/api.rst."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from ctypes import byref, c_long, c_uint32, c_uint64
from types import TracebackType

from ..uapi.ioctls import (
    KVM_CHECK_EXTENSION,
    KVM_CREATE_VM,
    KVM_GET_API_VERSION,
    KVM_GET_EMULATED_CPUID,
    KVM_GET_MSR_FEATURE_INDEX_LIST,
    KVM_GET_MSR_INDEX_LIST,
    KVM_GET_SUPPORTED_CPUID,
    KVM_GET_VCPU_MMAP_SIZE,
    KVM_X86_GET_MCE_CAP_SUPPORTED,
)
from .cpuid import CpuidEntry, read_cpuid
from .error import KvmError
from .ioctl import ioctl, libc
from .msrs import read_msrs
from .stop import Stop
from .vm import Vm

__all__ = ["Kvm"]

_SYS_ARCH_PRCTL = 158
_ARCH_REQ_XCOMP_GUEST_PERM = 0x1025


class Kvm:
    """The KVM of this host. Raises OSError if `path` cannot be opened for reading and writing.

    Set `stop.seen`, from a signal's handler or from another thread, and no vCPU runs on: see Vcpu.run().
    """

    def __init__(self, path: str = "/dev/kvm") -> None:
        self.fd = -1
        self.path = path
        self.stop = Stop()
        #: The context that a thread runs a vCPU in: `kvmtest.kvm.kcov.Kcov.thread` to trace it.
        self.traced: Callable[[], AbstractContextManager[None]] = nullcontext
        self._mmap_size = 0
        self.fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)

    def api_version(self) -> int:
        """KVM_GET_API_VERSION (4.1): 12."""
        return ioctl(self.fd, KVM_GET_API_VERSION, 0, self.path)

    def check_extension(self, cap: int) -> int:
        """KVM_CHECK_EXTENSION (4.4): 0 if KVM lacks KVM_CAP_* number `cap`, else 1 or a capability's own number."""
        return ioctl(self.fd, KVM_CHECK_EXTENSION, cap, f"{self.path}, cap {cap}")

    def create_vm(self, type: int = 0) -> Vm:
        """KVM_CREATE_VM (4.2): a VM without memory, vCPUs and irqchip. `type`: KVM_X86_*_VM. Raises KvmError."""
        return Vm(self, ioctl(self.fd, KVM_CREATE_VM, type, f"{self.path}, type {type}"))

    def vcpu_mmap_size(self) -> int:
        """KVM_GET_VCPU_MMAP_SIZE (4.5): the bytes that a vCPU's file descriptor has to be mapped with."""
        if not self._mmap_size:
            self._mmap_size = ioctl(self.fd, KVM_GET_VCPU_MMAP_SIZE, 0, self.path)
        return self._mmap_size

    def _index_list(self, request: int) -> list[int]:
        count = 256
        while True:
            buffer = (c_uint32 * (1 + count))(count)
            try:
                ioctl(self.fd, request, buffer, self.path)
            except KvmError as error:
                if error.errno != errno.E2BIG or buffer[0] <= count:
                    raise
                count = buffer[0]
            else:
                return buffer[1 : 1 + buffer[0]]

    def msr_index_list(self) -> list[int]:
        """KVM_GET_MSR_INDEX_LIST (4.3): the MSRs that a vCPU can save and restore."""
        return self._index_list(KVM_GET_MSR_INDEX_LIST)

    def msr_feature_index_list(self) -> list[int]:
        """KVM_GET_MSR_FEATURE_INDEX_LIST (4.3): the MSRs that describe features. Raises KvmError where KVM lacks it."""
        return self._index_list(KVM_GET_MSR_FEATURE_INDEX_LIST)

    def get_msrs(self, indices: list[int]) -> dict[int, int]:
        """KVM_GET_MSRS (4.18) on /dev/kvm: the host's values of feature MSRs; those that KVM refuses are left out."""
        return read_msrs(self.fd, indices, self.path)

    def supported_cpuid(self) -> list[CpuidEntry]:
        """KVM_GET_SUPPORTED_CPUID (4.46): the CPUID leaves that this host and KVM can give to a guest."""
        return read_cpuid(self.fd, KVM_GET_SUPPORTED_CPUID, self.path)

    def request_guest_permission(self, component: int) -> bool:
        """arch_prctl(ARCH_REQ_XCOMP_GUEST_PERM): let this process's guests use an XSAVE component such as 18, TILEDATA.

        Call it before supported_cpuid() and before the first vCPU. False where kernel or CPU have no such component
        (Documentation/arch/x86/xstate.rst, since v5.17).
        """
        return bool(libc.syscall(c_long(_SYS_ARCH_PRCTL), c_long(_ARCH_REQ_XCOMP_GUEST_PERM), c_long(component)) == 0)

    def emulated_cpuid(self) -> list[CpuidEntry]:
        """KVM_GET_EMULATED_CPUID (4.88): the features that KVM emulates in software."""
        return read_cpuid(self.fd, KVM_GET_EMULATED_CPUID, self.path)

    def mce_cap_supported(self) -> int:
        """KVM_X86_GET_MCE_CAP_SUPPORTED (4.104): the MCG_CAP bits that KVM_X86_SETUP_MCE accepts."""
        value = c_uint64()
        ioctl(self.fd, KVM_X86_GET_MCE_CAP_SUPPORTED, byref(value), self.path)
        return value.value

    @property
    def closed(self) -> bool:
        """True once close() was called."""
        return self.fd < 0

    def close(self) -> None:
        """Close /dev/kvm; VMs made from it live on. Can be called again."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> Kvm:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "fd"):
            self.close()
