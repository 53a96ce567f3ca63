# SPDX-License-Identifier: GPL-2.0-only
"""`struct kvm_run`: the page that KVM and userspace share for each vCPU.

Of its exits, those that x86 can report and this project reads are there; the union has its full size.
"""

from __future__ import annotations

from ctypes import Structure, Union, c_uint8, c_uint16, c_uint32, c_uint64

from .consts import SYNC_REGS_SIZE_BYTES
from .structs import kvm_debug_exit_arch, kvm_sync_regs

# fmt: off


class _kvm_run_hw(Structure):
    _fields_ = (("hardware_exit_reason", c_uint64),)


class _kvm_run_fail_entry(Structure):
    _fields_ = (("hardware_entry_failure_reason", c_uint64), ("cpu", c_uint32))


class _kvm_run_ex(Structure):
    _fields_ = (("exception", c_uint32), ("error_code", c_uint32))


class _kvm_run_io(Structure):
    _fields_ = (
        ("direction", c_uint8), ("size", c_uint8), ("port", c_uint16), ("count", c_uint32),
        ("data_offset", c_uint64),
    )


class _kvm_run_debug(Structure):
    _fields_ = (("arch", kvm_debug_exit_arch),)


class _kvm_run_mmio(Structure):
    _fields_ = (("phys_addr", c_uint64), ("data", c_uint8 * 8), ("len", c_uint32), ("is_write", c_uint8))


class _kvm_run_hypercall_u(Union):
    _fields_ = (("longmode", c_uint32), ("flags", c_uint64))


class _kvm_run_hypercall(Structure):
    _anonymous_ = ("u",)
    _fields_ = (("nr", c_uint64), ("args", c_uint64 * 6), ("ret", c_uint64), ("u", _kvm_run_hypercall_u))


class _kvm_run_tpr_access(Structure):
    _fields_ = (("rip", c_uint64), ("is_write", c_uint32), ("pad", c_uint32))


class _kvm_run_internal(Structure):
    _fields_ = (("suberror", c_uint32), ("ndata", c_uint32), ("data", c_uint64 * 16))


class _kvm_run_emulation_failure(Structure):
    _fields_ = (
        ("suberror", c_uint32), ("ndata", c_uint32), ("flags", c_uint64), ("insn_size", c_uint8),
        ("insn_bytes", c_uint8 * 15),
    )


class _kvm_run_system_event_u(Union):
    _fields_ = (("flags", c_uint64), ("data", c_uint64 * 16))


class _kvm_run_system_event(Structure):
    _anonymous_ = ("u",)
    _fields_ = (("type", c_uint32), ("ndata", c_uint32), ("u", _kvm_run_system_event_u))


class _kvm_run_eoi(Structure):
    _fields_ = (("vector", c_uint8),)


class _kvm_run_msr(Structure):
    _fields_ = (
        ("error", c_uint8), ("pad", c_uint8 * 7), ("reason", c_uint32), ("index", c_uint32),
        ("data", c_uint64),
    )


class _kvm_run_notify(Structure):
    _fields_ = (("flags", c_uint32),)


class _kvm_run_memory_fault(Structure):
    _fields_ = (("flags", c_uint64), ("gpa", c_uint64), ("size", c_uint64))


class _kvm_run_u(Union):
    _fields_ = (
        ("hw", _kvm_run_hw), ("fail_entry", _kvm_run_fail_entry), ("ex", _kvm_run_ex), ("io", _kvm_run_io),
        ("debug", _kvm_run_debug), ("mmio", _kvm_run_mmio), ("hypercall", _kvm_run_hypercall),
        ("tpr_access", _kvm_run_tpr_access), ("internal", _kvm_run_internal),
        ("emulation_failure", _kvm_run_emulation_failure), ("system_event", _kvm_run_system_event),
        ("eoi", _kvm_run_eoi), ("msr", _kvm_run_msr), ("notify", _kvm_run_notify),
        ("memory_fault", _kvm_run_memory_fault), ("padding", c_uint8 * 256),
    )


class _kvm_run_s(Union):
    _fields_ = (("regs", kvm_sync_regs), ("padding", c_uint8 * SYNC_REGS_SIZE_BYTES))


class kvm_run(Structure):
    """struct kvm_run, which mmap() of a vCPU's file descriptor maps; the exit union is anonymous, as in C."""

    _anonymous_ = ("u",)
    _fields_ = (
        ("request_interrupt_window", c_uint8), ("immediate_exit", c_uint8), ("padding1", c_uint8 * 6),
        ("exit_reason", c_uint32), ("ready_for_interrupt_injection", c_uint8), ("if_flag", c_uint8),
        ("flags", c_uint16), ("cr8", c_uint64), ("apic_base", c_uint64), ("u", _kvm_run_u),
        ("kvm_valid_regs", c_uint64), ("kvm_dirty_regs", c_uint64), ("s", _kvm_run_s),
    )
