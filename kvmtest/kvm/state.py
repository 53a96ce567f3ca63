# SPDX-License-Identifier: GPL-2.0-only
"""The state of a vCPU: one method an ioctl. Sections named are those of Documentation/virt/kvm/api.rst."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from ctypes import addressof, byref, c_uint8, c_uint64, create_string_buffer, sizeof
from typing import TYPE_CHECKING

from ..uapi.caps import KVM_CAP_NESTED_STATE, KVM_CAP_XSAVE2
from ..uapi.consts import KVM_REG_SIZE_MASK, KVM_REG_SIZE_SHIFT
from ..uapi.ioctls import (
    KVM_GET_CPUID2,
    KVM_GET_DEBUGREGS,
    KVM_GET_FPU,
    KVM_GET_LAPIC,
    KVM_GET_MP_STATE,
    KVM_GET_NESTED_STATE,
    KVM_GET_ONE_REG,
    KVM_GET_REGS,
    KVM_GET_SREGS,
    KVM_GET_SREGS2,
    KVM_GET_TSC_KHZ,
    KVM_GET_VCPU_EVENTS,
    KVM_GET_XCRS,
    KVM_GET_XSAVE,
    KVM_GET_XSAVE2,
    KVM_KVMCLOCK_CTRL,
    KVM_SET_CPUID2,
    KVM_SET_DEBUGREGS,
    KVM_SET_FPU,
    KVM_SET_LAPIC,
    KVM_SET_MP_STATE,
    KVM_SET_NESTED_STATE,
    KVM_SET_ONE_REG,
    KVM_SET_REGS,
    KVM_SET_SREGS,
    KVM_SET_SREGS2,
    KVM_SET_TSC_KHZ,
    KVM_SET_VCPU_EVENTS,
    KVM_SET_XCRS,
    KVM_SET_XSAVE,
    KVM_TRANSLATE,
    KVM_X86_SET_MCE,
    KVM_X86_SETUP_MCE,
)
from ..uapi.structs import (
    kvm_debugregs,
    kvm_fpu,
    kvm_lapic_state,
    kvm_mp_state,
    kvm_nested_state,
    kvm_one_reg,
    kvm_regs,
    kvm_sregs,
    kvm_sregs2,
    kvm_translation,
    kvm_vcpu_events,
    kvm_x86_mce,
    kvm_xcrs,
    kvm_xsave,
)
from .check import structure, unsigned
from .cpuid import CpuidEntry, pack_cpuid, read_cpuid
from .ioctl import ioctl
from .msrs import read_msrs, write_msrs

if TYPE_CHECKING:
    from .vm import Vm

__all__ = ["VcpuState"]


class VcpuState:
    """The state ioctls of Vcpu. Every method raises KvmError if KVM refuses."""

    fd: int
    id: int
    vm: Vm
    _what: str
    _xsave_size: int

    def get_regs(self) -> kvm_regs:
        """KVM_GET_REGS (4.11): general-purpose registers, RIP and RFLAGS."""
        value = kvm_regs()
        ioctl(self.fd, KVM_GET_REGS, byref(value), self._what)
        return value

    def set_regs(self, value: kvm_regs) -> None:
        """KVM_SET_REGS (4.12)."""
        structure(kvm_regs, value=value)
        ioctl(self.fd, KVM_SET_REGS, byref(value), self._what)

    def get_sregs(self) -> kvm_sregs:
        """KVM_GET_SREGS (4.13): segment, control and descriptor-table registers, EFER, APIC base."""
        value = kvm_sregs()
        ioctl(self.fd, KVM_GET_SREGS, byref(value), self._what)
        return value

    def set_sregs(self, value: kvm_sregs) -> None:
        """KVM_SET_SREGS (4.14)."""
        structure(kvm_sregs, value=value)
        ioctl(self.fd, KVM_SET_SREGS, byref(value), self._what)

    def get_sregs2(self) -> kvm_sregs2:
        """KVM_GET_SREGS2 (4.131): as KVM_GET_SREGS, with the PDPTRs. KVM_CAP_SREGS2."""
        value = kvm_sregs2()
        ioctl(self.fd, KVM_GET_SREGS2, byref(value), self._what)
        return value

    def set_sregs2(self, value: kvm_sregs2) -> None:
        """KVM_SET_SREGS2 (4.132). `flags` may have KVM_SREGS2_FLAGS_PDPTRS_VALID."""
        structure(kvm_sregs2, value=value)
        ioctl(self.fd, KVM_SET_SREGS2, byref(value), self._what)

    def get_debugregs(self) -> kvm_debugregs:
        """KVM_GET_DEBUGREGS (4.33): DR0-DR3, DR6 and DR7. KVM_CAP_DEBUGREGS."""
        value = kvm_debugregs()
        ioctl(self.fd, KVM_GET_DEBUGREGS, byref(value), self._what)
        return value

    def set_debugregs(self, value: kvm_debugregs) -> None:
        """KVM_SET_DEBUGREGS (4.34)."""
        structure(kvm_debugregs, value=value)
        ioctl(self.fd, KVM_SET_DEBUGREGS, byref(value), self._what)

    def get_fpu(self) -> kvm_fpu:
        """KVM_GET_FPU (4.22): x87 and XMM state; `mxcsr` always reads 0, see get_xsave()."""
        value = kvm_fpu()
        ioctl(self.fd, KVM_GET_FPU, byref(value), self._what)
        return value

    def set_fpu(self, value: kvm_fpu) -> None:
        """KVM_SET_FPU (4.23)."""
        structure(kvm_fpu, value=value)
        ioctl(self.fd, KVM_SET_FPU, byref(value), self._what)

    def get_xcrs(self) -> kvm_xcrs:
        """KVM_GET_XCRS (4.44): XCR0. KVM_CAP_XCRS."""
        value = kvm_xcrs()
        ioctl(self.fd, KVM_GET_XCRS, byref(value), self._what)
        return value

    def set_xcrs(self, value: kvm_xcrs) -> None:
        """KVM_SET_XCRS (4.45)."""
        structure(kvm_xcrs, value=value)
        ioctl(self.fd, KVM_SET_XCRS, byref(value), self._what)

    def get_lapic(self) -> kvm_lapic_state:
        """KVM_GET_LAPIC (4.57): the first 1 KiB of the APIC page; needs an in-kernel local APIC."""
        value = kvm_lapic_state()
        ioctl(self.fd, KVM_GET_LAPIC, byref(value), self._what)
        return value

    def set_lapic(self, value: kvm_lapic_state) -> None:
        """KVM_SET_LAPIC (4.58)."""
        structure(kvm_lapic_state, value=value)
        ioctl(self.fd, KVM_SET_LAPIC, byref(value), self._what)

    def get_vcpu_events(self) -> kvm_vcpu_events:
        """KVM_GET_VCPU_EVENTS (4.31): pending and injected exceptions, interrupts, NMIs, SMIs. KVM_CAP_VCPU_EVENTS."""
        value = kvm_vcpu_events()
        ioctl(self.fd, KVM_GET_VCPU_EVENTS, byref(value), self._what)
        return value

    def set_vcpu_events(self, value: kvm_vcpu_events) -> None:
        """KVM_SET_VCPU_EVENTS (4.32). `flags` says which parts are meant (KVM_VCPUEVENT_VALID_*)."""
        structure(kvm_vcpu_events, value=value)
        ioctl(self.fd, KVM_SET_VCPU_EVENTS, byref(value), self._what)

    def get_mp_state(self) -> int:
        """KVM_GET_MP_STATE (4.38): KVM_MP_STATE_*. Accepts a pending INIT or SIPI first, which changes other state."""
        value = kvm_mp_state()
        ioctl(self.fd, KVM_GET_MP_STATE, byref(value), self._what)
        return int(value.mp_state)

    def set_mp_state(self, state: int) -> None:
        """KVM_SET_MP_STATE (4.39): one of KVM_MP_STATE_*; no register changes."""
        unsigned(32, state=state)
        ioctl(self.fd, KVM_SET_MP_STATE, byref(kvm_mp_state(state)), f"{self._what}, state {state}")

    def xsave_size(self) -> int:
        """The bytes of get_xsave(): KVM_CAP_XSAVE2 of the VM, or 4096 where KVM lacks that; asked for once."""
        if not self._xsave_size:
            size = self.vm.check_extension(KVM_CAP_XSAVE2)
            self._xsave_size = size or sizeof(kvm_xsave)
            self._xsave_request = KVM_GET_XSAVE2 if size else KVM_GET_XSAVE
        return self._xsave_size

    def get_xsave(self) -> bytes:
        """KVM_GET_XSAVE2 (4.134), or KVM_GET_XSAVE where KVM lacks it: the XSAVE area, standard format."""
        buffer = create_string_buffer(self.xsave_size())
        ioctl(self.fd, self._xsave_request, buffer, self._what)
        return buffer.raw

    def set_xsave(self, area: bytes) -> None:
        """KVM_SET_XSAVE (4.43). Raises ValueError unless `area` has xsave_size() bytes, since KVM reads that many."""
        if len(area) != self.xsave_size():
            raise ValueError(f"an XSAVE area of {len(area)} bytes, not {self.xsave_size()}")
        ioctl(self.fd, KVM_SET_XSAVE, bytes(area), self._what)

    def get_nested_state(self) -> bytes:
        """KVM_GET_NESTED_STATE (4.114): a struct kvm_nested_state and the data after it, `size` bytes in all.

        KVM_CAP_NESTED_STATE.
        """
        room = max(self.vm.check_extension(KVM_CAP_NESTED_STATE), sizeof(kvm_nested_state))
        buffer = create_string_buffer(room)
        header = kvm_nested_state.from_buffer(buffer)
        header.size = room
        ioctl(self.fd, KVM_GET_NESTED_STATE, buffer, self._what)
        return buffer.raw[: header.size]

    def set_nested_state(self, state: bytes) -> None:
        """KVM_SET_NESTED_STATE (4.115). Raises ValueError if `state` is shorter than its own `size`."""
        if len(state) < sizeof(kvm_nested_state) or kvm_nested_state.from_buffer_copy(state).size > len(state):
            raise ValueError(f"a nested state of {len(state)} bytes is cut short")
        ioctl(self.fd, KVM_SET_NESTED_STATE, bytes(state), self._what)

    def get_msrs(self, indices: Sequence[int]) -> dict[int, int]:
        """KVM_GET_MSRS (4.18): MSR values by index; those that KVM refuses are left out. Any number of MSRs."""
        return read_msrs(self.fd, indices, self._what)

    def set_msrs(self, values: Mapping[int, int]) -> int:
        """KVM_SET_MSRS (4.19): set MSRs in order, up to the first that KVM refuses; returns how many were set."""
        return write_msrs(self.fd, values, self._what)

    def get_one_reg(self, id: int) -> int:
        """KVM_GET_ONE_REG (4.69): the value of register `id`, whose KVM_REG_SIZE_* says how many bytes it has."""
        unsigned(64, id=id)
        buffer = (c_uint8 * (1 << ((id & KVM_REG_SIZE_MASK) >> KVM_REG_SIZE_SHIFT)))()
        request = kvm_one_reg(id, addressof(buffer))
        ioctl(self.fd, KVM_GET_ONE_REG, byref(request), f"{self._what}, register {id:#x}")
        return int.from_bytes(buffer, "little")

    def set_one_reg(self, id: int, value: int) -> None:
        """KVM_SET_ONE_REG (4.68). Raises ValueError if `value` does not fit the register's size."""
        unsigned(64, id=id)
        size = 1 << ((id & KVM_REG_SIZE_MASK) >> KVM_REG_SIZE_SHIFT)
        unsigned(8 * size, value=value)
        buffer = (c_uint8 * size).from_buffer_copy(value.to_bytes(size, "little"))
        request = kvm_one_reg(id, addressof(buffer))
        ioctl(self.fd, KVM_SET_ONE_REG, byref(request), f"{self._what}, register {id:#x}")

    def get_cpuid2(self) -> list[CpuidEntry]:
        """KVM_GET_CPUID2 (after 4.20): the leaves that KVM_SET_CPUID2 gave; none at first."""
        return read_cpuid(self.fd, KVM_GET_CPUID2, self._what)

    def set_cpuid2(self, entries: Iterable[CpuidEntry]) -> None:
        """KVM_SET_CPUID2 (4.20): what CPUID says in the guest. KVM refuses a change after the first KVM_RUN."""
        ioctl(self.fd, KVM_SET_CPUID2, pack_cpuid(entries), self._what)

    def translate(self, linear_address: int) -> kvm_translation:
        """KVM_TRANSLATE (4.15): what the guest's page tables make of an address; `valid` says whether it is mapped."""
        unsigned(64, linear_address=linear_address)
        value = kvm_translation(linear_address)
        ioctl(self.fd, KVM_TRANSLATE, byref(value), f"{self._what}, address {linear_address:#x}")
        return value

    def get_tsc_khz(self) -> int:
        """KVM_GET_TSC_KHZ (4.56): the guest's TSC frequency in kHz. KVM_CAP_GET_TSC_KHZ."""
        return ioctl(self.fd, KVM_GET_TSC_KHZ, 0, self._what)

    def set_tsc_khz(self, khz: int) -> None:
        """KVM_SET_TSC_KHZ (4.55). KVM_CAP_TSC_CONTROL."""
        ioctl(self.fd, KVM_SET_TSC_KHZ, khz, f"{self._what}, {khz} kHz")

    def x86_setup_mce(self, mcg_cap: int) -> None:
        """KVM_X86_SETUP_MCE (4.105): set MCG_CAP, whose low byte is the number of banks. KVM_CAP_MCE."""
        unsigned(64, mcg_cap=mcg_cap)
        ioctl(self.fd, KVM_X86_SETUP_MCE, byref(c_uint64(mcg_cap)), f"{self._what}, MCG_CAP {mcg_cap:#x}")

    def x86_set_mce(self, mce: kvm_x86_mce) -> None:
        """KVM_X86_SET_MCE (4.106): inject a machine check into bank `mce.bank`. KVM_CAP_MCE."""
        structure(kvm_x86_mce, mce=mce)
        ioctl(self.fd, KVM_X86_SET_MCE, byref(mce), f"{self._what}, bank {mce.bank}")

    def kvmclock_ctrl(self) -> None:
        """KVM_KVMCLOCK_CTRL (4.70): mark the guest as paused; refused while it has no kvmclock."""
        ioctl(self.fd, KVM_KVMCLOCK_CTRL, 0, self._what)
