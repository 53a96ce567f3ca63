# SPDX-License-Identifier: GPL-2.0-only
"""Guest code and data as arrays of bytes in C, with the code's disassembly beside it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache

from kvmtest import guests
from kvmtest.x86.objdump import listing

__all__ = ("array", "pieces", "progression", "repeated")

_ROW = 12
#: Characters of an instruction and its text that a line has room for.
_LINE = 80
#: The byte that fills an image between its code and the reset vector: HLT.
_FILLER = 0xF4
#: So many zeros or fillers in a row are no part of what is written.
_GAP = 16
_MACHINES = {"code16": "i8086", "code32": "i386", "code64": "i386:x86-64"}


def pieces(gpa: int, data: bytes) -> Iterator[tuple[int, bytes]]:
    """``data`` at ``gpa`` in pieces that can be left out one by one: of a guest's image from label to label, without what fills.

    Zeros are left out: guest memory begins as that.
    """
    marks = {0, len(data)}
    for name in guests.IMAGES:
        if len(data) >= guests.PAGE and data[: guests.PAGE] == guests.load(name)[: guests.PAGE]:
            marks |= {at for at in guests.labels(name).values() if at < len(data)}
    marks |= set(range(-gpa % guests.PAGE, len(data), guests.PAGE))
    cuts = sorted(marks)
    for start, end in zip(cuts, cuts[1:], strict=False):
        for low, high, table in _tables(data[start:end]):
            if table:
                yield gpa + start + low, data[start + low : start + high]
                continue
            for found in re.finditer(_PARTS, data[start + low : start + high]):
                if found[1]:
                    yield gpa + start + low + found.start(), found[1]


def _tables(data: bytes) -> Iterator[tuple[int, int, bool]]:
    """Split ``data`` into tables of evenly spaced 64-bit entries and the rest: begin, end, and whether it is a table."""
    words = [int.from_bytes(data[at : at + 8], "little") for at in range(0, len(data) & ~7, 8)]
    at = done = 0
    while at + 1 < len(words):
        step, end = words[at + 1] - words[at], at + 1
        while end < len(words) and words[end] - words[end - 1] == step:
            end += 1
        if step > 0 and end - at >= _GAP:
            if done < 8 * at:
                yield done, 8 * at, False
            yield 8 * at, 8 * end, True
            done = 8 * end
        at = max(at + 1, end - 1)
    if done < len(data):
        yield done, len(data), False


def progression(data: bytes) -> tuple[int, int, int] | None:
    """First word, distance to the next and number of the 64-bit words of ``data``, where all are as far apart: page tables."""
    if len(data) < 8 * _GAP or len(data) % 8:
        return None
    words = [int.from_bytes(data[at : at + 8], "little") for at in range(0, len(data), 8)]
    step = words[1] - words[0]
    apart = step > 0 and all(b - a == step for a, b in zip(words, words[1:], strict=False))
    return (words[0], step, len(words)) if apart else None


def repeated(data: bytes) -> int:
    """Return the size of the unit that ``data`` repeats, as in an IDT of equal gates; 0 if it does not."""
    sizes = (size for size in (8, 16) if len(data) >= _GAP * size and len(data) % size == 0)
    return next((size for size in sizes if data == data[:size] * (len(data) // size)), 0)


#: A whole gap, or the bytes up to one.
_PARTS = re.compile(rb"\x00{%d,}|\xf4{%d,}|((?:(?!\x00{%d}|\xf4{%d})[\x00-\xff])+)" % (4 * (_GAP,)), re.DOTALL)


def array(name: str, data: bytes) -> str:
    """The C array ``name`` that holds ``data``."""
    rows = list(_code(data)) or list(_rows(data))
    return f"static const __u8 {name}[] = {{\n" + "\n".join(f"\t{row}" for row in rows) + "\n};\n"


def _rows(data: bytes) -> Iterator[str]:
    for at in range(0, len(data), _ROW):
        yield ", ".join(f"{byte:#04x}" for byte in data[at : at + _ROW]) + ","


def _code(data: bytes) -> Iterator[str]:
    """An instruction a line, where ``data`` is code of a guest and there is a disassembler."""
    found = _place(data)
    if not found:
        return
    name, start = found
    labels = guests.labels(name)
    modes = {at: label.partition("_")[0] for label, at in labels.items() if re.fullmatch(r"code(16|32|64)_\d+", label)}
    named = {at: label for label, at in labels.items() if at not in modes or not re.fullmatch(r"code\d\d_\d+", label)}
    cuts = sorted({start, start + len(data), *(at for at in modes if start < at < start + len(data))})
    for low, high in zip(cuts, cuts[1:], strict=False):
        mode = modes[max(at for at in modes if at <= low)]
        code = data[low - start : high - start]
        # Data, or code without a disassembler: byte by byte.
        for at, size, text in _disassembled(code, _MACHINES[mode]) or ((0, len(code), "data"),):
            if low + at in named:
                yield f"/* {named[low + at]}: */"
            raw = data[low - start + at : low - start + at + size]
            row, comment = ", ".join(f"{byte:#04x}" for byte in raw) + ",", f"/* {text} */"
            if size > _ROW + 3:
                yield from _rows(raw)
            elif len(row) + len(comment) > _LINE:
                yield comment
                yield row
            else:
                yield f"{row}\t{comment}"


def _place(data: bytes) -> tuple[str, int] | None:
    """The guest whose code ``data`` is, and where in its image it begins: at a label."""
    for name in guests.IMAGES:
        image, at = guests.load(name), -1
        while (at := image.find(data, at + 1)) >= 0:
            if at in guests.labels(name).values():
                return name, at
    return None


@cache
def _disassembled(code: bytes, machine: str) -> tuple[tuple[int, int, str], ...]:
    """Offset, size and text of each instruction, by objdump; none where that is not there."""
    found = []
    for line in listing(code, machine, "-z", "--insn-width=16", timeout_s=10):
        fields = line.split("\t")
        if len(fields) > 2 and re.fullmatch(r"\s*[0-9a-f]+:", fields[0]):
            text = " ".join(fields[2].split()).replace("*/", "* /")
            found.append((int(fields[0].strip(" :"), 16), len(fields[1].split()), text))
    return tuple(found) if sum(size for _, size, _ in found) == len(code) else ()
