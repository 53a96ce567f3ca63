# SPDX-License-Identifier: GPL-2.0-only
"""A vCPU's whole state after an event, as a document: ``kvmtest.snapshot/1`` (kvmtest/schemas/snapshot.schema.json)."""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

from kvmtest import __version__
from kvmtest.model.host import Host
from kvmtest.results import fields
from kvmtest.results.lines import host_fields
from kvmtest.results.saved import parsed

__all__ = ("SCHEMA", "Item", "State", "dump", "is_one", "parse")

SCHEMA = "kvmtest.snapshot/1"
_SAYS = re.compile(rb'"schema"\s*:\s*"kvmtest\.snapshot/')
_NAME = re.compile(r"[a-z0-9_]+(\.[a-z0-9_]+)*")
_VALUE = re.compile(r"0x[0-9a-f]+|[A-Z][A-Z_]*")
#: The parts of the case that made the state, in the order of the document.
_MADE = ("case", "event", "trigger", "view", "target", "mode", "plant", "vendor")


class Item(NamedTuple):
    """One item: its value after the event, and ``planted``, its value before; lower-case hex, a name (RUNNABLE), or None.

    ``unreadable`` says why there is no value, ``refused`` why what was planted is not what was asked for.
    """

    value: str | None
    planted: str | None = None
    unreadable: str = ""
    refused: str = ""


class State(NamedTuple):
    """A snapshot. ``name`` is its file's, ``taken`` UTC in RFC 3339; ``made`` holds the case's name and its parts."""

    name: str
    host: Host
    taken: str
    made: dict[str, str]
    items: dict[str, Item]


def dump(state: State) -> str:
    """The document of ``state``: an item a line, so that plain diff(1) is of use too."""
    head = {
        "schema": SCHEMA,
        "tool": {"name": "kvmtest", "version": __version__},
        "host": host_fields(state.host),
        "taken": state.taken,
        "made": state.made,
    }
    lines = [f"  {json.dumps(name)}: {json.dumps(_record(item))}" for name, item in state.items.items()]
    return json.dumps(head, indent=1).removesuffix("\n}") + ',\n "items": {\n' + ",\n".join(lines) + "\n }\n}\n"


def _record(item: Item) -> dict[str, str | None]:
    """The value always; the rest where there is something to say."""
    found = item._asdict()
    return {name: found[name] for name in ("planted", "value", "unreadable", "refused") if name == "value" or found[name]}


def is_one(contents: bytes) -> bool:
    """Return True if a file's contents are a snapshot of any version."""
    return _SAYS.search(contents) is not None


def parse(name: str, contents: bytes) -> State:
    """The snapshot in a file ``name`` with ``contents``. Raises SavedError, of one line."""
    return parsed(name, contents, _state)


def _state(name: str, text: str) -> State:
    document = json.loads(text)
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        found = document.get("schema") if isinstance(document, dict) else document
        raise ValueError(f"schema {str(found)[:60]!r}, not {SCHEMA}")
    taken, made, items = document.get("taken"), document.get("made"), document.get("items")
    if not isinstance(taken, str):
        raise ValueError("taken is not a string")
    if not isinstance(made, dict) or not all(isinstance(made.get(part), str) for part in _MADE):
        raise ValueError(f"made has no {', '.join(_MADE)}")
    if not isinstance(items, dict) or not items:
        raise ValueError("items is not an object, or an empty one")
    host = fields.host(document.get("host"))
    parts = {part: made[part] for part in _MADE}
    return State(name, host, taken, parts, {item: _item(item, found) for item, found in items.items()})


def _item(name: str, found: Any) -> Item:
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name[:80]!r} is not an item")
    if not isinstance(found, dict) or "value" not in found:
        raise ValueError(f"{name} has no value")
    made = Item(found["value"], found.get("planted"), found.get("unreadable", ""), found.get("refused", ""))
    for value in made[:2]:
        if value is not None and not (isinstance(value, str) and _VALUE.fullmatch(value)):
            raise ValueError(f"{name}: {str(value)[:40]!r} is not a value")
    if not isinstance(made.unreadable, str) or not isinstance(made.refused, str):
        raise ValueError(f"{name}: a reason is not a string")
    if (made.value is None) != bool(made.unreadable):
        raise ValueError(f"{name} has neither a value nor a reason for having none, or both")
    return made
