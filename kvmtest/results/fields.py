# SPDX-License-Identifier: GPL-2.0-only
"""Checked fields of saved results: each has the expected type, or the file is refused."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

from kvmtest.model.host import Host
from kvmtest.model.value import Value, parse

__all__ = ("Bad", "host", "index", "items", "members", "seconds", "string", "value")

_LAB = ("emulator", "cpu", "kernel_source")


class Bad(ValueError):
    """A value in a file is not of the expected kind."""


def index(number: Any) -> int:
    """A line's number. Raises Bad."""
    if type(number) is not int or number < 0:
        raise Bad(f"{str(number)[:40]} is not a number of a line")
    return number


def items(fields: dict[str, Any], name: str, default: Iterable[Any] | None = None) -> list[Any]:
    """The list ``name`` of ``fields``. Raises Bad."""
    found = fields.get(name, default)
    if not isinstance(found, list | tuple):
        raise Bad(f"{name} is not a list")
    return list(found)


def members(value: Any, what: str) -> dict[str, Any]:
    """The members of an object. Raises Bad."""
    if not isinstance(value, dict):
        raise Bad(f"{what} is not an object")
    return value


def string(value: Any, what: str) -> str:
    """A string. Raises Bad."""
    if not isinstance(value, str):
        raise Bad(f"{what} is not a string")
    return sys.intern(value)


def value(item: str, fields: dict[str, Any], name: str) -> Value | None:
    """The value ``name`` of ``item``, None where there is none. Raises Bad."""
    said = fields.get(name)
    if said is not None and not isinstance(said, str):
        raise Bad(f"{item}: {name} is not a string")
    return parse(item, said)


def seconds(value: object) -> float:
    """A duration. Raises Bad."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e12:
        raise Bad("a duration is not a number of seconds")
    return float(value)


def host(said: Any) -> Host:
    """The ``host`` of a document. Raises ValueError."""
    fields = members(said, "host")
    parameters, lab = fields.get("parameters"), fields.get("lab")
    if not isinstance(parameters, dict) or not all(isinstance(value, str) for value in parameters.values()):
        raise Bad("host.parameters is not an object of strings")
    if lab is not None and not (isinstance(lab, dict) and all(isinstance(lab.get(name), str) for name in _LAB)):
        raise Bad(f"host.lab has no {', '.join(_LAB)}")
    kernel, backend, vendor, model = (
        string(fields.get(name), f"host.{name}") for name in ("kernel", "backend", "cpu_vendor", "cpu_model")
    )
    name, accel = (string(fields.get(name, ""), f"host.{name}") for name in ("name", "accel"))
    return Host(kernel, backend, vendor, model, parameters, lab, name, accel)
