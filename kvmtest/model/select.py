# SPDX-License-Identifier: GPL-2.0-only
"""Selectors: which results a command is about.

| selector | matches |
|---|---|
| ``init.msi.host.cr3`` | a glob over ids; the beginning of one up to a dot matches all below it |
| ``init.msi/ap,intel,xapic`` | a glob over the names of cases |
| ``init.msi.host.cr3/ap,intel,xapic`` | both: a glob over ids, and one over the words of a case's name |
| ``cr3``, ``msr.*`` | a bare item, after every event |

``{a,b}`` stands for either. Whatever is printed as an id or a case is a selector.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from fnmatch import translate
from functools import lru_cache
from typing import NamedTuple

from kvmtest.model.record import EVENTS, Block, Observation

__all__ = ("Selection", "Selector", "SelectorError", "braces", "near", "parse", "takes")


#: Alternatives of one selector.
_MOST = 1000
#: Characters of one of them.
_LONGEST = 1000


class SelectorError(ValueError):
    """A selector that matches nothing, or is invalid; one line, which suggests similar ones."""


def braces(pattern: str) -> list[str]:
    """``pattern`` once for each alternative of its ``{a,b}``, which may be nested. Raises SelectorError."""
    start = pattern.find("{")
    if start < 0:
        if "}" in pattern:
            raise SelectorError(f"{pattern!r} has a }} without {{")
        return [pattern]
    depth, parts, begin = 0, list[str](), start + 1
    for at in range(start, len(pattern)):
        c = pattern[at]
        depth += (c == "{") - (c == "}")
        if depth == 1 and c == "," or not depth:
            parts.append(pattern[begin:at])
            begin = at + 1
        if not depth:
            found = [one for part in parts for one in braces(pattern[:start] + part + pattern[at + 1 :])]
            if len(found) > _MOST:
                raise SelectorError(f"{pattern[:60]!r} stands for more than {_MOST} selectors")
            return found
    raise SelectorError(f"{pattern!r} has a {{ without }}")


@lru_cache(maxsize=4096)
def _glob(pattern: str) -> re.Pattern[str]:
    return re.compile(translate(pattern))


class Selector(NamedTuple):
    """One alternative of a selector: globs over ids, over ``<event>.<trigger>`` of a case, and over a case's words."""

    id: str = "*"
    case: str = ""
    words: str = ""

    def id_matches(self, result_id: str) -> bool:
        """Return True if the glob over ids matches ``result_id``, or a prefix of it."""
        return _glob(self.id).match(result_id) is not None or _glob(f"{self.id}.*").match(result_id) is not None

    def may_match(self, prefix: str) -> bool:
        """Something that begins with ``prefix`` may match: cheap, and never wrong where it says no."""
        begin = re.split(r"[*?[]", self.id, maxsplit=1)[0]
        return begin.startswith(prefix) or prefix.startswith(begin)

    def case_matches(self, name: str) -> bool:
        """Return True if the globs over cases match the case ``name``."""
        if not self.case and not self.words:
            return True
        prefix, _, words = name.partition("/")
        if self.case and not _glob(self.case).match(prefix):
            return False
        return _glob(self.words).match(words) is not None


def _one(pattern: str) -> Selector:
    if len(pattern) > _LONGEST:
        raise SelectorError(f"{pattern[:60]!r}... is longer than {_LONGEST} characters, and no id or case is")
    above, slash, words = pattern.partition("/")
    if not slash:
        # An item has no event before it.
        first = _glob(above.split(".", 1)[0])
        return Selector(above if any(first.match(event) for event in EVENTS) else f"*.*.*.{above}")
    return Selector(case=above, words=words) if above.count(".") < 2 else Selector(id=above, words=words)


@lru_cache(maxsize=8192)
def parse(selector: str) -> tuple[Selector, ...]:
    """The alternatives of ``selector``. Raises SelectorError."""
    return tuple(_one(pattern) for pattern in dict.fromkeys(braces(selector)))


def takes(selectors: Iterable[str], result_id: str, case: str = "") -> bool:
    """Return True if one of ``selectors`` matches the result of that id in the case of that name; without any, always."""
    selectors = tuple(selectors)
    return not selectors or any(s.id_matches(result_id) and s.case_matches(case) for one in selectors for s in parse(one))


class Selection:
    """The results that ``selectors`` match; without any, all results. Raises SelectorError."""

    def __init__(self, selectors: Iterable[str] = ()) -> None:
        self._all = [one for selector in selectors for one in parse(selector)]
        self._every = not self._all
        self._kept: dict[tuple[object, ...], Block] = {}

    def takes_id(self, result_id: str) -> bool:
        """Return True if the result of that id matches in any case."""
        return self._every or any(one.id_matches(result_id) for one in self._all)

    def of(self, seen: Observation) -> Observation | None:
        """Return ``seen`` with the records that match; None if there are none."""
        if self._every:
            return seen
        name = seen.case.name if seen.case else ""
        here = tuple(one for one in self._all if one.case_matches(name) and one.may_match(f"{seen.prefix}."))
        blocks = tuple(found for block in seen.blocks if (found := self._of_block(seen.prefix, block, here)).records)
        return seen._replace(blocks=blocks) if blocks else None

    def all_of(self, seen: Iterable[Observation], seconds: float | None = None) -> list[Observation]:
        """Return the observations of one case that match; the last has the ``seconds`` that the case took."""
        found = [taken for one in seen if (taken := self.of(one))]
        if found and seconds is not None:
            found[-1] = found[-1]._replace(seconds=seconds)
        return found

    def _of_block(self, prefix: str, block: Block, here: tuple[Selector, ...]) -> Block:
        key = (prefix, block, here)
        found = self._kept.get(key)
        if found is None:
            taken = [r for r in block.records if any(one.id_matches(f"{prefix}.{r.item}") for one in here)]
            found = self._kept[key] = block if len(taken) == len(block.records) else Block(tuple(taken))
        return found


def near(selector: str, known: Iterable[str]) -> Iterator[str]:
    """At most three of the ``known`` ids, items and cases that ``selector`` may have meant."""
    words: dict[str, None] = {}
    for name in known:
        if "/" in name:
            words[name] = None
            continue
        parts = name.split(".", 3)
        words.update(dict.fromkeys(".".join(parts[:n]) for n in range(1, 5)))
        words.update(dict.fromkeys(parts[3:]))
    lower = {word.lower(): word for word in words}
    plain = re.sub(r"[*?\[\]{}]", "", selector).lower().strip(".")
    yield from (lower[found] for found in difflib.get_close_matches(plain, lower, 3, 0.6))
