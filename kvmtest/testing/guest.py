# SPDX-License-Identifier: GPL-2.0-only
"""Put a guest of somebody's own into a VM: flat bytes, or the PT_LOAD segments of an ELF file."""

from __future__ import annotations

import io
import os
from typing import NamedTuple

from kvmtest.kvm import Vcpu, Vm
from kvmtest.kvm.check import unsigned

__all__ = ["Guest", "GuestError", "load_guest"]

_PAGE = 4096
_MIB = 1 << 20
#: Bytes of a segment: more is a broken file rather than a guest.
_MOST = 1 << 30
_ELF = b"\x7fELF"


class GuestError(ValueError):
    """An image that cannot be loaded; the message says why."""


class Guest(NamedTuple):
    """A loaded image: ``entry`` is the guest-physical address of its first instruction, ``gpa`` and ``size`` where it lies."""

    entry: int
    gpa: int
    size: int

    def start(self, vcpu: Vcpu) -> None:
        """Let ``vcpu`` begin at `entry` in real mode, with flat data segments and interrupts off, at the next KVM_RUN.

        Raises GuestError for an entry that real mode cannot reach; set the registers for another mode yourself.
        """
        if self.entry >= _MIB:
            raise GuestError(f"entry {self.entry:#x} is above 1 MiB: real mode cannot begin there")
        sregs = vcpu.get_sregs()
        sregs.cs.selector = self.entry >> 4 & 0xF000
        sregs.cs.base = sregs.cs.selector << 4
        for segment in (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss):
            segment.selector = segment.base = 0
        vcpu.set_sregs(sregs)
        regs = vcpu.get_regs()
        regs.rip = self.entry - sregs.cs.base
        regs.rflags = 2
        vcpu.set_regs(regs)


def load_guest(vm: Vm, image: bytes | str | os.PathLike[str], gpa: int | None = None, entry: int | None = None) -> Guest:
    """Put ``image``, its bytes or a path to them, into the memory of ``vm``; memory that is not there is added.

    An ELF file says itself where its segments lie (their physical addresses) and where it begins; flat bytes go to ``gpa``.
    ``entry`` is a guest-physical address, by default the ELF file's or ``gpa``. ELF needs pyelftools.

    Raises GuestError for an image that is cut short, has nothing to load or does not say where; OSError, KvmError.
    """
    data = bytes(image) if isinstance(image, bytes | bytearray | memoryview) else _read(image)
    if data.startswith(_ELF):
        if gpa is not None:
            raise GuestError("an ELF file has its own addresses: do not give gpa=")
        segments, begin = _segments(data)
    else:
        if gpa is None:
            raise GuestError("flat bytes have no address: give gpa=")
        segments, begin = [(gpa, data, len(data))], gpa
    if not any(size for _, _, size in segments):
        raise GuestError("there is nothing to load")
    try:
        for at, _, size in segments:
            unsigned(64, gpa=at, end=at + size)
        unsigned(64, entry=begin if entry is None else entry)
    except ValueError as error:
        raise GuestError(str(error)) from None
    for at, contents, size in segments:
        _room(vm, at, at + size)
        _write(vm, at, contents + bytes(size - len(contents)))
    first = min(at for at, _, _ in segments)
    return Guest(begin if entry is None else entry, first, max(at + size for at, _, size in segments) - first)


def _read(path: str | os.PathLike[str]) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _segments(data: bytes) -> tuple[list[tuple[int, bytes, int]], int]:
    """The PT_LOAD segments, each with its physical address, contents and size in memory, and the entry's physical address."""
    try:
        from elftools.elf.elffile import ELFFile
    except ImportError:
        raise GuestError("an ELF file, and pyelftools is not installed: pip install pyelftools") from None
    found, begin = [], None
    try:
        elf = ELFFile(io.BytesIO(data))
        if elf["e_machine"] not in ("EM_X86_64", "EM_386"):
            raise GuestError(f"an ELF file for {elf['e_machine']}, not for x86")
        entry = elf["e_entry"]
        for segment in elf.iter_segments("PT_LOAD"):
            contents, size = segment.data(), segment["p_memsz"]
            if len(contents) != segment["p_filesz"] or len(contents) > size:
                raise GuestError("an ELF file that is cut short")
            if segment["p_vaddr"] <= entry < segment["p_vaddr"] + size:
                begin = entry - segment["p_vaddr"] + segment["p_paddr"]
            found.append((int(segment["p_paddr"]), bytes(contents), int(size)))
            if size > _MOST:
                raise GuestError(f"an ELF file with a segment of {size:#x} bytes")
    except GuestError:
        raise
    except Exception as error:  # whatever pyelftools' parts make of bytes that they cannot read
        raise GuestError(f"not a whole ELF file: {error}") from None
    return found, int(entry if begin is None else begin)


def _room(vm: Vm, start: int, end: int) -> None:
    """Add memory for what of [``start``, ``end``) has none, in whole pages."""
    at = start & -_PAGE
    while at < end:
        memory = vm.memory_at(at)
        if memory:
            at = memory.gpa + memory.size
            continue
        stop = min([m.gpa for m in vm.memory if m.gpa > at] + [(end + _PAGE - 1) & -_PAGE])
        vm.add_memory(max((m.slot for m in vm.memory), default=-1) + 1, at, stop - at)
        at = stop


def _write(vm: Vm, at: int, contents: bytes) -> None:
    while contents:
        memory = vm.memory_at(at)
        assert memory
        count = min(len(contents), memory.gpa + memory.size - at)
        memory.write(at, contents[:count])
        at, contents = at + count, contents[count:]
