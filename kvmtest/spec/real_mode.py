# SPDX-License-Identifier: GPL-2.0-only
"""Instructions that KVM's emulator lacks, where KVM itself emulates real mode."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ("unemulated",)

#: UD2 is no entry of twobyte_table in emulate.c; handle_emulation_failure() exits at CPL 0.
_UD2 = (
    "KVM_INTERNAL_ERROR_EMULATION ndata=8 insn=0f 0b ",
    # handle_emulation_failure() of 5.10 does not say which instruction; UD2 is that by which guests shut down.
    "exits with KVM_EXIT_SHUTDOWN: KVM_EXIT_INTERNAL_ERROR KVM_INTERNAL_ERROR_EMULATION ndata=0 ",
)
_NO_UD2 = (
    "with unrestricted_guest=0 KVM emulates what virtual-8086 mode cannot execute, and its emulator has no UD2, by which this guest "
    "shuts down"
)


def unemulated(backend: str, parameters: Mapping[str, str], end: str) -> str:
    """Return why a guest that stopped with ``end`` could not go on in an emulated real mode; "" if it is none of that."""
    virtual = backend == "vmx" and parameters.get("unrestricted_guest") in ("N", "0")
    return _NO_UD2 if virtual and any(one in end for one in _UD2) else ""
