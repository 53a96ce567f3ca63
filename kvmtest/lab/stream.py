# SPDX-License-Identifier: GPL-2.0-only
"""The format in which evidence leaves the guest: lines of tab-separated fields, the first of which is one letter.

All of it is one zlib stream, flushed with each case. `Encoder` runs inside and imports little.

| letter | fields |
|---|---|
| W | nothing: the program inside is up, and waits for its order; a new stream begins then |
| B | kernel release: the program inside has started |
| M | module that is being loaded |
| H | kernel, backend, CPU vendor, CPU model, then the parameters, each name=value |
| N | number of cases |
| C | name and view of the case that is about to run |
| D | a piece of a section's bytes; numbered from 0 as they come |
| V | the contents of a layout, a plant or a snapshot; numbered from 0 as they come (marshal) |
| O | the evidence of the running case, to be judged outside (marshal) |
| S | name, section and address in the kernel of a module's code |
| K | coverage of the running case, or of the guest before the first one (bytes, see `kvmtest/lab/kvmcov/kvmcov.c`) |
| c | seconds that the case took |
| R | the result of a job that runs no cases (marshal) |
| h | a sign of life, from a thread beside the one that all others are from |
| L | line of the kernel's log |
| X | the reason why nothing more will come |
| E | the end: everything has been sent |
"""

from __future__ import annotations

import marshal
import threading
import zlib
from collections.abc import Callable, Iterable
from typing import Any

__all__ = ("WAITS", "Decoder", "Encoder")

#: The line of a guest that waits for its order.
WAITS = "W"

#: Bytes of a line, and of what one piece of the stream unpacks to, that no Encoder gets near: a whole run is nine million.
_LONGEST = 8 << 20
_ESCAPES = {ord("\\"): "\\\\", ord("\t"): "\\t", ord("\n"): "\\n", ord("\r"): "\\r"}
_UNESCAPES = {"\\": "\\", "t": "\t", "n": "\n", "r": "\r"}
#: Begins the two escapes of a line of bytes.
_ESC = b"\x1b"


def _unescape(field: str) -> str:
    if "\\" not in field:
        return field
    parts = iter(field)
    return "".join(_UNESCAPES.get(next(parts, ""), "?") if c == "\\" else c for c in parts)


class Encoder:
    """Turns what happens inside into lines for ``write``."""

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self._write = write
        self._lines: list[bytes] = []
        self._zip = zlib.compressobj(1)
        self._lock = threading.Lock()

    def line(self, letter: str, *fields: str) -> None:
        """Keep one line for the next `flush`."""
        text = "\t".join((letter, *(field.translate(_ESCAPES) for field in fields)))
        self._lines.append(text.encode("utf-8", "backslashreplace"))

    def flush(self) -> None:
        """Send what has been kept."""
        if self._lines:
            self._send(b"\n".join(self._lines) + b"\n")
            self._lines.clear()

    def beat(self) -> None:
        """Send a sign of life at once. From any thread."""
        self._send(b"h\n")

    def _send(self, data: bytes) -> None:
        with self._lock:
            packed = self._zip.compress(data)
            self._write(packed + self._zip.flush(zlib.Z_SYNC_FLUSH))

    def case(self, name: str, view: str) -> None:
        """The case ``name`` is about to run, for its ``view``."""
        self.line("C", name, view)
        self.flush()

    def blob(self, letter: str, value: Any) -> None:
        """Keep one line that carries ``value``: bytes, or data for marshal."""
        data = value if isinstance(value, bytes) else marshal.dumps(value)
        self._lines.append(letter.encode() + b"\t" + data.replace(_ESC, _ESC + b"E").replace(b"\n", _ESC + b"N"))


class Decoder:
    """Turns bytes from the lab into (letter, fields). Raises ValueError for what no Encoder sends."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._zip = zlib.decompressobj()

    def feed(self, data: bytes) -> Iterable[tuple[str, list[Any]]]:
        """The lines that ``data`` completes."""
        try:
            text = self._zip.decompress(data, _LONGEST)
        except zlib.error as error:
            raise ValueError(str(error)) from error
        first, newline, text = text.partition(b"\n")
        self._rest += first
        if self._zip.unconsumed_tail or len(self._rest) > _LONGEST:
            raise ValueError(f"more than {_LONGEST >> 20} MB of a line, or of what is packed")
        if not newline:
            return
        lines = [bytes(self._rest), *text.split(b"\n")]
        self._rest = bytearray(lines.pop())
        for line in lines:
            yield _fields(line)


def _fields(line: bytes) -> tuple[str, list[Any]]:
    if line[:1] in (b"D", b"K", b"V", b"O", b"R"):
        data = line[2:].replace(_ESC + b"N", b"\n").replace(_ESC + b"E", _ESC)
        return line[:1].decode(), [data if line[:1] in (b"D", b"K") else marshal.loads(data)]
    letter, *fields = line.decode("utf-8", "replace").split("\t")
    return letter, [_unescape(field) for field in fields]
