# SPDX-License-Identifier: GPL-2.0-only
"""Reproducers as plain data for marshal, and back: the form in which they leave a cell of the lab."""

from __future__ import annotations

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
    """Restore the object that `dump` converted. Raises KeyError, TypeError for what `dump` does not return."""
    if isinstance(value, list):
        name, *fields = value
        return _CLASSES[name](*map(load, fields))
    if isinstance(value, tuple):
        return tuple(map(load, value))
    return {key: load(one) for key, one in value.items()} if isinstance(value, dict) else value
