# SPDX-License-Identifier: GPL-2.0-only
"""The contents of a Debian package, without dpkg."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import os
import shutil
import subprocess
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterator
from typing import IO, Any

from kvmtest.lab.error import LabError

__all__ = ("BROKEN", "MOST", "contents", "files", "unpack")

#: Errors of reading a broken package.
BROKEN = (tarfile.TarError, lzma.LZMAError, zlib.error, gzip.BadGzipFile, EOFError, ValueError)
#: The number of bytes that a package may unpack to: ten times a kernel with all of its modules.
MOST = 4 << 30
_CHUNK = 1 << 20


def _members(path: str) -> Iterator[tuple[str, int, IO[bytes]]]:
    """The members of an `ar` archive, which a .deb is: name, size, and the file, positioned at the member's beginning."""
    with open(path, "rb") as file:
        if file.read(8) != b"!<arch>\n":
            raise LabError(f"{path} is not a Debian package")
        end = os.fstat(file.fileno()).st_size
        while len(head := file.read(60)) == 60:
            start = file.tell()
            digits = head[48:58].strip()
            if not digits.isdigit() or int(digits) > end - start:
                raise LabError(f"{path} is cut short, or no Debian package: a member of {digits.decode(errors='replace')} bytes")
            yield head[:16].decode(errors="replace").strip().rstrip("/"), int(digits), file
            file.seek(start + int(digits) + int(digits) % 2)


class _Bounded(io.RawIOBase):
    """A reader of ``source`` with a limit: more than any kernel's package has."""

    def __init__(self, path: str, source: IO[bytes]) -> None:
        self._path = path
        self._source = source
        self._left = MOST

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill ``buffer``, or less of it. Raises LabError."""
        data = self._source.read(len(buffer))
        self._left -= len(data)
        if self._left < 0:
            raise LabError(f"{self._path} unpacks to more than {MOST >> 30} GiB")
        buffer[: len(data)] = data
        return len(data)


@contextlib.contextmanager
def contents(path: str) -> Iterator[tarfile.TarFile]:
    """The files of the package at ``path``, in their order. Raises LabError, and the errors in `BROKEN`."""
    for name, size, file in _members(path):
        if name.startswith("data.tar"):
            with _unpacked(name, file, size) as data, tarfile.open(fileobj=_Bounded(path, data), mode="r|") as tar:
                yield tar
            return
    raise LabError(f"{path} has no contents")


def files(path: str) -> Iterator[tuple[str, IO[bytes]]]:
    """Name and content of each regular file in the package at ``path``, one after the other. Raises LabError, and what is in
    `BROKEN`.
    """
    with contents(path) as tar:
        for member in tar:
            if member.isfile() and (content := tar.extractfile(member)):
                yield member.name, content


@contextlib.contextmanager
def _unpacked(name: str, file: IO[bytes], size: int) -> Iterator[IO[bytes]]:
    """The archive that a member of ``size`` bytes packs, from where ``file`` stands."""
    with tempfile.TemporaryFile() as packed:
        shutil.copyfileobj(_Part(file, size), packed, _CHUNK)
        packed.seek(0)
        if name.endswith(".zst"):
            with _zstd(packed) as data:
                yield data
            return
        kinds: dict[str, Callable[[IO[bytes]], Any]] = {".xz": lzma.open, ".gz": gzip.open, ".bz2": bz2.open}
        unpack = kinds.get(os.path.splitext(name)[1])
        yield unpack(packed) if unpack else packed


class _Part:
    """The next ``size`` bytes of ``file``."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file, self._left = file, size

    def read(self, count: int = -1, /) -> bytes:
        """Return up to ``count`` bytes of it, or all of the rest."""
        data = self._file.read(self._left if count < 0 else min(count, self._left))
        self._left -= len(data)
        return data


@contextlib.contextmanager
def _zstd(packed: IO[bytes]) -> Iterator[IO[bytes]]:
    if not shutil.which("zstd"):
        raise LabError("this package needs zstd to unpack: apt-get install zstd")
    with subprocess.Popen(["zstd", "-dcq"], stdin=packed, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout
        try:
            yield process.stdout
        finally:
            process.kill()


def unpack(path: str, folder: str) -> None:
    """Put all files of the package at ``path`` into ``folder``. Raises LabError."""
    try:
        with contents(path) as tar:
            # Not all of 3.11 has filters; the package's signature was checked.
            if hasattr(tarfile, "tar_filter"):
                tar.extractall(folder, filter="tar")
            else:
                tar.extractall(folder)
    except BROKEN as error:
        raise LabError(f"{path} cannot be unpacked: {error}") from error
