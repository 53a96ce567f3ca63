# SPDX-License-Identifier: GPL-2.0-only
"""Snapshots and differences as text, lines of it, and as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from kvmtest.compare import states
from kvmtest.compare.groups import Block, blocks
from kvmtest.compare.results import Difference
from kvmtest.compare.snapshot import Item, State
from kvmtest.engine.result import Host, Result
from kvmtest.report.show import columns, named, number, wrapped
from kvmtest.x86 import bits

__all__ = ("Head", "block", "head", "items", "items_json", "results", "results_json", "state")

SCHEMA = "kvmtest.diff/1"
#: How many cases and sets of values a block names before it only counts them.
_CASES, _VALUES = 3, 3
#: The column of values in a snapshot: a 64-bit one fits.
_VALUE = 24
#: What differs in where the two come from or how they were made: name, and what each says.
Head = list[tuple[str, str, str]]


def _fill(first: str, text: str, hang: int) -> str:
    return wrapped(text, columns(), first, " " * hang)


def differing(item: str, a: str | None, b: str | None) -> str:
    """The bits by name in which two values differ; "" where they have no names."""
    first, second = number(a), number(b)
    if first is None or second is None or item not in bits.BITS or first == second:
        return ""
    return bits.difference(item, first, second)


def state(taken: State) -> Iterator[str]:
    """The lines of a snapshot for people: a register a line, and what could not be read by reason."""
    yield f"case     {taken.made['case']}   {taken.taken}"
    yield f"kernel   {taken.host.kernel}   backend {taken.host.backend}   CPU {taken.host.cpu_vendor}, {taken.host.cpu_model}"
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
    """What is compared, and where it differs in where it comes from."""
    if differs:
        yield f"--- {a}"
        yield f"+++ {b}"
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


def block(found: Block) -> Iterator[str]:
    """The lines of one block of changed results."""
    a, b = found.verdicts
    yield _fill(f"{a} -> {b}  " if a != b else f"{a}  ", found.name, 6)
    first = found.first.either
    if len(found.items) > 1:
        shown = " ".join(list(found.items)[:8])
        more = f" and {len(found.items) - 8} more" if len(found.items) > 8 else ""
        yield _fill("      items     ", shown + more, 16)
    else:
        for values in list(found.values)[:_VALUES]:
            for name, here, there in zip(("planted", "expected", "observed"), values.a, values.b, strict=True):
                yield from _values(name, first.item, here, there)
        if len(found.values) > _VALUES:
            yield f"      and {len(found.values) - _VALUES} more sets of values; --format json has them all"
    if found.reason:
        for number, line in enumerate(found.reason.split("\n")):  # a kernel's log has many
            yield _fill(f"      {'' if number else 'because':9} ", line, 16)
    more = f" and {len(found.cases) - _CASES} more" if len(found.cases) > _CASES else ""
    yield _fill("      cases     ", "  ".join(list(found.cases)[:_CASES]) + more, 16)
    yield ""


def _values(name: str, item: str, a: str | None, b: str | None) -> Iterator[str]:
    if a is b is None:
        return
    if a == b:
        yield f"      {name:9} {named(item, a)}"
        return
    yield f"      {name:9} {named(item, a)}"
    yield f"      {'':6} -> {named(item, b)}"
    if names := differing(item, a, b):
        yield f"      differs   {names}"


def results(found: Difference) -> Iterator[str]:
    """The lines of what differs between two runs."""
    for one in blocks(found.changes):
        yield from block(one)
    for sign, only in (("-", found.only_a), ("+", found.only_b)):
        yield from _only(sign, only)


def _only(sign: str, cases: dict[str, int]) -> Iterator[str]:
    """Cases that only one of the two tried, those of one prefix together."""
    which = "first" if sign == "-" else "second"
    groups: dict[str, list[str]] = {}
    for case in cases:
        prefix, _, rest = case.partition("/")
        groups.setdefault(prefix, []).append(rest or case)
    for prefix, names in groups.items():
        more = f" and {len(names) - _CASES} more" if len(names) > _CASES else ""
        yield f"{sign} {prefix}: {len(names)} case{'s' * (len(names) > 1)} in the {which} only"
        yield _fill("      cases     ", "  ".join(names[:_CASES]) + more, 16)


def _side(name: str, host: Host) -> dict[str, Any]:
    return {"file": name, "host": {key: value for key, value in host._asdict().items() if value is not None}}


def _document(kind: str, a: tuple[str, Host], b: tuple[str, Host], differs: Head, rest: dict[str, Any]) -> dict[str, Any]:
    header = [{"name": name, "a": here, "b": there} for name, here, there in differs]
    return {"schema": SCHEMA, "kind": kind, "a": _side(*a), "b": _side(*b), "header": header, **rest}


def items_json(a: State, b: State, differs: Head, changes: list[states.Change]) -> dict[str, Any]:
    """The document of two snapshots' difference."""
    found = [{"item": c.name, "a": _item(c.a), "b": _item(c.b), "bits": differing(c.name, c.a.value, c.b.value)} for c in changes]
    return _document("snapshot", (a.name, a.host), (b.name, b.host), differs, {"changes": found})


def _item(item: Item) -> dict[str, str | None]:
    return {"value": item.value, "planted": item.planted, "unreadable": item.unreadable}


def results_json(a: tuple[str, Host], b: tuple[str, Host], differs: Head, found: Difference) -> dict[str, Any]:
    """The document of two runs' difference: one record a result, ungrouped."""
    changes = [{"id": c.either.id, "case": c.either.case, "a": _result(c.a), "b": _result(c.b)} for c in found.changes]
    return _document("results", a, b, differs, {"changes": changes, "only": {"a": found.only_a, "b": found.only_b}})


def _result(result: Result | None) -> dict[str, str | None] | None:
    if result is None:
        return None
    return {name: getattr(result, name) for name in ("verdict", "planted", "expected", "observed", "reason")}
