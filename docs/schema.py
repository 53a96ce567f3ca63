# SPDX-License-Identifier: GPL-2.0-only
"""The JSON schema of a scenario file, from the vocabulary of steps: python docs/schema.py writes it into the package."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

ROOT = Path(__file__).resolve().parent.parent
PATH = ROOT / "kvmtest" / "schemas" / "scenario.schema.json"


def schema() -> dict[str, Any]:
    """Return the schema of what kvmtest/scenario/file.py reads and writes, as far as types define it."""
    from kvmtest.scenario import file
    from kvmtest.scenario import step as s
    from kvmtest.scenario.setup import Setup

    defs: dict[str, Any] = {
        "number": {"anyOf": [{"type": "integer"}, {"type": "string", "pattern": "^-?0x[0-9a-f]{1,64}$"}]},
        "bytes": {"type": "object", "properties": {"hex": {"type": "string", "pattern": "^([0-9a-f]{2})*$"}}},
    }
    defs["bytes"] |= {"required": ["hex"], "additionalProperties": False}

    def of(hint: Any, cls: type, field: str) -> dict[str, Any]:
        if hint in (s.Step, s.Condition):
            return {"$ref": f"#/$defs/{'step' if hint == s.Step else 'condition'}"}
        if pair := file.pairs(hint):
            values = of(pair[1], object, "")
            return {"type": "object", "additionalProperties": values}
        if get_origin(hint) is tuple:
            return {"type": "array", "items": of(get_args(hint)[0], cls, field)}
        if isinstance(hint, UnionType):
            return {"anyOf": [of(one, cls, field) for one in get_args(hint)]}
        if hint is int:
            known = list(file.names(cls, field, "mp_state" if "item" in getattr(cls, "_fields", ()) else "").values())
            number = {"$ref": "#/$defs/number"}
            return {"anyOf": [{"enum": known}, number]} if known else number
        if hint is bytes:
            return {"$ref": "#/$defs/bytes"}
        plain = {str: "string", bool: "boolean", NoneType: "null"}
        if hint in plain:
            return {"type": plain[hint]}
        return fields(hint, {"kind": file.kind_of(hint)} if hint in get_args(s.Condition) else None)

    def fields(cls: Any, tag: dict[str, str] | None = None) -> dict[str, Any]:
        tags = {key: {"const": value} for key, value in (tag or {}).items()}
        hints = get_type_hints(cls)
        found = tags | {name: of(hints[name], cls, name) for name in cls._fields}
        needed = [*tags, *(name for name in cls._fields if name not in cls._field_defaults)]
        text = " ".join((cls.__doc__ or "").split("\n\n")[0].replace("``", "").split())
        return {
            "description": text,
            "type": "object",
            "properties": found,
            "required": needed,
            "additionalProperties": False,
        }

    for name, tag, kinds in (("step", "step", get_args(s.Step)), ("condition", "kind", get_args(s.Condition))):
        defs[name] = {"oneOf": [fields(kind, {tag: file.kind_of(kind)}) for kind in kinds]}
    defs["setup"] = fields(Setup)
    made = fields(s.Scenario, {"schema": file.SCHEMA})
    made["properties"]["setup"] = {"$ref": "#/$defs/setup"}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": file.SCHEMA} | made | {"$defs": defs}


def text() -> str:
    """The file's content."""
    return json.dumps(schema(), indent=2) + "\n"


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    PATH.write_text(text(), encoding="utf-8")
