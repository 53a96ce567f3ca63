# SPDX-License-Identifier: GPL-2.0-only
"""Snapshots and what differs between two as text, lines of it, and as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from kvmtest.compare import states
from kvmtest.compare.snapshot import Item, State
from kvmtest.model.host import Host
from kvmtest.model.value import parse
from kvmtest.report.show import columns, named, printable, wrapped
from kvmtest.results.lines import host_fields
from kvmtest.x86 import bits

__all__ = ("SCHEMA", "Head", "head", "items", "items_json", "state")

SCHEMA = "kvmtest.diff/1"
#: The column of values in a snapshot: a 64-bit one fits.
_VALUE = 24
#: Differences in the origin of the two, or in how they were made: name, and both values.
Head = list[tuple[str, str, str]]


def _fill(first: str, text: str, hang: int) -> str:
    return wrapped(printable(text), columns(), first, " " * hang)


def differing(item: str, a: str | None, b: str | None) -> str:
    """The bits by name in which two values differ; "" where they have no names."""
    first, second = parse(item, a), parse(item, b)
    if not isinstance(first, int) or not isinstance(second, int) or item not in bits.BITS or first == second:
        return ""
    return bits.difference(item, first, second)


def state(taken: State) -> Iterator[str]:
    """The lines of a snapshot for people: a register a line, and what could not be read by reason."""
    host = taken.host
    yield printable(f"case     {taken.made['case']}   {taken.taken}")
    yield printable(f"kernel   {host.kernel}   backend {host.backend}   CPU {host.cpu_vendor}, {host.cpu_model}")
    yield ""
    read = {name: item for name, item in taken.items.items() if item.value is not None}
    width = max((len(name) for name in read), default=0)
    for name, item in read.items():
        before = f"  was {named(name, item.planted)}" if item.planted not in (None, item.value) else ""
        yield f"{name:{width}}  {named(name, item.value):{_VALUE if before else 0}}{before}"
    reasons: dict[str, list[str]] = {}
    for name, item in taken.items.items():
        if item.value is None:
            reasons.setdefault(item.unreadable, []).append(name)
    if reasons:
        yield ""
        yield "Not readable, by reason:"
        for reason, names in reasons.items():
            yield _fill("  ", f"{reason}: {' '.join(names)}", 6)


def head(a: str, b: str, differs: Head) -> Iterator[str]:
    """Yield the names of what is compared, and the differences between their origins."""
    if differs:
        yield f"--- {printable(a)}"
        yield f"+++ {printable(b)}"
        for name, here, there in differs:
            yield _fill("  ", f"{name}: {here or '(empty)'} -> {there or '(empty)'}", 6)
        yield ""


def items(changes: Iterable[states.Change]) -> Iterator[str]:
    """The lines of what differs between two snapshots, register bits by name."""
    for change in changes:
        yield change.name
        yield from _pair("value", change.name, change.a.value, change.b.value)
        yield from _pair("planted", change.name, change.a.planted, change.b.planted)
        for sign, item in (("-", change.a), ("+", change.b)):
            if item.value is None:
                yield _fill(f"  {sign} ", item.unreadable, 10)


def _pair(what: str, item: str, a: str | None, b: str | None) -> Iterator[str]:
    """Both values, where they differ."""
    if a == b:
        return
    yield f"  - {what:8}  {named(item, a)}"
    yield f"  + {what:8}  {named(item, b)}"
    if names := differing(item, a, b):
        yield f"    {'differs':8}  {names}"


def _side(name: str, host: Host) -> dict[str, Any]:
    return {"file": name, "host": host_fields(host)}


def items_json(a: State, b: State, differs: Head, changes: list[states.Change]) -> dict[str, Any]:
    """The document of two snapshots' difference."""
    found = [{"item": c.name, "a": _item(c.a), "b": _item(c.b), "bits": differing(c.name, c.a.value, c.b.value)} for c in changes]
    header = [{"name": name, "a": here, "b": there} for name, here, there in differs]
    sides = {"a": _side(a.name, a.host), "b": _side(b.name, b.host)}
    return {"schema": SCHEMA, "kind": "snapshot"} | sides | {"header": header, "changes": found}


def _item(item: Item) -> dict[str, str | None]:
    return {"value": item.value, "planted": item.planted, "unreadable": item.unreadable}
