# SPDX-License-Identifier: GPL-2.0-only
"""Read the state of a vCPU by the host's ioctls, section by section."""

from __future__ import annotations

import ctypes
from itertools import chain
from struct import pack

from kvmtest.kvm import KvmError, Vcpu
from kvmtest.kvm.ioctl import ioctl
from kvmtest.state.layout import Layout
from kvmtest.state.sections import Snapshot
from kvmtest.uapi.kvm import (
    KVM_CAP_NESTED_STATE,
    KVM_CAP_XSAVE2,
    KVM_GET_CPUID2,
    KVM_GET_DEBUGREGS,
    KVM_GET_LAPIC,
    KVM_GET_MP_STATE,
    KVM_GET_MSRS,
    KVM_GET_NESTED_STATE,
    KVM_GET_ONE_REG,
    KVM_GET_REGS,
    KVM_GET_SREGS,
    KVM_GET_VCPU_EVENTS,
    KVM_GET_XCRS,
    KVM_GET_XSAVE,
    KVM_GET_XSAVE2,
    kvm_debugregs,
    kvm_lapic_state,
    kvm_mp_state,
    kvm_one_reg,
    kvm_regs,
    kvm_sregs,
    kvm_vcpu_events,
    kvm_xcrs,
)

__all__ = (
    "ROOM",
    "Buffer",
    "Reader",
    "Unread",
    "contents_of",
    "missing_sections",
    "msr_buffers",
    "one_reg",
    "point",
    "refusal",
    "refused_twice",
)

#: KVM_X86_REG_KVM(KVM__REG_GUEST_SSP) of the UAPI header since v6.18: x86, 64 bits wide, type KVM.
_REG_GUEST_SSP = 0x2030_0003_0000_0000
#: One less than MAX_IO_MSRS in arch/x86/kvm/x86.c: KVM_GET_MSRS and KVM_SET_MSRS accept no more at once (msr_io()).
_MAX_IO_MSRS = 255
#: The bytes before a section in its buffer: struct kvm_msrs's number of MSRs, and struct kvm_one_reg.
_HEADS = {"msrs": 8, "ssp": ctypes.sizeof(kvm_one_reg)}
#: The offset of struct kvm_nested_state's `size`: the room that there is, in 32 bits, of which KVM writes back what it used.
ROOM = 4
#: KVM_GET_XSAVE's fixed size in bytes.
_XSAVE_SIZE = 4096
#: struct kvm_nested_state with a vmcs12 and its shadow, the larger vendor's (KVM_STATE_NESTED_VMX_VMCS_SIZE twice).
_NESTED_SIZE = 128 + 2 * 4096
_FIXED = (
    # KVM_GET_MP_STATE comes first: it makes KVM accept a pending INIT or SIPI.
    ("mp_state", KVM_GET_MP_STATE, ctypes.sizeof(kvm_mp_state)),
    ("regs", KVM_GET_REGS, ctypes.sizeof(kvm_regs)),
    ("sregs", KVM_GET_SREGS, ctypes.sizeof(kvm_sregs)),
    ("debugregs", KVM_GET_DEBUGREGS, ctypes.sizeof(kvm_debugregs)),
    ("events", KVM_GET_VCPU_EVENTS, ctypes.sizeof(kvm_vcpu_events)),
    ("xcrs", KVM_GET_XCRS, ctypes.sizeof(kvm_xcrs)),
    ("lapic", KVM_GET_LAPIC, ctypes.sizeof(kvm_lapic_state)),
)


class Unread(RuntimeError):
    """State that this KVM can show could not be read; the message names the ioctl and the errno."""


def refusal(error: KvmError) -> str:
    """The error by which KVM refuses an ioctl. Raises ``error`` where another try may succeed."""
    if error.passing:
        raise error
    return str(error)


def point(address: int) -> None:
    """Make the struct kvm_one_reg at ``address`` point to what comes after it, where KVM reads or writes the register's value."""
    ctypes.c_uint64.from_address(address + kvm_one_reg.addr.offset).value = address + ctypes.sizeof(kvm_one_reg)


def contents_of(section: str, raw: bytes) -> bytes:
    """The section's bytes of ``raw``, which is its buffer."""
    end = int.from_bytes(raw[ROOM : ROOM + 4], "little") if section == "nested" else None
    return raw[_HEADS.get(section, 0) : end]


class Buffer:
    """Memory an ioctl reads or writes: the request, where it is, how long it is in bytes."""

    __slots__ = ("address", "data", "request", "section", "size")

    def __init__(self, section: str, request: int, contents: bytes) -> None:
        self.section = section
        self.request = request
        self.size = len(contents)
        self.data = ctypes.create_string_buffer(contents, self.size)
        self.address = ctypes.addressof(self.data)
        if section == "ssp":
            point(self.address)


def msr_buffers(request: int, entries: list[tuple[int, int]]) -> list[Buffer]:
    """struct kvm_msrs with ``entries`` of (index, data), in as many structures as KVM's limit requires."""
    buffers = []
    for start in range(0, len(entries), _MAX_IO_MSRS):
        part = entries[start : start + _MAX_IO_MSRS]
        buffers.append(Buffer("msrs", request, len(part).to_bytes(4, "little") + bytes(4) + _entries(part)))
    return buffers


def _entries(msrs: list[tuple[int, int]]) -> bytes:
    return pack(f"<{2 * len(msrs)}Q", *chain.from_iterable(msrs))


def one_reg(request: int, value: bytes = bytes(8)) -> Buffer:
    """struct kvm_one_reg for SSP, and after it the ``value``."""
    return Buffer("ssp", request, bytes(kvm_one_reg(id=_REG_GUEST_SSP)) + value)


def _xsave(vcpu: Vcpu) -> Buffer:
    size = vcpu.vm.check_extension(KVM_CAP_XSAVE2)
    return Buffer("xsave", KVM_GET_XSAVE2 if size else KVM_GET_XSAVE, bytes(max(size, _XSAVE_SIZE)))


def missing_sections(vcpu: Vcpu) -> dict[str, str]:
    """The sections that this vCPU's KVM cannot read, with the reason: found by trying. Raises KvmError."""
    missing: dict[str, str] = {}
    if not vcpu.vm.check_extension(KVM_CAP_NESTED_STATE):
        missing["nested"] = "KVM_CAP_NESTED_STATE is not there"
    fixed = (Buffer(name, request, bytes(size)) for name, request, size in _FIXED)
    for buf in (*fixed, _xsave(vcpu), one_reg(KVM_GET_ONE_REG)):
        # All vCPUs like this one are then assumed to lack it.
        if why := refused_twice(vcpu, buf):
            missing[buf.section] = why
    return missing


def refused_twice(vcpu: Vcpu, buf: Buffer) -> str:
    """Return why KVM refuses ``buf``, asked twice; "" if it accepts it. Raises KvmError if another try may succeed."""
    return _refused(vcpu, buf) and _refused(vcpu, buf)


def _refused(vcpu: Vcpu, buf: Buffer) -> str:
    try:
        ioctl(vcpu.fd, buf.request, buf.address)
    except KvmError as error:
        return refusal(error)
    return ""


class Reader:
    """Reads all sections of one vCPU into buffers made once.

    ``buffers`` are in the order of the ioctls; those of ``like``, which reads another vCPU of the same VM and layout, will do.
    """

    def __init__(self, vcpu: Vcpu, layout: Layout, like: Reader | None = None) -> None:
        self.vcpu = vcpu
        self.layout = layout
        self.buffers: list[Buffer] = like.buffers if like else self.made()

    def made(self) -> list[Buffer]:
        """Buffers that nothing was read into yet."""
        vcpu, layout = self.vcpu, self.layout
        wanted = layout.by_section
        buffers = [Buffer(name, request, bytes(size)) for name, request, size in _FIXED if name in wanted]
        if "xsave" in wanted:
            buffers.append(_xsave(vcpu))
        buffers += msr_buffers(KVM_GET_MSRS, [(index, 0) for index in layout.msrs])
        if "cpuid" in wanted:
            # The kernel writes the number of leaves back; a set of leaves stays as long as it was.
            count = len(layout.leaves)
            buffers.append(Buffer("cpuid", KVM_GET_CPUID2, count.to_bytes(8, "little") + bytes(40 * count)))
        if "nested" in wanted:
            buffers.append(Buffer("nested", KVM_GET_NESTED_STATE, bytes(_NESTED_SIZE)))
        if "ssp" in wanted:
            buffers.append(one_reg(KVM_GET_ONE_REG))
        return buffers

    def read(self) -> Snapshot:
        """One snapshot; a section whose ioctl fails is left out, its items are ``unreadable`` with the error. Raises KvmError."""
        fd = self.vcpu.fd
        sections: dict[str, bytes] = {}
        unreadable: dict[str, str] = {}
        short, lost = False, set[str]()
        for buf in self.buffers:
            section = buf.section
            if section == "nested":
                ctypes.c_uint32.from_address(buf.address + ROOM).value = _NESTED_SIZE
            try:
                done = ioctl(fd, buf.request, buf.address)
            except KvmError as error:
                unreadable.update((item, str(error)) for item in self.layout.by_section[section])
                lost.add(section)
                continue
            if section in lost:
                continue
            short = short or section == "msrs" and done * 16 + 8 != buf.size
            sections[section] = sections.get(section, b"") + contents_of(section, buf.data.raw)
        for section in lost:
            sections.pop(section, None)
        if short and "msrs" not in lost:
            sections["msrs"] = self._msrs_one_by_one(unreadable)
        return Snapshot(sections, unreadable)

    def _msrs_one_by_one(self, unreadable: dict[str, str]) -> bytes:
        """KVM_GET_MSRS stops at the first MSR it refuses; name that one and continue."""
        values = self.vcpu.get_msrs(list(self.layout.msrs))
        names = self.layout.by_section["msrs"]
        for index, name in zip(self.layout.msrs, names, strict=True):
            if index not in values:
                unreadable[name] = f"KVM_GET_MSRS refused MSR {index:#x}"
        return _entries([(index, values.get(index, 0)) for index in self.layout.msrs])
