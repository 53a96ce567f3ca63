# SPDX-License-Identifier: GPL-2.0-only
"""How reports show a text, a value and the command that repeats a result, and in how many columns."""

from __future__ import annotations

import os
import re
import shlex
import sys
import textwrap
from typing import TextIO

from kvmtest.engine.result import Host
from kvmtest.x86 import bits

__all__ = ("columns", "difference", "lines", "named", "number", "printable", "repeat", "short", "wrapped")

#: Columns of what is not written to a terminal, and the fewest that anything is written for.
_COLUMNS, _FEWEST = 100, 40
_PARTS = re.compile("(?<=[,|])")

#: Longer hex strings are cut in the middle: registers up to 128 bits are shown whole.
_LONGEST = 34
_HEX = re.compile("0x[0-9a-f]+")


def columns(out: TextIO | None = None) -> int:
    """How many columns ``out`` has, by default standard output: those of the terminal that it is, 100 where it is none."""
    out = out or sys.stdout
    try:
        return max(os.get_terminal_size(out.fileno()).columns or _COLUMNS, _FEWEST) if out.isatty() else _COLUMNS
    except OSError:  # a terminal that has no size
        return _COLUMNS


class _Wrapper(textwrap.TextWrapper):
    """Breaks lines at spaces, and a list that has none and fits in no line after its commas and bars."""

    def _split(self, text: str) -> list[str]:
        room = self.width - len(self.subsequent_indent)
        words = super()._split(text)
        return [part for word in words for part in (_PARTS.split(word) if len(word) > room else [word]) if part]


def wrapped(text: str, width: int, first: str, hang: str) -> str:
    """``text`` in lines of ``width`` at most, a longer word alone; ``first`` begins the first line, ``hang`` the others."""
    how = _Wrapper(width, first, hang, break_on_hyphens=False, break_long_words=False)
    return how.fill(text)


def printable(text: str) -> str:
    r"""``text`` in one line that no terminal and no parser takes for a command: what does not print is written as ``\x1b``.

    That is what ``str.isprintable`` says: control characters, line ends, lone surrogates, marks that change the direction.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else " " if c == "\t" else c.encode("unicode_escape").decode() for c in text)


def lines(text: str) -> list[str]:
    """The lines of ``text``, each of them printable: a kernel's log has many."""
    return [printable(line) for line in text.split("\n")]


def short(value: str | None) -> str:
    """A value that fits in a line: a long hex string keeps its ends and says its size in bytes."""
    if value is None:
        return "-"
    if len(value) <= _LONGEST or not value.startswith("0x"):
        return printable(value)
    return printable(f"{value[:14]}..{value[-10:]} ({(len(value) - 1) // 2} bytes)")


def named(item: str, value: str | None) -> str:
    """A value that fits in a line, with the names of its bits where ``item`` has them."""
    read = number(value)
    names = bits.describe(item, read) if read is not None else ""
    return f"{short(value)}  {names}" if names and names != value else short(value)


def difference(item: str, expected: str | None, observed: str | None) -> str:
    """The names of the differing bits, where they are more than the plain numbers say."""
    a, b = number(expected), number(observed)
    if a is None or b is None:
        return ""
    found = bits.difference(item, a, b)
    return "" if found == f"{a ^ b:#x}" else found


def repeat(host: Host, selector: str) -> str:
    """The command that repeats alone what ``selector`` names, on such a host."""
    if not host.lab:
        return f"kvmtest run {shlex.quote(printable(selector))}"
    source, _, own = str(host.lab["kernel_source"]).partition(", modules of ")
    which = "host" if source == "this host" else source if source.startswith("/") else host.kernel
    modules = ["--kvm-modules", own] if own else []
    words = ["lab", "run", "--backend", host.backend, "--kernel", which, *modules, selector]
    return " ".join(["kvmtest", *(shlex.quote(printable(word)) for word in words)])


def number(value: str | None) -> int | None:
    """The number that a value is, None where it is another text: several numbers, one with words behind it."""
    return int(value, 16) if value is not None and _HEX.fullmatch(value) else None
