# SPDX-License-Identifier: GPL-2.0-only
"""An instruction that KVM's emulator stumbled over, in words."""

from __future__ import annotations

from functools import cache

from kvmtest.kvm import Exit
from kvmtest.x86.objdump import listing

__all__ = ("disassemble", "internal_error")


def internal_error(exit_: Exit, insn: bytes, bits: int) -> str:
    """An exit for an internal error, with the instruction that KVM failed to emulate, if it is known."""
    text = f"KVM_EXIT_INTERNAL_ERROR {exit_.suberror_name}"
    return f"{text}: {disassemble(insn, bits) or insn.hex(' ')}" if insn else text


@cache
def disassemble(insn: bytes, bits: int) -> str:
    """The first instruction of ``insn`` by objdump, or "" where there is none or it does not know better."""
    machine = {16: "i8086", 32: "i386", 64: "i386:x86-64"}[bits]
    for line in listing(insn, machine, "--no-addresses", timeout_s=2):
        fields = line.split("\t")
        if len(fields) >= 2:
            return " ".join(fields[-1].split())
    return ""
