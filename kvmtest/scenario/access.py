# SPDX-License-Identifier: GPL-2.0-only
"""Accesses that the guest of guests/access.S makes one after the other, and its words for each."""

from __future__ import annotations

from kvmtest.scenario import step as s
from kvmtest.x86.lapic import offset_of

__all__ = (
    *("APIC_PAGE", "GP", "INT", "INT3", "KINDS", "OPEN", "READY", "SAY", "SOFTWARE", "TASK_TSS", "UD", "WAIT", "Access"),
    *("apic", "cr0", "cr4", "load", "makes", "rdmsr", "says", "send_ipi", "store", "task", "wrmsr"),
)

#: Kind, where, and a value of 64 bits.
Access = tuple[int, int, int]

#: As the source numbers them.
KINDS = ("SAY", "WRMSR", "RDMSR", "STORE", "LOAD", "CR0", "CR4", "OPEN", "WAIT", "INT3", "UD", "TASK", "HYPERCALL", "INT")
SAY: Access = (0, 0, 0)
OPEN: Access = (7, 0, 0)
WAIT: Access = (8, 0, 0)
INT3: Access = (9, 0, 0)
UD: Access = (10, 0, 0)
#: INT n, of the vector SOFTWARE.
INT: Access = (13, 0, 0)
SOFTWARE = 0x61
APIC_PAGE = 0xFEE00000
#: Selector of the task's TSS.
TASK_TSS = 0x20
_MSR_X2APIC = 0x800
#: The guest's words for #GP(0), and for the end of its list.
GP, READY = s.Word("FAULT", 13 << 24), s.Word("READY")


def wrmsr(index: int, value: int) -> Access:
    """WRMSR."""
    return (1, index, value)


def rdmsr(index: int) -> Access:
    """RDMSR, which reports the low half."""
    return (2, index, 0)


def store(at: int, value: int) -> Access:
    """A write of 32 bits to memory."""
    return (3, at, value)


def load(at: int) -> Access:
    """A read of 32 bits of memory, which reports them."""
    return (4, at, 0)


def cr0(value: int) -> Access:
    """MOV to CR0."""
    return (5, 0, value)


def cr4(value: int) -> Access:
    """MOV to CR4."""
    return (6, 0, value)


def task(vector: int) -> Access:
    """A task gate for ``vector``, whose task reports its TR and returns to the next access."""
    return (11, vector, 0)


def send_ipi(icr: int, bitmap: int, lowest: int = 0) -> Access:
    """The hypercall KVM_HC_SEND_IPI, which reports what it returns; high bits of the bitmap are clear."""
    return (12, icr, lowest << 32 | bitmap)


def apic(mode: str, register: str | int, value: int | None = None) -> Access:
    """A write of ``value`` to a register of the local APIC, by its name or its place in the page, or a read, in its ``mode``."""
    at = offset_of(register) if isinstance(register, str) else register
    if mode == "x2apic":
        index = _MSR_X2APIC + (at >> 4)
        return rdmsr(index) if value is None else wrmsr(index, value)
    return load(APIC_PAGE + at) if value is None else store(APIC_PAGE + at, value)


def makes(*accesses: Access) -> tuple[s.Step, ...]:
    """Load the guest with its list, which ends with READY, and run it to its first instruction."""
    entries = b"".join(
        kind.to_bytes(4, "little") + where.to_bytes(4, "little") + value.to_bytes(8, "little")
        for kind, where, value in (*accesses, SAY)
    )
    return (s.Load("access", (("NEXT", 0),)), s.Poke("LIST", entries), s.Until(s.Word("RESET")))


def says(*words: s.Word | tuple[str, int]) -> tuple[s.Step, ...]:
    """Expect that the guest says these next: a word, or of an item the value that it reads."""
    return tuple(
        s.Expect(word, "runs") if isinstance(word, s.Word) else s.Expect(s.Word("VALUE", word[1]), word[0]) for word in words
    )
