# SPDX-License-Identifier: GPL-2.0-only
"""Guest code and data as arrays of bytes in C, with the code's disassembly beside it."""

from __future__ import annotations

from collections.abc import Iterator

__all__ = ("arrays",)

_ROW = 12


def arrays(gpa: int, data: bytes) -> Iterator[tuple[int, bytes, str | None]]:
    """Address, bytes and text of the arrays that make up ``data`` at ``gpa``, in whose text ``name`` is to be filled in.

    Without a text all bytes are the same. Zeros are left out: guest memory begins as that.
    """
    if len(set(data)) == 1:
        yield gpa, data, None
        return
    rows = [", ".join(f"{byte:#04x}" for byte in data[at : at + _ROW]) + "," for at in range(0, len(data), _ROW)]
    yield gpa, data, "static const __u8 {name}[] = {{\n" + "\n".join(f"\t{row}" for row in rows) + "\n}};\n"
