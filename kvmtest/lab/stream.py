# SPDX-License-Identifier: GPL-2.0-only
"""How results leave the lab: lines of tab-separated fields, the first of which is one letter.

Most results differ from an earlier one only in the case they are of. So a record (all of a result but where it comes from) is
sent once, a case's results are the numbers of their records, and citations, which many records share, have numbers of their
own. All of it is one zlib stream, flushed with each case: two or three bytes a result, where a JSON line has five hundred.
`Encoder` runs inside and imports little.

| letter | fields |
|---|---|
| W | nothing: the program inside is up, and waits to be told what to do; a new stream begins then |
| B | kernel release: the program inside has started |
| M | module that is being loaded |
| H | kernel, backend, CPU vendor, CPU model, then the parameters, each name=value |
| N | number of cases |
| C | case that is about to run |
| T | one citation or more; numbered from 0 as they come |
| R | item, planted, expected, observed, verdict, reason, number of the citation, deviation; numbered from 0 as they come |
| D | a piece of a section's bytes; numbered from 0 as they come |
| V | what a layout, a plant or a snapshot holds; numbered from 0 as they come (marshal) |
| O | what one case observed, to be judged outside (marshal) |
| r | numbers of records, each a result of the running case |
| F | all fields of a result that does not have the running case's name and prefix, the citation as its number |
| c | seconds that the case took |
| h | a sign of life, from a thread beside the one that all others are from |
| L | line of the kernel's log |
| X | why nothing more will come |
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
_UNESCAPES = {"\\": "\\", "t": "\t", "n": "\n", "r": "\r", "0": ""}
_NONE = "\\0"
#: Begins the two escapes of a line of bytes.
_ESC = b"\x1b"


def _escape(text: str | None) -> str:
    return _NONE if text is None else text.translate(_ESCAPES)


def _unescape(field: str) -> str | None:
    if "\\" not in field:
        return field
    if field == _NONE:
        return None
    parts = iter(field)
    return "".join(_UNESCAPES.get(next(parts, ""), "?") if c == "\\" else c for c in parts)


class Encoder:
    """Turns what happens inside into lines for ``write``."""

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self._write = write
        self._records: dict[tuple[object, ...], str] = {}
        self._cites: dict[tuple[str, ...], str] = {}
        self._prefix = self._case = ""
        self._results: list[str] = []
        self._lines: list[bytes] = []
        self._zip = zlib.compressobj(1)
        self._lock = threading.Lock()

    def line(self, letter: str, *fields: str | None) -> None:
        """Keep one line for the next `flush`, behind the results until now."""
        self._results_line()
        self._define(letter, *fields)

    def _define(self, letter: str, *fields: str | None) -> None:
        self._lines.append("\t".join((letter, *map(_escape, fields))).encode("utf-8", "backslashreplace"))

    def _results_line(self) -> None:
        if self._results:
            self._lines.append(b"r\t" + " ".join(self._results).encode())
            self._results.clear()

    def flush(self) -> None:
        """Send what has been kept."""
        self._results_line()
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

    def case(self, name: str, prefix: str) -> None:
        """The case ``name`` is about to run; its result ids begin with ``prefix``."""
        self.line("C", name)
        self._case, self._prefix = name, prefix + "."
        self.flush()

    def result(self, result: tuple[object, ...]) -> None:
        """One `kvmtest.engine.result.Result` of the running case."""
        name, _, _, _, item, case, *key = result
        if case != self._case or name != self._prefix + str(item):
            self.line("F", *map(_text, result[:11]), self._cite(result[11]), _text(result[12]))
            return
        record = (item, *key)
        number = self._records.get(record)
        if number is None:
            cite = self._cite(result[11])
            number = self._records[record] = str(len(self._records))
            self._define("R", *map(_text, record[:6]), cite, _text(record[7]))
        self._results.append(number)

    def blob(self, letter: str, value: Any) -> None:
        """Keep one line that carries ``value``: bytes, or what marshal takes."""
        data = value if isinstance(value, bytes) else marshal.dumps(value)
        self._lines.append(letter.encode() + b"\t" + data.replace(_ESC, _ESC + b"E").replace(b"\n", _ESC + b"N"))

    def _cite(self, cite: object) -> str:
        assert isinstance(cite, tuple)
        number = self._cites.get(cite)
        if number is None:
            number = self._cites[cite] = str(len(self._cites))
            self._define("T", *cite)
        return number


def _text(value: object) -> str | None:
    return None if value is None else str(value)


class Decoder:
    """Turns bytes from the lab into (letter, fields), with ``R``, ``T``, ``r`` and ``F`` made ``result`` again.

    A result's fields are those of `kvmtest.engine.result.Result`, in its order. Raises ValueError for what no Encoder sends.
    """

    def __init__(self) -> None:
        self._rest = bytearray()
        self._zip = zlib.decompressobj()
        self._records: list[tuple[object, ...]] = []
        self._cites: list[tuple[str, ...]] = []
        self._case: list[str] = []

    def feed(self, data: bytes) -> Iterable[tuple[str, list[object]]]:
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
            yield from self._line(line)

    def _line(self, line: bytes) -> Iterable[tuple[str, list[object]]]:
        if line[:1] in (b"D", b"V", b"O"):
            data = line[2:].replace(_ESC + b"N", b"\n").replace(_ESC + b"E", _ESC)
            yield line[:1].decode(), [data if line[:1] == b"D" else marshal.loads(data)]
            return
        letter, *raw = line.decode("utf-8", "replace").split("\t")
        if letter == "r":
            yield from self._results(raw[0].split())
            return
        fields = [_unescape(field) for field in raw]
        if letter == "T":
            self._cites.append(tuple(str(field) for field in fields))
        elif letter == "R":
            if len(fields) != 8:
                raise ValueError(f"a record of {len(fields)} fields")
            self._records.append((*fields[:6], self._cites[int(fields[6] or "")], fields[7]))
        elif letter == "F":
            yield "result", [*fields[:11], self._cites[int(fields[11] or "")], fields[12]]
        else:
            if letter == "C":
                name = str(fields[0])
                prefix = name.partition("/")[0]
                self._case = [prefix, *prefix.split("."), name]
            yield letter, list(fields)

    def _results(self, numbers: list[str]) -> Iterable[tuple[str, list[object]]]:
        prefix, event, trigger, view, case = self._case
        for number in numbers:
            record = self._records[int(number)]
            yield "result", [f"{prefix}.{record[0]}", event, trigger, view, record[0], case, *record[1:]]
