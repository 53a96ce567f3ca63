# SPDX-License-Identifier: GPL-2.0-only
"""Bytes out of the lab through its parallel port: both emulators put them into a file as fast as the CPU writes them.

A serial port would take them no faster than its line, which under Bochs is ten bytes a millisecond of the CPU's time; and no
distribution's kernel needs a module for this, only CONFIG_X86_IOPL_IOPERM.
"""

from __future__ import annotations

import ctypes
import mmap
import os

__all__ = ("Port",)

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


class Port:
    """The parallel port. Raises OSError where the kernel does not let even root have it."""

    def __init__(self) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.ioperm(_DATA, 3, 1):
            error = ctypes.get_errno()
            raise OSError(error, f"ioperm: {os.strerror(error)}; the kernel needs CONFIG_X86_IOPL_IOPERM")
        self._page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        self._page.write(_CODE)
        address = ctypes.addressof(ctypes.c_char.from_buffer(self._page))
        self._send = ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_size_t)(address)

    def write(self, data: bytes) -> None:
        """Send ``data``."""
        if data:
            self._send(data, len(data))
