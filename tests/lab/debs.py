# SPDX-License-Identifier: GPL-2.0-only
"""Debian packages that are made up."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

__all__ = ("deb",)


def deb(path: Path, files: dict[str, bytes], root: str = "./", size: str = "", link: str = "") -> Path:
    """A package with ``files`` below ``root``, and a symbolic link ``link`` to its own folder's parent.

    ``size`` is what it says of the length of its contents.
    """
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:xz") as tar:
        if link:
            member = tarfile.TarInfo(link)
            member.type, member.linkname = tarfile.SYMTYPE, str(path.parent / "outside")
            tar.addfile(member)
        for name, content in files.items():
            member = tarfile.TarInfo(f"{root}{name}")
            member.size, member.mode = len(content), 0o755
            tar.addfile(member, io.BytesIO(content))
    out = b"!<arch>\n"
    for name, content in (("debian-binary", b"2.0\n"), ("data.tar.xz", data.getvalue())):
        said = size if name.startswith("data") and size else str(len(content))
        out += f"{name:16}{0:<12}{0:<6}{0:<6}{'100644':8}{said:<10}`\n".encode() + content + b"\n" * (len(content) % 2)
    path.write_bytes(out)
    return path
