# SPDX-License-Identifier: GPL-2.0-only
"""Bytes out of the lab and into it by port I/O: no distribution's kernel needs a module for that, only CONFIG_X86_IOPL_IOPERM.

Out they go through the parallel port: both emulators put them into a file as fast as the CPU writes them. A serial port would
accept them no faster than its line, which under Bochs is ten bytes a millisecond of the CPU's time.

In they come through QEMU's firmware configuration device (docs/specs/fw_cfg.rst in QEMU), at some 15 MB/s. Its contents are no
part of a saved guest: one that is restored finds in it what the QEMU that restores it was given.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import time
from typing import Any

__all__ = ("ORDER", "WAIT", "FwCfg", "Port")

#: The entry that says what to do, and its content until that is known.
ORDER, WAIT = "opt/kvmtest/order", "wait"

_DATA = 0x378
#: Each byte goes to the data register, then STROBE goes up and down in the control register (SLCT and INIT stay up).
_CODE = bytes.fromhex(
    "8a07"  # next: mov (%rdi), %al
    "48ffc7"  # inc %rdi
    "66ba7803"  # mov $0x378, %dx
    "ee"  # out %al, %dx
    "b27a"  # mov $0x7a, %dl
    "b00d"  # mov $0x0d, %al
    "ee"  # out %al, %dx
    "b00c"  # mov $0x0c, %al
    "ee"  # out %al, %dx
    "48ffce"  # dec %rsi
    "75e9"  # jnz next
    "c3"  # ret
)


_SELECTOR, _DIRECTORY = 0x510, 0x19
#: The interval at which a guest polls for its order.
_LOOK_S = 0.001
#: An entry of the directory: size and key, big-endian, two bytes of nothing, a name.
_ENTRY = 64
_READ = bytes.fromhex(
    "89d0"  # mov %edx, %eax
    "ba10050000"  # mov $0x510, %edx
    "66ef"  # out %ax, %dx
    "ffc2"  # inc %edx
    "4889f1"  # mov %rsi, %rcx
    "f36c"  # rep insb
    "c3"  # ret
)


class _Ports:
    """Ports that this thread, and each that it starts from now on, may use, and the code that does.

    Raises OSError where the kernel lets not even root have them.
    """

    def __init__(self, first: int, count: int, code: bytes, *types: Any) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.ioperm(first, count, 1):
            error = ctypes.get_errno()
            raise OSError(error, f"ioperm: {os.strerror(error)}; the kernel needs CONFIG_X86_IOPL_IOPERM")
        self._page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        self._page.write(code)
        address = ctypes.addressof(ctypes.c_char.from_buffer(self._page))
        self._code = ctypes.CFUNCTYPE(None, *types)(address)


class Port(_Ports):
    """The parallel port."""

    def __init__(self) -> None:
        super().__init__(_DATA, 3, _CODE, ctypes.c_char_p, ctypes.c_size_t)

    def write(self, data: bytes) -> None:
        """Send ``data``."""
        if data:
            self._code(data, len(data))


class FwCfg(_Ports):
    """QEMU's firmware configuration device."""

    def __init__(self) -> None:
        super().__init__(_SELECTOR, 2, _READ, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint16)

    def order(self) -> bytes:
        """The order, once there is one."""
        while self._entry(len(WAIT)) == WAIT.encode():
            time.sleep(_LOOK_S)
        # The guest may have been saved while it read, and have gone on with another directory or another order: now all of it.
        return self._entry()

    def _entry(self, limit: int | None = None) -> bytes:
        """Read up to ``limit`` bytes of the order; return WAIT if the directory changed and does not have it."""
        count = int.from_bytes(self._read(_DIRECTORY, 4), "big")
        listed = self._read(_DIRECTORY, 4 + count * _ENTRY)[4:]
        for at in range(0, len(listed), _ENTRY):
            if listed[at + 8 : at + _ENTRY].rstrip(b"\0") == ORDER.encode():
                size, key = int.from_bytes(listed[at : at + 4], "big"), int.from_bytes(listed[at + 4 : at + 6], "big")
                return self._read(key, size if limit is None else min(size, limit))
        return WAIT.encode()

    def _read(self, key: int, size: int) -> bytes:
        buffer = ctypes.create_string_buffer(size)
        self._code(buffer, size, key)
        return buffer.raw
