# SPDX-License-Identifier: GPL-2.0-only
"""A parser of KTAP version 1 that takes no line which Documentation/dev-tools/ktap.rst does not define."""

from __future__ import annotations

import re
from typing import NamedTuple

_RESULT = re.compile(r"(ok|not ok) (\d+) ([^#\s][^#]*?)(?: # (SKIP|TODO|XFAIL|XPASS|TIMEOUT|ERROR)(?: (.*))?)?")
_PLAN = re.compile(r"1\.\.(\d+)")


class KtapError(ValueError):
    """The text is not KTAP, with the number of the line."""


class Node(NamedTuple):
    """A test: the remarks before its result belong to it."""

    name: str
    ok: bool
    directive: str
    reason: str
    remarks: list[str]
    children: list[Node]

    def leaves(self, path: str = "") -> dict[str, Node]:
        """The tests without children, by their names joined with dots."""
        full = f"{path}.{self.name}" if path else self.name
        if not self.children:
            return {full: self}
        return {name: leaf for child in self.children for name, leaf in child.leaves(full).items()}


def parse(text: str) -> list[Node]:
    """The tests at the top. Raises KtapError."""
    if not text.endswith("\n"):
        raise KtapError("the last line does not end")
    lines = text[:-1].split("\n")
    nodes, end = _level(lines, 0, 0)
    if end != len(lines):
        raise KtapError(f"{end + 1}: after the end: {lines[end]!r}")
    return nodes


def _level(lines: list[str], at: int, depth: int) -> tuple[list[Node], int]:
    indent = "  " * depth

    def line(number: int) -> str:
        if number >= len(lines) or not lines[number].startswith(indent):
            raise KtapError(f"{number + 1}: a level ends early")
        found = lines[number].removeprefix(indent)
        if not found.isprintable():
            raise KtapError(f"{number + 1}: does not print")
        return found

    if line(at) != "KTAP version 1":
        raise KtapError(f"{at + 1}: no version")
    plan = _PLAN.fullmatch(line(at + 1))
    if not plan:
        raise KtapError(f"{at + 2}: no plan")
    at += 2
    nodes: list[Node] = []
    while len(nodes) < int(plan[1]):
        remarks = []
        children: list[Node] = []
        nested = False
        while True:
            found = line(at)
            if found.startswith("# "):
                remarks.append(found[2:])
                at += 1
            elif found == "  KTAP version 1" and not nested:
                children, at = _level(lines, at, depth + 1)
                nested = True
            else:
                break
        result = _RESULT.fullmatch(found)
        if not result:
            raise KtapError(f"{at + 1}: neither result nor remark: {found!r}")
        node = Node(result[3], result[1] == "ok", result[4] or "", result[5] or "", remarks, children)
        if int(result[2]) != len(nodes) + 1:
            raise KtapError(f"{at + 1}: number {result[2]}, not {len(nodes) + 1}")
        if nested and node.ok != all(child.ok for child in children):
            raise KtapError(f"{at + 1}: {node.name} does not say what its tests do")
        nodes.append(node)
        at += 1
    while at < len(lines) and lines[at].startswith(f"{indent}# "):
        at += 1
    return nodes, at
