# SPDX-License-Identifier: GPL-2.0-only
"""Texts, values and repeat commands as reports show them, and the width of the output."""

from __future__ import annotations

import os
import re
import shlex
import sys
import textwrap
from typing import TextIO

from kvmtest.model.host import OBSERVER, Host
from kvmtest.model.record import Record
from kvmtest.model.run import Head
from kvmtest.model.value import parse
from kvmtest.x86 import bits

__all__ = ("columns", "count", "difference", "head_lines", "inline", "lines", "named", "printable", "repeat", "short", "wrapped")

#: Columns of what is not written to a terminal, and the fewest that anything is written for.
_COLUMNS, _FEWEST = 100, 40
_PARTS = re.compile("(?<=[,|])")

#: Longer hex strings are cut in the middle: registers up to 128 bits are shown whole.
_LONGEST = 34


def columns(out: TextIO | None = None) -> int:
    """Return the width of ``out``, by default standard output: that of the terminal, or 100 if it is not a terminal."""
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
    r"""``text`` in one line without control sequences: characters that do not print are written as ``\x1b``.

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
    names = _names(item, value)
    return f"{short(value)}  {names}" if names else short(value)


def inline(item: str, value: str | None) -> str:
    """The same within a sentence: the names in parentheses."""
    names = _names(item, value)
    return f"{short(value)} ({names})" if names else short(value)


def _names(item: str, value: str | None) -> str:
    number = parse(item, value)
    names = bits.describe(item, number) if isinstance(number, int) else ""
    return names if names != value else ""


def difference(record: Record) -> str:
    """The names of the differing bits that were judged, where they are more than the plain numbers say."""
    differing = record.differing
    if not differing or record.expected is None:
        return ""
    (value,) = record.expected.values
    assert isinstance(value, int)
    found = bits.difference(record.item, value, value ^ differing)
    whole = record.expected.mask is None
    return "" if whole and found == f"{differing:#x}" else found


def repeat(host: Host, selector: str) -> str:
    """The command that repeats alone what ``selector`` names, on such a host."""
    if host.lab and host.lab["kernel_source"] == OBSERVER:
        return f"kvmtest vmm or observer judge, where it is {printable(selector)}"
    if ".external." in selector:
        return f"kvmtest judge, where it is {printable(selector)}"
    if not host.lab:
        return f"kvmtest run {shlex.quote(printable(selector))}"
    source, _, own = str(host.lab["kernel_source"]).partition(", modules of ")
    which = "host" if source == "this host" else source if source.startswith("/") else host.kernel
    modules = ["--kvm-modules", own] if own else []
    options = shlex.split(str(host.lab.get("options", "")))
    words = ["lab", "run", "--backend", host.backend, "--kernel", which, *modules, *options, selector]
    return " ".join(["kvmtest", *(shlex.quote(printable(word)) for word in words)])


def count(number: int, what: str) -> str:
    """``number`` of ``what``, in the plural where it is not one."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def head_lines(head: Head) -> list[tuple[str, str]]:
    """The head of a report: label and text; the title has no label."""
    host = head.host
    facts = [head.tool.version, head.started, f"backend {host.backend}, {host.cpu_vendor}"]
    facts += [f"host {host.name}"] * bool(host.name) + [f"shard {head.shard}"] * (head.shard is not None)
    found = [("", host.title), ("kvmtest", "   ".join(facts))]
    if host.lab:
        found += [("CPU", f"{host.cpu_model}, model {host.lab['cpu']}"), ("kernel", str(host.lab["kernel_source"]))]
    # kvm.ko's own parameters are many and say little here: --format json has them.
    if shown := " ".join(f"{k}={v}" for k, v in host.parameters.items() if v and not k.startswith("kvm.")):
        found.append(("module", shown))
    return [(label, printable(text)) for label, text in found]
