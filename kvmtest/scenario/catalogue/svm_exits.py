# SPDX-License-Identifier: GPL-2.0-only
"""Intercepted actions of a nested guest of an SVM hypervisor, and INIT in the hypervisor after the VM exit."""

from __future__ import annotations

from typing import NamedTuple

from kvmtest.scenario import step as s
from kvmtest.scenario.catalogue.common import FINDS, pending, restarted
from kvmtest.scenario.catalogue.svm import INTERCEPT_INIT, exits, hypervisor
from kvmtest.scenario.catalogue.svm_events import EXCEPTIONS
from kvmtest.scenario.step import Scenario
from kvmtest.spec.cite import (
    A_EXCEPTION_INTERCEPTS,
    A_GIF,
    A_INSTRUCTION_INTERCEPTS,
    A_IO_INTERCEPTS,
    A_MSR_INTERCEPTS,
    A_PRIORITY,
    A_SVM_INIT,
)

__all__ = ("EXIT_INFO", "IOPM", "MSRPM", "NPF", "PF", "SCENARIOS", "VMCB", "field", "tried")

#: Their addresses in the hypervisor, and offsets in the VMCB: intercepts of control registers, debug registers,
#: exceptions, and of two words more.
VMCB, IOPM, MSRPM = 0x10000, 0x12000, 0x16000
_CR, _DR, _WORD_3, _WORD_4 = 0x000, 0x004, 0x00C, 0x010
#: EXITINFO1, which EXITINFO2 follows.
EXIT_INFO = VMCB + 0x78
PF, NPF = 14, 0x400
_IO, _MSR = 1 << 27, 1 << 28
_NO_MSR = 0x12345
#: Of EXITINFO1 of an IOIO intercept: the port is in its upper half.
_PORT = EXIT_INFO + 2
#: An address that the tables of L2 do not map.
_UNMAPPED = 0x40000000


class _Tried(NamedTuple):
    """L2's ``code`` makes the #VMEXIT ``code_of_exit`` where ``intercepts`` are in memory: address and 32 bits."""

    name: str
    code: bytes
    exit: int
    intercepts: tuple[tuple[int, int], ...]
    cite: str = A_INSTRUCTION_INTERCEPTS
    info: tuple[int, bytes] | None = None


def field(value: int, size: int = 8) -> bytes:
    """As it is in memory."""
    return value.to_bytes(size, "little")


def _instruction(name: str, code: str, exit: int, offset: int, bit: int, keeps: int = 0) -> _Tried:
    """An instruction whose intercept is that ``bit`` of the word at ``offset``; the bits ``keeps`` are set, too."""
    return _Tried(name, bytes.fromhex(code), exit, ((VMCB + offset, 1 << bit | keeps),))


def _exception(name: str, code: str, vector: int, *intercepts: tuple[int, int], info: bytes = b"") -> _Tried:
    shown = (EXIT_INFO, info) if info else None
    where = ((EXCEPTIONS, 1 << vector), *intercepts)
    return _Tried(name, bytes.fromhex(code), 0x40 + vector, where, A_EXCEPTION_INTERCEPTS, shown)


def _msr(name: str, code: str, index: int, at: int, bits: int, write: int) -> _Tried:
    """RDMSR or WRMSR of ``index``, with ``bits`` in the map at ``at``."""
    intercepts = ((VMCB + _WORD_3, _MSR), (MSRPM + at, bits))
    load = b"\xb9" + field(index, 4)
    return _Tried(name, load + bytes.fromhex(code), 0x7C, intercepts, A_MSR_INTERCEPTS, (EXIT_INFO, field(write)))


def _io(name: str, code: str, port: int, denied: int) -> _Tried:
    """IN or OUT at ``port``, with the port ``denied`` in the map."""
    intercepts = ((VMCB + _WORD_3, _IO), (IOPM + denied // 32 * 4, 1 << denied % 32))
    return _Tried(name, bytes.fromhex(code), 0x7B, intercepts, A_IO_INTERCEPTS, (_PORT, field(port, 2)))


_VMRUN = 1
_TRIED = (
    _instruction("read-cr0", "0f20c0", 0x00, _CR, 0),
    _instruction("write-cr4", "0f22e0", 0x14, _CR, 20),
    _instruction("read-dr7", "0f21f8", 0x27, _DR, 7),
    _instruction("write-dr0", "0f23c0", 0x30, _DR, 16),
    _instruction("rdtsc", "0f31", 0x6E, _WORD_3, 14),
    _instruction("cpuid", "0fa2", 0x72, _WORD_3, 18),
    _instruction("hlt", "f4", 0x78, _WORD_3, 24),
    _instruction("invlpg", "0f0138", 0x79, _WORD_3, 25),
    _instruction("vmrun", "0f01d8", 0x80, _WORD_4, 0),
    _instruction("vmmcall", "0f01d9", 0x81, _WORD_4, 1, _VMRUN),
    _instruction("vmload", "0f01da", 0x82, _WORD_4, 2, _VMRUN),
    _instruction("stgi", "0f01dc", 0x84, _WORD_4, 4, _VMRUN),
    _instruction("wbinvd", "0f09", 0x89, _WORD_4, 9, _VMRUN),
    # EFER: two bits of the second part of the map for each MSR, of reads and of writes.
    _msr("rdmsr", "0f32", 0xC0000080, 0x820, 0b01, 0),
    _msr("wrmsr", "0f30", 0xC0000080, 0x820, 0b10, 1),
    # Of an MSR that the map has no bits for.
    _msr("rdmsr-of-none", "0f32", _NO_MSR, 0, 0, 0),
    _io("out", "e6f5", 0xF5, 0xF5),
    _io("in", "e4f5", 0xF5, 0xF5),
    # The second of the two ports of a word, in another byte of the map.
    _io("out-of-two-ports", "66e7f7", 0xF7, 0xF8),
    _exception("ud", "0f0b", 6),
    # KVM itself raises it. RDMSR has no error code but 0.
    _exception("gp", "b9452301000f32", 13, info=field(0)),
    # MOV EAX, moffs32: an error code of 0, a read by a supervisor.
    _exception("pf", "67a1" + field(_UNMAPPED, 4).hex(), PF, info=field(0) + field(_UNMAPPED)),
)  # fmt: skip
#: Accesses that are not intercepted if the MSR or I/O permission map has no bit set: L2 continues.
_LET_THROUGH = (
    ("rdmsr", bytes.fromhex("b9800000c00f32"), ((VMCB + _WORD_3, _MSR), (MSRPM + 0x820, 0b10)), A_MSR_INTERCEPTS),
    ("out", bytes.fromhex("e6f6"), ((VMCB + _WORD_3, _IO), (IOPM + 0x1C, 1 << 20)), A_IO_INTERCEPTS),
)


def tried(code: bytes, *intercepts: tuple[int, int | bytes]) -> tuple[s.Step, ...]:
    """To L2's first word, after which it executes ``code``."""
    ready = hypervisor("TOPIC_RUN", nested="NESTED_TRIED")
    return (*ready, s.Poke("TRIED", code), *(s.Poke(at, value) for at, value in intercepts), s.Until(s.Word("NESTED")))


def _case(event: str, trigger: str, sequence: str, cite: tuple[str, ...], *steps: s.Step) -> Scenario:
    return Scenario(event, trigger, sequence, steps, cite, "bsp", "guest", ("svm",), vendors=("amd",))


def _of(one: _Tried) -> Scenario:
    shown = (s.Expect(s.Filled(*one.info), "exits"),) if one.info else ()
    steps = (*tried(one.code, *one.intercepts), exits(one.exit), *shown)
    return _case("none", "vm-exit", f"{one.name}-in-svm-l2-intercepted", (one.cite,), *steps)


_BY_NAME = {one.name: one for one in _TRIED}


def _init(name: str) -> Scenario:
    """L1 has GIF clear at the #VMEXIT, and an INIT waits there for STGI."""
    one = _BY_NAME[name]
    steps = (*tried(one.code, *one.intercepts), exits(one.exit), FINDS, s.Send("init"), pending(), *restarted())
    return _case("init", "msi", f"after-{name}-in-svm-l2", (one.cite, A_GIF, A_SVM_INIT), *steps)


#: A single step over an OUT, which KVM emulates, and which is pending when KVM_RUN comes back.
_DB, _STEPPED = 1, (*hypervisor("TOPIC_RUN", INTERCEPT_INIT, nested="NESTED_STEP"), s.Poke(EXCEPTIONS, 1 << 1))
_STEPS = (*_STEPPED, s.Until(s.Word("NESTED")), s.Complete(), s.Observe())

SCENARIOS = (
    *(_of(one) for one in _TRIED),
    *(
        _case(
            "none", "vm-exit", f"{name}-in-svm-l2", (cite,), *tried(code, *intercepts),
            *((s.Until(s.Word("LEFT")),) if name == "out" else ()), s.Expect(s.Word("VALUE"), "runs"),
        )
        for name, code, intercepts, cite in _LET_THROUGH
    ),
    *(_init(name) for name in ("rdmsr", "out", "gp", "pf", "vmrun")),
    _case("none", "vm-exit", "single-step-in-svm-l2-intercepted", (A_EXCEPTION_INTERCEPTS,), *_STEPS, exits(0x40 + _DB)),
    _case(
        "init", "msi", "in-svm-l2-intercepted-beside-intercepted-single-step", (A_PRIORITY, A_SVM_INIT, A_EXCEPTION_INTERCEPTS),
        *_STEPS, s.Send("init"), exits(0x63),
    ),
)  # fmt: skip
