# SPDX-License-Identifier: GPL-2.0-only
"""Reproducers by hand: an op of each kind, on a VM with two vCPUs."""

from __future__ import annotations

import ctypes
import errno

from kvmtest.emit.repro import Check, Repro
from kvmtest.scenario import program as p
from kvmtest.uapi import kvm as uapi

__all__ = ("BUFFERS", "NAMES", "OPS", "VM", "msr_check", "repro")


def _struct(kind: str, **fields: int) -> p.Buffer:
    return p.Buffer(kind, bytes(getattr(uapi, kind)(**fields)))


def _msr(index: int, value: int = 0) -> p.Buffer:
    return p.Buffer("kvm_msrs", b"".join(part.to_bytes(8, "little") for part in (1, index, value)))


NAMES = {name: ctypes.sizeof(getattr(uapi, name)) for name in ("kvm_regs", "kvm_sregs", "kvm_mp_state")}
BUFFERS = {
    "regs1": p.Buffer("kvm_regs", bytes(NAMES["kvm_regs"])),
    "sregs1": p.Buffer("kvm_sregs", bytes(NAMES["kvm_sregs"])),
    "mp_state1": _struct("kvm_mp_state", mp_state=uapi.KVM_MP_STATE_RUNNABLE),
    "lapic1": p.Buffer("kvm_lapic_state", bytes(1024)),
    "whole_lapic": p.Buffer("kvm_lapic_state", bytes(0x20) + b"\x55\0\0\x80" + bytes(1024 - 0x24)),
    "events1": p.Buffer("kvm_vcpu_events", bytes(ctypes.sizeof(uapi.kvm_vcpu_events))),
    "xsave1": p.Buffer("kvm_xsave", bytes(4096)),
    "msi": _struct("kvm_msi", address_lo=0xFEE01000, data=0x500),
    "msr_174": _msr(0x174),
    "set_msr_174": _msr(0x174, 0x5A),
    "word": p.Buffer("u64", bytes(8)),
    "result": p.Buffer("s64", bytes(8)),
}
_ERROR = p.Otherwise("error", "it is not so")
_SKIP = p.Otherwise("skip", 'nothing to show: 100 % of "it"')
_RAX = p.Place("regs1", 0, 8, "rax")
_WORD = p.Place("word", 0, 8, "word")
_OUT = p.Came("out", 0x10, 7, past=(0x11,))

#: The VM that all of them have.
VM = (
    p.Ioctl(p.VM, uapi.KVM_CREATE_IRQCHIP),
    p.Ioctl(p.VM, uapi.KVM_X86_SET_MSR_FILTER, "denied"),
    p.Create(0),
    p.Create(1),
    p.Cpuid(1, ((0, "ebx", -1 & 0xFFFFFFFF, 0x756E6547), (0, "ecx", 0xFF, 0x6C), (1, "ecx", 1 << 24, 1 << 24), (2, "eax", 1, 0))),
)
_REGION = p.Region(1, 0, 0x10000)
#: An op of each kind that C has, and of those with several forms each form.
OPS: tuple[p.Op, ...] = (
    _REGION,
    p.Region(2, 0x8000, 0x1000),
    p.Region(1 << 16 | 8, 0x30000, 0x10000),
    p.Region(10, 0x100000, 0x1000, True),
    p.Ioctl(1, uapi.KVM_GET_REGS, "regs1"),
    p.Put(_RAX, 0x1234),
    p.Put(_RAX, 0xFF, 0xFF),
    p.Put(_RAX, 0x10, 0xFF),
    p.Put(_RAX._replace(offset=1, size=4), 5),
    p.Sum(_WORD, _RAX, 5),
    p.Sum(_RAX, _WORD, -5),
    p.Apart(_RAX, _WORD, -5, 1, _SKIP),
    p.Ioctl(p.NEW_VM, uapi.KVM_SET_BOOT_CPU_ID, 1 << 32, "result"),
    p.Compare(p.Place("result", 0, 8), (-errno.EINVAL & (1 << 64) - 1,), p.Otherwise("", "")),
    p.Ioctl(p.NEW_VM, uapi.KVM_SET_BOOT_CPU_ID, 1, "result"),
    p.Compare(_RAX, (1, 2), _ERROR),
    p.Compare(_RAX, (1,), _SKIP, 0xFF),
    p.Compare(_RAX, (3, 4), _SKIP, unlike=True),
    p.Ioctl(1, uapi.KVM_SET_REGS, "regs1"),
    p.Ioctl(1, uapi.KVM_SET_REGS, "regs1", "result"),
    p.Compare(p.Place("result", 0, 8), (-errno.EINVAL & (1 << 64) - 1,), p.Otherwise("", "")),
    p.Ioctl(1, uapi.KVM_GET_LAPIC, "lapic1"),
    p.Put(p.Place("lapic1", 0xF0, 4), 0x1FF),
    p.Ioctl(1, uapi.KVM_SET_LAPIC, "whole_lapic"),
    p.Ioctl(1, uapi.KVM_GET_XSAVE, "xsave1"),
    p.Compare(p.Place("xsave1", 32, 10, "st0"), (0x4FB755A953A359A547BF,), _SKIP),
    p.Compare(p.Place("xsave1", 160, 16, "xmm0"), (1 << 100, 1), _SKIP, unlike=True),
    p.Ioctl(1, uapi.KVM_GET_MP_STATE, "mp_state1"),
    p.Compare(p.Place("mp_state1", 0, 4), (uapi.KVM_MP_STATE_HALTED,), _SKIP),
    p.Ioctl(p.VM, uapi.KVM_SIGNAL_MSI, "msi"),
    p.Ioctl(1, uapi.KVM_GET_MSRS, "msr_174"),
    p.Ioctl(1, uapi.KVM_SET_MSRS, "set_msr_174"),
    p.Ioctl(1, uapi.KVM_SET_MSRS, "set_msr_174", "result"),
    p.Compare(p.Place("result", 0, 8), (0,), _SKIP),
    p.Write(0x100, bytes(range(1, 40))),
    p.Write(0x200, b"\x90" * 16),
    p.Write(0x208, b"\x01\x02\x03\x04"),
    p.Write(0x400, b"".join((0x1023 + 0x1000 * i).to_bytes(8, "little") for i in range(20))),
    p.Write(0x30010, b"\xaa\x55", 1),
    p.Match(0x100, b"\xf4" * 32, p.Otherwise("", "")),
    p.Peek(_WORD, 0x108),
    p.Enter(1, _OUT, _SKIP),
    p.Enter(1, p.Came("in", 0x20), _SKIP, "rcx"),
    p.Enter(1, p.Came("mmio", 0xFED00000), _ERROR, 0x100, True),
    p.Enter(1, p.Came("exit", uapi.KVM_EXIT_HLT), _ERROR),
    p.Enter(1, p.Came("errno", errno.EINVAL), _ERROR),
    p.Enter(1, p.Came("quiet"), _ERROR),
    p.Enter(1, p.Came("out", 0x10, past=(1, 2, 3, 4, 5)), p.Otherwise("", "")),
    p.Said(1, _WORD._replace(size=4)),
    p.Reply(1, b"\x07\0\0\0"),
    p.Finish(1),
    p.Window(1, True),
    p.Start(1),
    p.Join(1, p.Came("quiet"), _SKIP),
    p.Poll((p.Peek(_WORD, 0x108),), p.Compare(_WORD, (1,), _SKIP)),
    p.Poll((p.Peek(_WORD, 0x108),), p.Compare(_WORD, (1,), _SKIP), 1, True),
    p.Irqfd(5),
    p.Listed(1, "msr_174"),
    p.Rebuild(),
)


def repro(*ops: p.Op) -> Repro:
    """The reproducer whose body are ``ops``; memory that they work on comes first."""
    needs = any(isinstance(op, (p.Write, p.Match, p.Peek, p.Enter, p.Poll)) for op in ops)
    first = (_REGION, *(one for one in OPS if isinstance(one, p.Region) and one.slot >> 16)) if needs else ()
    body = p.Program(dict(BUFFERS), tuple(enumerate((*first, *ops))))
    buffers = {"denied": p.Buffer(p.DENIED, b"\x82\0\0\xc0\x34\x12\0\0")}
    return Repro(p.Program(buffers, tuple(enumerate(VM))), body, target=1)


def msr_check(expected: int) -> Repro:
    """One that writes an MSR, reads it, and is as it should be where that is ``expected``."""
    made = repro(p.Ioctl(1, uapi.KVM_SET_MSRS, "set_msr_174"), p.Ioctl(1, uapi.KVM_GET_MSRS, "msr_174"))
    place = p.Place("msr_174", 16, 8)
    return made._replace(checks=(Check("msr.sysenter_cs", place, (expected,), (1 << 64) - 1),))
