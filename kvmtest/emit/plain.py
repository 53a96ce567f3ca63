# SPDX-License-Identifier: GPL-2.0-only
"""Reproducers as plain data for marshal, and back: the form in which they leave a cell of the lab."""

from __future__ import annotations

import re
from typing import Any

from kvmtest.emit import head, repro, several
from kvmtest.scenario import program

__all__ = ("dump", "load")

_CLASSES: dict[str, Any] = {
    name: kind
    for module in (head, program, repro, several)
    for name, kind in vars(module).items()
    if isinstance(kind, type) and issubclass(kind, tuple) and hasattr(kind, "_fields")
}
#: Fields that become names of a C file; others are text, which is quoted, or stands in a comment.
_NAMES = {"arg", "buffer", "kind", "name", "result"}
_NAME = re.compile(r"[\w.\[\]-]*", re.ASCII)


def dump(value: Any) -> Any:
    """``value`` without classes: a named tuple becomes a list of its class's name and its fields."""
    if hasattr(value, "_fields"):
        return [type(value).__name__, *map(dump, value)]
    if isinstance(value, frozenset):
        return value
    if isinstance(value, tuple):
        return tuple(map(dump, value))
    return {key: dump(one) for key, one in value.items()} if isinstance(value, dict) else value


def load(value: Any) -> Any:
    """Restore the object that `dump` converted. Raises KeyError, TypeError, ValueError for what `dump` does not return.

    Names in a program become parts of a C file: a KVM that lies writes none of its own there.
    """
    if isinstance(value, list):
        name, *fields = value
        made = _CLASSES[name](*map(load, fields))
        for field in _NAMES & set(made._fields):
            if isinstance(said := getattr(made, field), str) and not _NAME.fullmatch(said):
                raise ValueError(f"{name}.{field} {said[:60]!r} is not a name")
        return made
    if isinstance(value, tuple):
        return tuple(map(load, value))
    return {key: load(one) for key, one in value.items()} if isinstance(value, dict) else value
