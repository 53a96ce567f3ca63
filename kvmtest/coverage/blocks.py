# SPDX-License-Identifier: GPL-2.0-only
"""The blocks of code of a module: each begins with a call of the recorder, by which it is known.

They are read from a disassembly with source lines (``objdump -drwl --inlines``) of a module with debug information. A block's
lines are those of the instructions that follow its call up to the next one. After a conditional jump it may be the next block
that has begun, some instructions before its call: a line that stands there counts as this block's only if no other has it.
"""

from __future__ import annotations

import posixpath
import re
from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

__all__ = ("CALL", "Block", "Line", "blocks")

#: The function that the compiler inserts calls of, and such a call: objtool removes those in noinstr code.
CALL = "__sanitizer_cov_trace_pc"
_CALL = re.compile(rf"\bR_X86_64_(?:PLT32|PC32)\t{CALL}\b")
#: File and number.
Line = tuple[str, int]

_SECTION = re.compile(r"Disassembly of section (\S+):")
_SYMBOL = re.compile(r"[0-9a-f]+ <(\S+)>:")
_FUNCTION = re.compile(r"(\S+)\(\):")
_INSTRUCTION = re.compile(r" *([0-9a-f]+):\t(\S*)(.*)")
_INLINED = re.compile(r"inlined by (.+):(\d+|\?)(?: \(discriminator \d+\))? \((\S+)\)")
_PLACE = re.compile(r"(.+):(\d+|\?)(?: \(discriminator \d+\))?")
#: The length of a call instruction: the recorder notes the return address.
_CALL_LENGTH = 5
#: The folders of a kernel's tree that KVM is made of.
_TREE = re.compile(r"/((?:arch/x86|include|virt)/.+)")
_ENDS = re.compile(r"jmp|ret|ud2|int3|iret")


class Block(NamedTuple):
    """A block of ``module``. ``offset`` in ``section`` is where its call returns to. ``function`` is the one whose source it is
    of, and ``inside`` the one that this was inlined into, or the same.
    """

    module: str
    section: str
    offset: int
    function: str
    inside: str
    file: str
    line: int
    lines: tuple[Line, ...]

    @property
    def key(self) -> tuple[str, str, int]:
        """Names it in one build of the modules."""
        return self.module, self.section, self.offset


class _Found:
    """A block while its lines are gathered: those that are its own, and those that may be the next one's."""

    def __init__(self, head: tuple[str, int, str, str, Line]) -> None:
        self.head = head
        self.own: dict[Line, None] = {head[-1]: None}
        self.perhaps: dict[Line, None] = {}


class _Reader:
    """Reads the disassembly line by line."""

    def __init__(self) -> None:
        self.found: list[_Found] = []
        self._section = self._function = ""
        self._place: Line | None = None
        self._stack: list[Line] = []
        self._inside = ""
        #: The block that the next lines belong to; None after an unconditional jump.
        self._to: dict[Line, None] | None = None
        #: The instructions of a function before its first call.
        self._entry: dict[Line, None] = {}

    def read(self, text: str) -> None:
        if found := _INSTRUCTION.match(text):
            self._instruction(int(found[1], 16), found[2], found[3])
            self._stack, self._inside = [], ""
        elif found := _INLINED.fullmatch(text):
            if found[2].isdecimal():
                self._stack.append((found[1], int(found[2])))
            self._inside = found[3]
        elif found := _FUNCTION.fullmatch(text):
            self._function = found[1]
        elif found := _SYMBOL.fullmatch(text):
            self._entry = {}
            # A part that is placed apart from its function can be entered anywhere.
            self._to = None if found[1].endswith(".cold") else self._entry
        elif found := _SECTION.fullmatch(text):
            self._section = found[1]
        elif found := _PLACE.fullmatch(text):
            self._place = (found[1], int(found[2])) if found[2].isdecimal() else None

    def _instruction(self, at: int, name: str, rest: str) -> None:
        here = self._place
        # A jump to the recorder returns to the function's caller: it would never be known to have run.
        if here and name.startswith("call") and _CALL.search(rest):
            inside = self._inside or self._function
            block = _Found((self._section, at + _CALL_LENGTH, self._function, inside, here))
            self.found.append(block)
            if self._to is self._entry:
                block.own |= self._entry
            self._to = block.own
        if self._to is not None and here:
            self._to.update(dict.fromkeys([here, *self._stack]))
        if _ENDS.match(name):
            self._to = None
        elif name.startswith(("j", "loop")) and self._to is not None:
            self._to = self.found[-1].perhaps if self.found and self._to is not self._entry else None


def blocks(module: str, disassembly: Iterable[str], roots: Iterable[str] = ()) -> list[Block]:
    """The blocks of ``module``. Files are named as in the kernel's tree; ``roots`` are copies or parts of it."""
    reader = _Reader()
    for text in disassembly:
        reader.read(text.rstrip("\n"))
    owned = {line for found in reader.found for line in found.own}
    short = _Names(roots)
    return [_block(module, found, owned, short) for found in reader.found]


def _block(module: str, found: _Found, owned: set[Line], short: _Names) -> Block:
    section, offset, function, inside, (file, line) = found.head
    lines = [*found.own, *(line for line in found.perhaps if line not in owned)]
    places = sorted({(short[name], number) for name, number in lines})
    return Block(module, section, offset, function, inside, short[file], line, tuple(places))


class _Names(defaultdict[str, str]):
    """The names of files in the kernel's tree by those that the compiler was given; without a root it is a guess."""

    def __init__(self, roots: Iterable[str]) -> None:
        super().__init__()
        self._roots = tuple(root.rstrip("/") + "/" for root in roots)

    def __missing__(self, path: str) -> str:
        name = posixpath.normpath(path)
        for root in self._roots:
            name = name.removeprefix(root)
        if name.startswith("/") and (found := _TREE.search(name)):
            name = found[1]
        self[path] = name
        return name
