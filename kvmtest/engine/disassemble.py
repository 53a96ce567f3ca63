# SPDX-License-Identifier: GPL-2.0-only
"""An instruction that KVM's emulator stumbled over, in words."""

from __future__ import annotations

from functools import cache

from kvmtest.kvm import Exit

__all__ = ("disassemble", "internal_error")


def internal_error(exit_: Exit, insn: bytes, bits: int) -> str:
    """An exit for an internal error, with the instruction that KVM failed to emulate, if it is known."""
    text = f"KVM_EXIT_INTERNAL_ERROR {exit_.suberror_name}"
    return f"{text}: {disassemble(insn, bits) or insn.hex(' ')}" if insn else text


@cache
def disassemble(insn: bytes, bits: int) -> str:
    """The first instruction of ``insn`` by objdump, or "" where there is none or it does not know better."""
    # Slow to import, and seldom needed.
    import shutil
    import subprocess
    import tempfile

    tool = shutil.which("objdump")
    if not tool:
        return ""
    machine = {16: "i8086", 32: "i386", 64: "i386:x86-64"}[bits]
    try:
        with tempfile.NamedTemporaryFile() as file:
            file.write(insn)
            file.flush()
            command = [tool, "-D", "-b", "binary", "-m", machine, "--no-addresses", "-w", file.name]
            done = subprocess.run(command, capture_output=True, text=True, timeout=2, check=True)
    except (OSError, subprocess.SubprocessError):  # nor without a folder to write it to
        return ""
    for line in done.stdout.splitlines():
        fields = line.split("\t")
        if len(fields) >= 2 and not fields[0].strip(" ") == file.name:
            return " ".join(fields[-1].split())
    return ""
