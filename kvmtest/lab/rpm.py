# SPDX-License-Identifier: GPL-2.0-only
"""The contents of an RPM package, without rpm: a lead, two headers, and a compressed cpio archive (RPM's manual, "RPM V4 Package
format").
"""

from __future__ import annotations

import bz2
import gzip
import importlib
import io
import lzma
import os
import shutil
import struct
import subprocess
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any, NamedTuple, cast

from kvmtest.lab.deb import MOST
from kvmtest.lab.error import LabError

__all__ = ("BROKEN", "Head", "files", "head")

_LEAD, _LEAD_MAGIC = 96, b"\xed\xab\xee\xdb"
_HEADER_MAGIC = b"\x8e\xad\xe8\x01"
#: rpm's own limits of a header: entries, and bytes of data.
_MOST_ENTRIES, _MOST_DATA = 0xFFFF, 0x0FFF_FFFF
_NAME, _VERSION, _RELEASE, _ARCH, _FORMAT, _COMPRESSOR = 1000, 1001, 1002, 1022, 1124, 1125
_STRINGS = (6, 9)  # RPM_STRING_TYPE, and one in several languages
#: An entry of the archive in cpio's "newc" format: a magic number, then numbers of eight hexadecimal digits.
_CPIO, _CPIO_MAGIC, _CPIO_END = 110, (b"070701", b"070702"), b"TRAILER!!!"
_LONGEST_NAME = 4096
_REGULAR, _KIND = 0o100000, 0o170000
#: No file of a kernel's package is larger.
_MOST_FILE = 1 << 30
_CHUNK = 1 << 20
_DAMAGED = (OSError, EOFError, ValueError, lzma.LZMAError, zlib.error)


class Head(NamedTuple):
    """The header of a package, and the offset of its archive in bytes."""

    name: str
    version: str
    release: str
    arch: str
    compressor: str
    payload: int

    @property
    def of(self) -> str:
        """The end of the usual name of its file, which it shares with the other packages that were built with it."""
        return f"-{self.version}-{self.release}.{self.arch}.rpm"


class Broken(Exception):
    """The reason why a package cannot be read."""


#: Errors of reading a broken package.
BROKEN = (Broken,)


def head(path: str) -> Head:
    """Return the header of the package at ``path``. Raises LabError."""
    with open(path, "rb") as file:
        try:
            return _head(file)
        except Broken as error:
            raise LabError(f"{path} is no RPM package, or cut short: {error}") from None


def files(path: str) -> Iterator[tuple[str, IO[bytes]]]:
    """Name and content of each regular file in the package at ``path``, one after the other. Raises LabError, and Broken."""
    about = head(path)
    with open(path, "rb", buffering=0) as file:
        file.seek(about.payload)
        with _unpacked(path, about.compressor, file) as archive:
            yield from _members(archive)
            # The sum of all of it comes last.
            while _read(archive, _CHUNK):
                pass


def _read(file: IO[bytes], size: int) -> bytes:
    try:
        return file.read(size)
    except _DAMAGED as error:
        raise Broken(str(error) or type(error).__name__) from error


def _exactly(file: IO[bytes], size: int, what: str) -> bytes:
    data = _read(file, size)
    if len(data) != size:
        raise Broken(f"it ends within {what}")
    return data


def _head(file: IO[bytes]) -> Head:
    if _exactly(file, _LEAD, "its lead")[:4] != _LEAD_MAGIC:
        raise Broken("its first bytes are none of an RPM package")
    _header(file, "the header of its signatures")
    file.seek(-file.tell() % 8, os.SEEK_CUR)
    tags = _header(file, "its header")
    if (format_ := tags.get(_FORMAT, "cpio")) != "cpio":
        raise Broken(f"its contents are {format_!r}, no cpio archive")
    name, version, release, arch = (tags.get(tag, "") for tag in (_NAME, _VERSION, _RELEASE, _ARCH))
    return Head(name, version, release, arch, tags.get(_COMPRESSOR, "gzip"), file.tell())


def _header(file: IO[bytes], what: str) -> dict[int, str]:
    """The strings of a header, by their tags."""
    magic, entries, size = struct.unpack(">4s4xII", _exactly(file, 16, what))
    if magic != _HEADER_MAGIC or entries > _MOST_ENTRIES or size > _MOST_DATA:
        raise Broken(f"{what} is none")
    index, data = _exactly(file, 16 * entries, what), _exactly(file, size, what)
    found = {}
    for tag, kind, offset, _ in struct.iter_unpack(">IIII", index):
        if kind in _STRINGS and offset < size:
            found[tag] = data[offset : data.find(b"\0", offset)].decode(errors="replace")
    return found


@contextmanager
def _unpacked(path: str, compressor: str, file: IO[bytes]) -> Iterator[IO[bytes]]:
    """The archive that ``file`` goes on with."""
    if compressor == "zstd":
        with _zstd(path, file) as archive:
            yield archive
        return
    opened: dict[str, Any] = {"gzip": gzip.open, "xz": lzma.open, "lzma": lzma.open, "bzip2": bz2.open, "none": None, "": None}
    if compressor not in opened:
        raise Broken(f"it is compressed by {compressor!r}")
    make = opened[compressor]
    yield make(file) if make else file


@contextmanager
def _zstd(path: str, file: IO[bytes]) -> Iterator[IO[bytes]]:
    """By the standard library of Python 3.14, or else by zstd."""
    try:
        library = importlib.import_module("compression.zstd")
    except ImportError:
        if not shutil.which("zstd"):
            raise LabError(f"{path} needs zstd to unpack: apt-get install zstd") from None
        with subprocess.Popen(["zstd", "-dcq"], stdin=file, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
            try:
                assert process.stdout
                yield process.stdout
                if process.wait():
                    raise Broken("zstd finds it damaged")
            finally:
                process.kill()
        return
    yield cast(IO[bytes], library.open(file))


class _Content:
    """A file of the archive: so many bytes of what comes."""

    def __init__(self, archive: IO[bytes], size: int) -> None:
        self._archive, self._left = archive, size

    def read(self, size: int = -1) -> bytes:
        """The next bytes. Raises Broken."""
        size = self._left if size < 0 else min(size, self._left)
        self._left -= size
        return _exactly(self._archive, size, "a file")

    def skip(self) -> None:
        """Go to its end."""
        while self.read(_CHUNK):
            pass


def _members(archive: IO[bytes]) -> Iterator[tuple[str, IO[bytes]]]:
    total = 0
    #: Names of a file with several of them, whose content comes with the last.
    linked: dict[tuple[int, ...], list[str]] = {}
    while True:
        fields = _exactly(archive, _CPIO, "its archive")
        if fields[:6] not in _CPIO_MAGIC:
            raise Broken(f"an entry of its archive begins with {fields[:6]!r}")
        try:
            inode, mode, _, _, links, _, size, *device, _, _, length, _ = (
                int(fields[at : at + 8].decode("ascii"), 16) for at in range(6, _CPIO, 8)
            )
        except ValueError:
            raise Broken("an entry of its archive has no numbers") from None
        if not 0 < length <= _LONGEST_NAME:
            raise Broken(f"a name of {length} bytes in its archive")
        name = _exactly(archive, length, "a name").rstrip(b"\0")
        _exactly(archive, -(_CPIO + length) % 4, "a name")
        if name == _CPIO_END:
            return
        total += size
        if size > _MOST_FILE or total > MOST:
            raise Broken(f"{name.decode(errors='replace')!r}, of {size} bytes, makes it larger than any kernel's package")
        content = _Content(archive, size)
        if mode & _KIND == _REGULAR:
            said = name.decode(errors="replace")
            if links <= 1:
                yield said, cast(IO[bytes], content)
            else:
                names = linked.setdefault((inode, *device), [])
                names.append(said)
                if size:
                    data = content.read()
                    yield from ((one, io.BytesIO(data)) for one in names)
                    names.clear()
        content.skip()
        _exactly(archive, -size % 4, "a file")
