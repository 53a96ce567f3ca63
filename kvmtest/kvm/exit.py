# SPDX-License-Identifier: GPL-2.0-only
"""Exits of KVM_RUN."""

from __future__ import annotations

import mmap
from collections.abc import Callable

from ..uapi import consts as _c
from ..uapi.names import EXITS
from ..uapi.run import kvm_run

__all__ = ["Exit"]


def _names(prefix: str) -> dict[int, str]:
    return {
        value: name
        for name, value in vars(_c).items()
        if name.startswith(prefix) and not name.startswith("KVM_INTERNAL_ERROR_EMULATION_")
    }


INTERNAL_ERROR_NAMES = _names("KVM_INTERNAL_ERROR_")
SYSTEM_EVENT_NAMES = _names("KVM_SYSTEM_EVENT_")


class Exit:
    """One exit to userspace, copied out of struct kvm_run; str() is one line.

    `reason` is KVM_EXIT_*, `name` its name and `flags` KVM_RUN_X86_*. Other attributes are those of the kind of exit,
    listed in `fields` and 0 or empty for other kinds:

    io: `direction` (KVM_EXIT_IO_*), `port`, `size` and `count` of the items, `data` (what is written; for a read,
    the place for the data); mmio: `phys_addr`, `len`, `is_write`, `data`; internal error: `suberror`,
    `suberror_name`, `ndata`, `words` (64-bit), `insn` (the instruction's bytes where KVM gives them); fail_entry:
    `hardware_entry_failure_reason`, `cpu`; unknown: `hardware_exit_reason`; exception: `exception`, `error_code`;
    system_event: `type`, `words`; debug: `exception`, `pc`, `dr6`, `dr7`; hypercall: `nr`, `args`; msr: `index`,
    `value`, `msr_reason`; tpr_access: `rip`, `is_write`; eoi: `vector`; memory_fault: `phys_addr`, `len`,
    `fault_flags`; notify: `fault_flags`. Sizes are in bytes.
    """

    fields: tuple[str, ...] = ()
    direction = port = size = count = 0
    data = b""
    phys_addr = len = is_write = 0
    suberror = ndata = 0
    suberror_name = ""
    words: tuple[int, ...] = ()
    insn = b""
    hardware_entry_failure_reason = cpu = hardware_exit_reason = 0
    exception = error_code = 0
    type = 0
    pc = dr6 = dr7 = 0
    nr = 0
    args: tuple[int, ...] = ()
    index = value = msr_reason = 0
    rip = vector = fault_flags = 0

    def __init__(self, reason: int, run: kvm_run | None = None, page: mmap.mmap | None = None) -> None:
        self.reason = reason
        self.flags = 0
        if run is not None:
            self.flags = run.flags
            decode = _DECODE.get(reason)
            if decode is not None:
                decode(self, run, page)

    @property
    def name(self) -> str:
        """E.g. "KVM_EXIT_IO"; "KVM_EXIT_<number>" for one that is not known."""
        return EXITS.get(self.reason, f"KVM_EXIT_{self.reason}")

    def __str__(self) -> str:
        parts = [self.name]
        for field in self.fields:
            value = getattr(self, field)
            if field == "direction":
                parts.append("out" if value == _c.KVM_EXIT_IO_OUT else "in")
            elif field == "is_write":
                parts.append("write" if value else "read")
            elif field in ("suberror_name", "type"):
                parts.append(value if field == "suberror_name" else SYSTEM_EVENT_NAMES.get(value, f"type={value}"))
            elif isinstance(value, bytes):
                parts.append(f"{field}={value.hex(' ') or '-'}")
            elif isinstance(value, tuple):
                parts.append(f"{field}=[{', '.join(hex(word) for word in value)}]")
            elif field in ("size", "count", "len", "ndata", "nr"):
                parts.append(f"{field}={value}")
            elif field not in ("suberror", "cpu"):  # the same exit on another CPU is no other one
                parts.append(f"{field}={value:#x}")
        if self.flags:
            parts.append(f"flags={self.flags:#x}")
        return " ".join(parts)

    def __repr__(self) -> str:
        return f"<Exit {self}>"


def _io(e: Exit, run: kvm_run, page: mmap.mmap | None) -> None:
    io = run.io
    e.direction, e.port, e.size, e.count = io.direction, io.port, io.size, io.count
    if page is not None:
        at = io.data_offset
        e.data = page[at : at + io.size * io.count]
    e.fields = ("direction", "port", "size", "count", "data")


def _mmio(e: Exit, run: kvm_run, page: mmap.mmap | None) -> None:
    mmio = run.mmio
    e.phys_addr, e.len, e.is_write = mmio.phys_addr, mmio.len, mmio.is_write
    e.data = bytes(mmio.data[: min(mmio.len, 8)])
    e.fields = ("is_write", "phys_addr", "len", "data")


def _internal(e: Exit, run: kvm_run, page: mmap.mmap | None) -> None:
    error = run.internal
    e.suberror, e.ndata = error.suberror, error.ndata
    e.suberror_name = INTERNAL_ERROR_NAMES.get(e.suberror, f"KVM_INTERNAL_ERROR_{e.suberror}")
    e.words = tuple(error.data[: min(e.ndata, 16)])
    e.fields = ("suberror", "suberror_name", "ndata", "words")
    if e.suberror == _c.KVM_INTERNAL_ERROR_EMULATION:
        failure = run.emulation_failure
        # The flags word and the 16 bytes after it are there only if ndata counts them.
        if e.ndata >= 3 and failure.flags & _c.KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES:
            e.insn = bytes(failure.insn_bytes[: min(failure.insn_size, 15)])
            e.fields = ("suberror", "suberror_name", "ndata", "insn")


def _fail_entry(e: Exit, run: kvm_run, page: mmap.mmap | None) -> None:
    e.hardware_entry_failure_reason = run.fail_entry.hardware_entry_failure_reason
    e.cpu = run.fail_entry.cpu
    e.fields = ("hardware_entry_failure_reason", "cpu")


def _unknown(e: Exit, run: kvm_run, page: mmap.mmap | None) -> None:
    e.hardware_exit_reason = run.hw.hardware_exit_reason
    e.fields = ("hardware_exit_reason",)


def _exception(e: Exit, run: kvm_run, page: mmap.mmap | None) -> None:
    e.exception, e.error_code = run.ex.exception, run.ex.error_code
    e.fields = ("exception", "error_code")


def _system_event(e: Exit, run: kvm_run, page: mmap.mmap | None) -> None:
    event = run.system_event
    e.type, e.ndata = event.type, event.ndata
    e.words = tuple(event.data[: min(e.ndata, 16)])
    e.fields = ("type", "words")


def _debug(e: Exit, run: kvm_run, page: mmap.mmap | None) -> None:
    arch = run.debug.arch
    e.exception, e.pc, e.dr6, e.dr7 = arch.exception, arch.pc, arch.dr6, arch.dr7
    e.fields = ("exception", "pc", "dr6", "dr7")


def _hypercall(e: Exit, run: kvm_run, page: mmap.mmap | None) -> None:
    e.nr, e.args = run.hypercall.nr, tuple(run.hypercall.args)
    e.fields = ("nr", "args")


def _msr(e: Exit, run: kvm_run, page: mmap.mmap | None) -> None:
    e.index, e.value, e.msr_reason = run.msr.index, run.msr.data, run.msr.reason
    e.fields = ("index", "value", "msr_reason")


def _tpr_access(e: Exit, run: kvm_run, page: mmap.mmap | None) -> None:
    e.rip, e.is_write = run.tpr_access.rip, run.tpr_access.is_write
    e.fields = ("is_write", "rip")


def _eoi(e: Exit, run: kvm_run, page: mmap.mmap | None) -> None:
    e.vector = run.eoi.vector
    e.fields = ("vector",)


def _memory_fault(e: Exit, run: kvm_run, page: mmap.mmap | None) -> None:
    fault = run.memory_fault
    e.fault_flags, e.phys_addr, e.len = fault.flags, fault.gpa, fault.size
    e.fields = ("phys_addr", "len", "fault_flags")


def _notify(e: Exit, run: kvm_run, page: mmap.mmap | None) -> None:
    e.fault_flags = run.notify.flags
    e.fields = ("fault_flags",)


_DECODE: dict[int, Callable[[Exit, kvm_run, mmap.mmap | None], None]] = {
    _c.KVM_EXIT_UNKNOWN: _unknown,
    _c.KVM_EXIT_EXCEPTION: _exception,
    _c.KVM_EXIT_IO: _io,
    _c.KVM_EXIT_HYPERCALL: _hypercall,
    _c.KVM_EXIT_DEBUG: _debug,
    _c.KVM_EXIT_MMIO: _mmio,
    _c.KVM_EXIT_FAIL_ENTRY: _fail_entry,
    _c.KVM_EXIT_TPR_ACCESS: _tpr_access,
    _c.KVM_EXIT_INTERNAL_ERROR: _internal,
    _c.KVM_EXIT_SYSTEM_EVENT: _system_event,
    _c.KVM_EXIT_IOAPIC_EOI: _eoi,
    _c.KVM_EXIT_X86_RDMSR: _msr,
    _c.KVM_EXIT_X86_WRMSR: _msr,
    _c.KVM_EXIT_NOTIFY: _notify,
    _c.KVM_EXIT_MEMORY_FAULT: _memory_fault,
}
