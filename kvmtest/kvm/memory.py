# SPDX-License-Identifier: GPL-2.0-only
"""Memory of the guest."""

from __future__ import annotations

import ctypes
import mmap
from types import TracebackType

__all__ = ["GuestMemory"]


class GuestMemory:
    """Anonymous memory of this process that a memory slot shows to the guest; zero at first.

    `gpa` is where the guest sees it, `size` its bytes, `address` where this process sees it, `slot` and `flags` those
    of KVM_SET_USER_MEMORY_REGION. Addresses given to the methods are the guest's. Made by Vm.add_memory() and closed
    with the Vm.
    """

    def __init__(self, slot: int, gpa: int, size: int, flags: int = 0) -> None:
        self.slot = slot
        self.gpa = gpa
        self.size = size
        self.flags = flags
        self._map = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        # The view is dropped at once, since a mapping with a view on it cannot be closed; the address stays.
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self._map))

    def _offset(self, gpa: int, length: int) -> int:
        offset = gpa - self.gpa
        if offset < 0 or length < 0 or offset + length > self.size:
            raise ValueError(
                f"[{gpa:#x}, {gpa + length:#x}) is not within guest memory [{self.gpa:#x}, {self.gpa + self.size:#x})"
            )
        return offset

    def read(self, gpa: int, length: int) -> bytes:
        """`length` bytes from guest-physical address `gpa`. Raises ValueError outside of this memory."""
        offset = self._offset(gpa, length)
        return self._map[offset : offset + length]

    def write(self, gpa: int, data: bytes | bytearray | memoryview) -> None:
        """Put `data` at guest-physical address `gpa`. Raises ValueError outside of this memory."""
        offset = self._offset(gpa, len(data))
        self._map[offset : offset + len(data)] = bytes(data)

    def read_int(self, gpa: int, length: int = 8) -> int:
        """The little-endian integer of `length` bytes at `gpa`. Raises ValueError outside of this memory."""
        return int.from_bytes(self.read(gpa, length), "little")

    def write_int(self, gpa: int, value: int, length: int = 8) -> None:
        """Put `value` at `gpa`, little-endian in `length` bytes. Raises ValueError and OverflowError."""
        self.write(gpa, value.to_bytes(length, "little"))

    def fill(self, byte: int = 0) -> None:
        """Set every byte."""
        self._map[:] = bytes((byte,)) * self.size

    @property
    def closed(self) -> bool:
        """True once the memory has been unmapped."""
        return self._map.closed

    def close(self) -> None:
        """Give the memory back to the host; the guest must not need it any more. Can be called again."""
        self._map.close()

    def __enter__(self) -> GuestMemory:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.close()
