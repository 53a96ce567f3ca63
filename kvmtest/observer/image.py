# SPDX-License-Identifier: GPL-2.0-only
"""The observer's image: its parameters, and the forms in which a machine boots it."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import tempfile
import zlib
from collections.abc import Sequence
from typing import NamedTuple

from kvmtest import guests, spec
from kvmtest.guests import observer
from kvmtest.observer.plants import fill
from kvmtest.observer.state import NO_MSR
from kvmtest.state.guest_view import LAPIC_UNREAD
from kvmtest.x86 import lapic, msr

__all__ = ("FORMS", "METHODS", "OUTPUTS", "ImageError", "Options", "build", "identity", "lapic_offsets", "msr_indexes")

FORMS = ("multiboot", "pvh", "bios", "iso")
#: The ways to end a boot: the name in the log and on the command line, and the symbol.
METHODS = {
    "cf9": "METHOD_CF9",
    "port-64h": "METHOD_PORT64",
    "triple-fault": "METHOD_TRIPLE",
    "wait": "METHOD_WAIT",
    "init": "METHOD_INIT",
    "init-halted": "METHOD_INIT_HALTED",
    "restore": "METHOD_RESTORE",
}
#: Bits of QUIET and V_OUTPUTS.
OUTPUTS = {"serial": 1, "402h": 2, "e9h": 4}
#: SMBASE can be read in SMM only (SDM vol. 4, IA32_SMBASE).
_UNREAD = ("smbase",)
_PVH_ENTRY, _PAGE = 18, 0x1000
_GRUB = "set timeout=0\nserial --speed=115200\nmenuentry kvmtest {\n multiboot /observer\n}\n"


class ImageError(RuntimeError):
    """An image that cannot be made here; the message says why."""


class Options(NamedTuple):
    """An image's parameters.

    ``cpus`` to look for (0: what CPUID says, or the first 8 ids), ``methods`` that end its boots (firmware only), ``outputs``
    that it may use; False in ``xsave`` does without XSAVE and RDTSC.
    """

    cpus: int = 0
    methods: Sequence[str] = ()
    outputs: Sequence[str] = tuple(OUTPUTS)
    xsave: bool = True


def msr_indexes() -> list[int]:
    """The MSRs that the observer reads, in order: those of the project's tables that are a CPU's own, and one that no CPU has."""
    own = [one.index for one in msr.MSRS if f"msr.{one.name}" not in spec.SYNTHETIC and one.name not in _UNREAD]
    return [*own, NO_MSR]


def lapic_offsets() -> list[int]:
    """The registers of the local APIC's page that it reads, in order."""
    return [reg.offset for reg in lapic.LAPIC if reg.name not in LAPIC_UNREAD]


def identity() -> int:
    """The CRC-32 of an image without options, which identifies its code and tables. Raises GuestMissing."""
    return zlib.crc32(_rom(Options()))


def _rom(options: Options, own: int = 0) -> bytes:
    image = bytearray(guests.load(observer.NAME))
    fill(image)
    for at, numbers in ((observer.MSR_LIST, msr_indexes()), (observer.LAPIC_LIST, lapic_offsets())):
        rows = struct.pack(f"<{len(numbers) + 1}I", len(numbers), *numbers)
        image[at : at + len(rows)] = rows
    if len(options.methods) > observer.METHODS_ROOM:
        raise ImageError(f"an image has room for {observer.METHODS_ROOM} resets, not {len(options.methods)}")
    chosen = bytes(guests.symbol(observer.NAME, METHODS[name]) for name in options.methods)
    image[observer.METHODS : observer.METHODS + observer.METHODS_ROOM] = chosen.ljust(observer.METHODS_ROOM, b"\0")
    quiet = sum(bit for name, bit in OUTPUTS.items() if name not in options.outputs)
    image[observer.IMAGE_ID : observer.IMAGE_ID + 8] = struct.pack("<II", own, options.cpus)
    image[observer.QUIET : observer.QUIET + 4] = quiet.to_bytes(4, "little")
    image[observer.AVOID] = 0 if options.xsave else observer.AVOID_XSAVE | observer.AVOID_TSC
    return bytes(image)


def build(form: str, options: Options = Options()) -> bytes:  # noqa: B008 - a constant
    """An image of ``form`` (one of FORMS). Raises ImageError, GuestMissing."""
    rom = _rom(options, identity())
    if form == "bios":
        return rom
    if form == "pvh":
        return _elf64(rom)
    elf = _elf32(rom)
    return _iso(elf) if form == "iso" else elf


def _note() -> bytes:
    """XEN_ELFNOTE_PHYS32_ENTRY: where PVH begins (Xen, x86/HVM direct boot ABI)."""
    return struct.pack("<III4sI", 4, 4, _PVH_ENTRY, b"Xen\0", observer.LOAD + observer.loaded)


def _multiboot() -> bytes:
    """A multiboot header of version 1 with the addresses in it (Multiboot Specification, Header layout)."""
    magic, flags = 0x1BADB002, 1 << 16
    load = observer.LOAD
    # The header lies before the image in the file, and is not loaded: the addresses begin after it.
    header = load - _MULTIBOOT_BEFORE
    fields = (magic, flags, -(magic + flags) & 0xFFFFFFFF, header, header, load + guests.ROM_SIZE, 0, load + observer.loaded)
    return struct.pack("<8I", *fields)


#: Distance from the header to the image in a file.
_MULTIBOOT_BEFORE = _PAGE - 0x100


def _elf32(rom: bytes) -> bytes:
    """An ELF file for i386 with a multiboot header and PVH's note."""
    note, load, entry = _note(), observer.LOAD, observer.LOAD + observer.loaded
    head = b"\x7fELF" + bytes((1, 1, 1)) + bytes(9)
    head += struct.pack("<HHIIIIIHHHHHH", 2, 3, 1, entry, 52, 0, 0, 52, 32, 2, 40, 0, 0)
    head += struct.pack("<8I", 1, _PAGE - 0x100, load - 0x100, load - 0x100, len(rom) + 0x100, len(rom) + 0x100, 7, 0x100)
    head += struct.pack("<8I", 4, 0x80, 0, 0, len(note), len(note), 4, 4)
    out = bytearray(_PAGE) + rom
    out[: len(head)] = head
    out[0x80 : 0x80 + len(note)] = note
    out[0x100:0x120] = _multiboot()
    return bytes(out)


def _elf64(rom: bytes) -> bytes:
    """An ELF file for x86-64 with PVH's note, for VMMs that load no other."""
    note, load, entry = _note(), observer.LOAD, observer.LOAD + observer.loaded
    head = b"\x7fELF" + bytes((2, 1, 1)) + bytes(9)
    head += struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, entry, 64, 0, 0, 64, 56, 2, 64, 0, 0)
    head += struct.pack("<IIQQQQQQ", 1, 7, _PAGE, load, load, len(rom), len(rom), _PAGE)
    head += struct.pack("<IIQQQQQQ", 4, 4, 0x100, 0, 0, len(note), len(note), 4)
    out = bytearray(_PAGE) + rom
    out[: len(head)] = head
    out[0x100 : 0x100 + len(note)] = note
    return bytes(out)


def _iso(elf: bytes) -> bytes:
    """A CD, also for a USB stick, with GRUB for BIOS and what there is of it for EFI. Raises ImageError."""
    missing = [name for name in ("grub-mkrescue", "xorriso") if not shutil.which(name)]
    if missing:
        raise ImageError(f"an ISO needs {' and '.join(missing)}: apt-get install grub-pc-bin grub-common xorriso mtools")
    with tempfile.TemporaryDirectory() as folder:
        boot = os.path.join(folder, "tree", "boot", "grub")
        os.makedirs(boot)
        with open(os.path.join(folder, "tree", "observer"), "wb") as file:
            file.write(elf)
        with open(os.path.join(boot, "grub.cfg"), "w", encoding="ascii") as text:
            text.write(_GRUB)
        iso = os.path.join(folder, "iso")
        options = ["--fonts=", "--locales=", "--themes=", "-o", iso, os.path.join(folder, "tree")]
        done = subprocess.run(["grub-mkrescue", *options], capture_output=True, text=True, errors="replace", check=False)
        if done.returncode:
            raise ImageError(f"grub-mkrescue: {done.stderr.strip().rpartition(chr(10))[2]}")
        with open(iso, "rb") as made:
            return made.read()
