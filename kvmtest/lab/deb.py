# SPDX-License-Identifier: GPL-2.0-only
"""The contents of a Debian package, without dpkg."""

from __future__ import annotations

import io
import lzma
import os
import shutil
import tarfile
from collections.abc import Iterator
from typing import IO

from kvmtest.lab import program
from kvmtest.lab.error import LabError

__all__ = ("BROKEN", "contents", "unpack")

#: Errors of reading a broken package.
BROKEN = (tarfile.TarError, lzma.LZMAError, EOFError, ValueError)


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


def contents(path: str) -> tarfile.TarFile:
    """The files of the package at ``path``. Raises LabError, and the errors in `BROKEN`."""
    for name, size, file in _members(path):
        if name.startswith("data.tar"):
            data = file.read(size)
            if name.endswith(".zst"):
                return tarfile.open(fileobj=io.BytesIO(program.run(_zstd(), input=data).stdout), mode="r:")
            return tarfile.open(fileobj=io.BytesIO(data), mode="r|*")
    raise LabError(f"{path} has no contents")


def _zstd() -> list[str]:
    if not shutil.which("zstd"):
        raise LabError("this package needs zstd to unpack: apt-get install zstd")
    return ["zstd", "-dcq"]


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
