# SPDX-License-Identifier: GPL-2.0-only
"""RPM packages that are made up, as RPM's manual describes the format ("RPM V4 Package format")."""

from __future__ import annotations

import bz2
import gzip
import lzma
import struct
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

__all__ = ("COMPRESSORS", "archive", "entry", "rpm")


def _zstd(data: bytes) -> bytes:
    return subprocess.run(["zstd", "-qc"], input=data, capture_output=True, check=True).stdout


COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "xz": lzma.compress,
    "lzma": lambda data: lzma.compress(data, lzma.FORMAT_ALONE),
    "bzip2": bz2.compress,
    "zstd": _zstd,
    "none": bytes,
}


def entry(name: str, content: bytes, mode: int = 0o100644, *, size: int | None = None, inode: int = 1, links: int = 1) -> bytes:
    """An entry of a cpio archive; ``size`` is what it says of its length."""
    encoded = name.encode() + b"\0"
    length = len(content) if size is None else size
    fields = (inode, mode, 0, 0, links, 0, length, 0, 0, 0, 0, len(encoded), 0)
    head = b"070701" + b"".join(b"%08x" % field for field in fields) + encoded
    return head + bytes(-len(head) % 4) + content + bytes(-len(content) % 4)


def archive(files: Mapping[str, bytes]) -> bytes:
    """A cpio archive with ``files``."""
    return b"".join(entry(name, content) for name, content in files.items()) + entry("TRAILER!!!", b"", 0)


def _header(strings: Mapping[int, str]) -> bytes:
    index = data = b""
    for tag, text in strings.items():
        index += struct.pack(">IIII", tag, 6, len(data), 1)
        data += text.encode() + b"\0"
    return b"\x8e\xad\xe8\x01" + bytes(4) + struct.pack(">II", len(strings), len(data)) + index + data


def rpm(
    path: Path,
    payload: bytes | Mapping[str, bytes],
    compressor: str = "gzip",
    *,
    arch: str = "x86_64",
    strings: Mapping[int, str] | None = None,
) -> Path:
    """A package at ``path``, called as rpm calls it: NAME-VERSION-RELEASE.ARCH.rpm. ``strings`` are more tags of its header."""
    name, version, release = path.name.removesuffix(f".{arch}.rpm").rsplit("-", 2)
    data = payload if isinstance(payload, bytes) else archive(payload)
    lead = b"\xed\xab\xee\xdb" + bytes(92)
    signatures = _header({1000: "odd"})
    tags = {1000: name, 1001: version, 1002: release, 1022: arch, 1124: "cpio", 1125: compressor} | dict(strings or {})
    packed = COMPRESSORS.get(compressor, bytes)(data)
    path.write_bytes(lead + signatures + bytes(-len(signatures) % 8) + _header(tags) + packed)
    return path
