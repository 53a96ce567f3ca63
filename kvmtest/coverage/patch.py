# SPDX-License-Identifier: GPL-2.0-only
"""The lines of a source that a patch is about: those that it made, where the source has it, else those that it would change."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from kvmtest.coverage.source import Sources

__all__ = ("Hunk", "Patched", "hunks", "patched")

#: No file has more lines than nine digits count.
_HEAD = re.compile(r"@@ -(\d{1,9})(?:,(\d{1,9}))? \+(\d{1,9})(?:,(\d{1,9}))? @@.*")
_NONE = "/dev/null"


class Hunk(NamedTuple):
    """A hunk: its file's names before and after, the numbers of its first lines there, and its lines, each with its sign."""

    before: str
    after: str
    old: int
    new: int
    lines: tuple[str, ...]

    def side(self, signs: str) -> list[tuple[str, str]]:
        """Sign and text of the lines that have one of ``signs``."""
        return [(line[0], line[1:]) for line in self.lines if line[0] in signs]


class Patched(NamedTuple):
    """A ``hunk`` in a source: the ``file``, and numbers of the ``lines`` it is about. ``made`` is whether the source has it."""

    hunk: Hunk
    file: str
    lines: tuple[int, ...]
    made: bool


def _name(text: str) -> str:
    """The file of a line that begins with --- or +++."""
    name = text[4:].split("\t")[0].strip()
    return name if name == _NONE or name[:2] not in ("a/", "b/") else name[2:]


def hunks(text: str) -> Iterator[Hunk]:
    """The hunks of a unified diff; what else is in ``text``, a mail or a commit's message, is left out."""
    lines = iter(text.splitlines())
    before = after = ""
    for line in lines:
        if line.startswith("--- "):
            before = _name(line)
        elif line.startswith("+++ ") and before:
            after = _name(line)
        elif (head := _HEAD.fullmatch(line)) and after:
            old, new = int(head[2] or 1), int(head[4] or 1)
            found = []
            while old > 0 or new > 0:
                line = next(lines, "\\") or " "
                if line[0] not in " +-":
                    if line.startswith("\\ "):
                        continue
                    break
                old -= line[0] in " -"
                new -= line[0] in " +"
                found.append(line)
            yield Hunk(before, after, int(head[1]), int(head[3]), tuple(found))


def _places(lines: Sequence[str], wanted: Sequence[str], likely: int) -> Iterator[int]:
    """Find ``wanted`` in ``lines``, the position nearest to ``likely`` first; counted from 0."""
    number = len(wanted)
    starts = [at for at in range(len(lines) - number + 1) if lines[at] == wanted[0] and list(lines[at : at + number]) == wanted]
    yield from sorted(starts, key=lambda at: abs(at - likely))


def _about(side: Iterable[tuple[str, str]], sign: str, hunk: Hunk) -> list[int]:
    """Return the lines of a side, from 0 on, that a hunk changes: those with the ``sign``; without any, those next to it."""
    signs = [one for one, _ in side]
    if own := [number for number, one in enumerate(signs) if one == sign]:
        return own
    found: set[int] = set()
    at = 0
    for line in hunk.lines:
        if line[0] == " ":
            at += 1
        else:
            found.update(number for number in (at - 1, at) if 0 <= number < len(signs))
    return sorted(found)


def patched(found: Iterable[Hunk], sources: Sources) -> tuple[list[Patched], list[Hunk]]:
    """The hunks of files that are among ``sources``, and those of them that do not fit.

    A source is one that has the patch, or one before it: whichever lets more hunks fit.
    """
    ours = [hunk for hunk in found if any(sources.lines(name) for name in (hunk.before, hunk.after))]
    before, after = ([(hunk, _fitted(hunk, sources, made)) for hunk in ours] for made in (False, True))
    best = max(before, after, key=lambda pairs: sum(fit is not None for _, fit in pairs))
    return [fit for _, fit in best if fit], [hunk for hunk, fit in best if not fit]


def _fitted(hunk: Hunk, sources: Sources, made: bool) -> Patched | None:
    file, signs, likely = (hunk.after, " +", hunk.new) if made else (hunk.before, " -", hunk.old)
    side = hunk.side(signs)
    if file == _NONE or not side:
        return None
    for at in _places(sources.lines(file), [text for _, text in side], likely - 1):
        return Patched(hunk, file, tuple(at + number + 1 for number in _about(side, signs[1], hunk)), made)
    return None
