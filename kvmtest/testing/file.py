# SPDX-License-Identifier: GPL-2.0-only
"""A vCPU's state in a file: the structures that the KVM_GET_* ioctls filled, one after the other, from a VMM in any language.

The file begins with the 8 bytes ``KVMSTATE``, a 32-bit 1 and a 32-bit 0, little-endian as all. Each section is its name in 16
bytes, filled with 0, the size of its contents in 64 bits, the contents, and zeros up to a multiple of 8.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .state import saved_state

if TYPE_CHECKING:
    from .state import State

__all__ = ["SECTIONS", "from_file", "to_file"]

#: The names of sections: those of saved_state()'s arguments.
SECTIONS = ("regs", "sregs", "debugregs", "events", "mp_state", "xcrs", "lapic", "xsave", "nested", "msrs", "cpuid")
_HEAD = b"KVMSTATE" + (1).to_bytes(4, "little") + bytes(4)
_NAME, _SIZE = 16, 8


def to_file(sections: dict[str, bytes]) -> bytes:
    """The file with ``sections``, as a VMM writes it."""
    out = bytearray(_HEAD)
    for name, contents in sections.items():
        out += name.encode("ascii").ljust(_NAME, b"\0") + len(contents).to_bytes(_SIZE, "little") + contents
        out += bytes(-len(contents) % 8)
    return bytes(out)


def from_file(data: bytes) -> State:
    """The state in a file's ``data``. Raises ValueError for what is no such file, or has a structure of the wrong size."""
    if data[: len(_HEAD)] != _HEAD:
        raise ValueError("it does not begin with KVMSTATE and version 1")
    found: dict[str, bytes] = {}
    at = len(_HEAD)
    while at < len(data):
        start = at + _NAME + _SIZE
        if start > len(data):
            raise ValueError(f"it ends in the head of a section, at byte {at}")
        name = data[at : at + _NAME].rstrip(b"\0").decode("ascii", "replace")
        size = int.from_bytes(data[at + _NAME : start], "little")
        if name not in SECTIONS or name in found:
            raise ValueError(
                f"section {name!r} at byte {at}: {'there are two' if name in found else 'one of ' + ', '.join(SECTIONS)}"
            )
        if start + size > len(data):
            raise ValueError(f"section {name!r} has {size} bytes by its head, and {len(data) - start} follow")
        found[name] = data[start : start + size]
        at = start + size + -size % 8
    if not found:
        raise ValueError("it has no section")
    return saved_state(**found)
