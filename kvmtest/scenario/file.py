# SPDX-License-Identifier: GPL-2.0-only
"""The JSON form of a scenario, ``kvmtest.scenario/1``: for programs that write scenarios, and for keeping one.

The vocabulary of `kvmtest.scenario.step` is the format: each step and condition is an object with its kind and its fields, those
that have their usual value left out. Numbers of <linux/kvm.h> are names, bytes are ``{"hex": ...}``, other numbers may be
hexadecimal text. Nothing that is read is believed: `load` names the first thing that is wrong.
"""

from __future__ import annotations

import errno
import json
import re
from collections.abc import Mapping
from functools import cache
from types import NoneType, UnionType
from typing import Any, NamedTuple, get_args, get_origin, get_type_hints

from kvmtest.scenario import step as s
from kvmtest.scenario.check import ScenarioError, check, kind_of
from kvmtest.scenario.setup import Setup
from kvmtest.uapi.names import CAPS, EXITS, IOCTLS, MP_STATES

__all__ = ("SCHEMA", "ScenarioError", "dump", "kind_of", "load", "loads", "names", "pairs")

SCHEMA = "kvmtest.scenario/1"
#: Of a file in characters, of a list, a text and bytes.
_LONGEST, _MOST, _LONG, _BYTES = 1 << 20, 1000, 2000, 1 << 16
_HEX = re.compile(r"-?0x[0-9a-f]{1,64}")
#: Numbers that are read better in decimal.
_DECIMAL = frozenset(("who", "to", "vcpus", "boot_id", "ids", "of", "gsi", "slot"))


@cache
def _hints(cls: Any) -> dict[str, Any]:
    """The types of a NamedTuple's fields."""
    return get_type_hints(cls)


_ERRNOS = {-number: name for number, name in errno.errorcode.items()}


def names(cls: type, field: str, item: str = "") -> Mapping[int, str]:
    """The names of the numbers in that field, of a kind of step, a condition or the set-up."""
    if item == "mp_state" and field in ("value", "items"):
        return MP_STATES
    known = {
        (s.Call, "request"): IOCTLS,
        (s.Exit, "reason"): EXITS,
        (s.Answer, "value"): _ERRNOS,
        (s.Fails, "error"): errno.errorcode,
        (Setup, "caps"): CAPS,
    }
    return known.get((cls, field), {})


class _Where(NamedTuple):
    """The position of a value: for messages, and for its type."""

    text: str
    cls: type
    field: str = ""

    def wrong(self, expected: str, value: object) -> ScenarioError:
        shown = json.dumps(value, default=str)
        return ScenarioError(f"{self.text}: {expected} is expected, not {shown if len(shown) < 60 else f'{shown[:57]}...'}")


# Writing


def dump(scenario: s.Scenario) -> dict[str, Any]:
    """``scenario`` as JSON has it."""
    return {"schema": SCHEMA} | _fields(scenario)


def _fields(value: Any, item: str = "") -> dict[str, Any]:
    """The fields of a NamedTuple that do not have their default value."""
    cls: Any = type(value)
    usual = cls._field_defaults
    given = {name: field for name, field in value._asdict().items() if name not in usual or field != usual[name]}
    return {
        name: _plain(field, _Where("", cls, name), item=getattr(value, "item", ""), hint=_hints(cls)[name])
        for name, field in given.items()
    }


def _plain(value: Any, where: _Where, *, item: str, hint: Any) -> Any:
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        tag = {"step": kind_of(type(value))} if type(value) in get_args(s.Step) else {}
        tag = tag or ({"kind": kind_of(type(value))} if type(value) in get_args(s.Condition) else {})
        return tag | _fields(value)
    if isinstance(value, tuple):
        if pair := pairs(hint):
            return {_key(one[0], where): _plain(one[1], where, item=str(one[0]), hint=pair[1]) for one in value}
        return [_plain(one, where, item=item, hint=get_args(hint)[0]) for one in value]
    if isinstance(value, bytes):
        return {"hex": value.hex()}
    if isinstance(value, int) and not isinstance(value, bool):
        known = {} if pairs(hint) or where.field == "caps" else names(where.cls, where.field, item)
        return known.get(value) or (value if -10 < value < 10 or where.field in _DECIMAL else hex(value))
    return value


def _key(key: Any, where: _Where) -> str:
    return names(where.cls, where.field).get(key, hex(key)) if isinstance(key, int) else str(key)


def pairs(hint: Any) -> tuple[Any, ...]:
    """The two types of ``tuple[tuple[A, B], ...]``, which is an object in JSON."""
    if get_origin(hint) is tuple and get_args(hint)[1:] == (Ellipsis,):
        one = get_args(hint)[0]
        if get_origin(one) is tuple and len(get_args(one)) == 2 and get_args(one)[1] is not Ellipsis:
            return get_args(one)
    return ()


# Reading


def load(path: str) -> s.Scenario:
    """The scenario in the file ``path``. Raises ScenarioError, which begins with the path, and OSError."""
    with open(path, encoding="utf-8") as file:
        try:
            text = file.read(_LONGEST + 1)
            if len(text) > _LONGEST:
                raise ScenarioError(f"longer than {_LONGEST >> 20} MB")
            return loads(json.loads(text, object_pairs_hook=_object))
        except UnicodeDecodeError:
            raise ScenarioError(f"{path}: not UTF-8") from None
        except json.JSONDecodeError as error:
            raise ScenarioError(f"{path}: not JSON: {error}") from None
        except RecursionError:
            raise ScenarioError(f"{path}: too deeply nested") from None
        except ScenarioError as error:
            raise ScenarioError(f"{path}: {error}") from None
        except ValueError as error:  # a number of more digits than Python converts
            raise ScenarioError(f"{path}: {error}") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for key in found if sum(key == one for one, _ in pairs) > 1)
        raise ScenarioError(f"{twice[:_LONG]!r} is there twice in one object")
    return found


def loads(data: Any) -> s.Scenario:
    """The scenario that ``data``, as JSON has it, describes. Raises ScenarioError."""
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        raise ScenarioError(f"no {SCHEMA}: the key schema does not say so")
    scenario: s.Scenario = _named(s.Scenario, {key: value for key, value in data.items() if key != "schema"}, "the scenario")
    check(scenario)
    return scenario


def _named(cls: type, data: Any, text: str, tag: str = "") -> Any:
    """An object with the fields of the NamedTuple ``cls``."""
    where = _Where(text, cls)
    if not isinstance(data, dict):
        raise where.wrong("an object", data)
    fields, usual = cls._fields, cls._field_defaults  # type: ignore[attr-defined]
    if wrong := [key for key in data if key not in fields and key != tag]:
        raise ScenarioError(f"{text}: there is no {wrong[0][:_LONG]!r} here; there are {', '.join(fields)}")
    if missing := [name for name in fields if name not in data and name not in usual]:
        raise ScenarioError(f"{text}: {missing[0]!r} is missing")
    item = str(data.get("item", ""))
    hints = _hints(cls)
    return cls(**{n: _value(hints[n], data[n], _Where(f"{text}, {n}", cls, n), item) for n in fields if n in data})


def _tagged(hint: Any, data: Any, where: _Where) -> Any:
    """A step or a condition, which says its kind."""
    tag, kinds = ("step", get_args(s.Step)) if hint == s.Step else ("kind", get_args(s.Condition))
    if not isinstance(data, dict):
        raise where.wrong("an object", data)
    known = {kind_of(kind): kind for kind in kinds}
    name = data.get(tag)
    if not isinstance(name, str) or name not in known:
        raise ScenarioError(f"{where.text}: no {tag} {json.dumps(name)[:60]}; there are {', '.join(known)}")
    return _named(known[name], data, f"{where.text} ({name})", tag)


def _value(hint: Any, data: Any, where: _Where, item: str = "") -> Any:
    if hint in (s.Step, s.Condition):
        return _tagged(hint, data, where)
    if pair := pairs(hint):
        return _object_of(pair, data, where)
    if get_origin(hint) is tuple:
        if not isinstance(data, list) or len(data) > _MOST:
            raise where.wrong(f"a list of at most {_MOST}", data)
        of = get_args(hint)[0]
        return tuple(_value(of, one, where._replace(text=f"{where.text} {n}"), item) for n, one in enumerate(data, 1))
    kinds = get_args(hint) if isinstance(hint, UnionType) else (hint,)
    return _plain_value(kinds, data, where, item)


def _plain_value(kinds: tuple[Any, ...], data: Any, where: _Where, item: str) -> Any:
    """A value of one of ``kinds``."""
    if isinstance(data, bool) or data is None:
        if (bool if isinstance(data, bool) else NoneType) in kinds:
            return data
    elif isinstance(data, int) or isinstance(data, str) and int in kinds and _HEX.fullmatch(data):
        number = data if isinstance(data, int) else int(data, 16)
        if int in kinds and abs(number) < 1 << 256:
            return number
    elif isinstance(data, str) and len(data) <= _LONG:
        known = {name: number for number, name in names(where.cls, where.field, item).items()}
        if int in kinds and data in known:
            return known[data]
        if str in kinds:
            return data
    elif isinstance(data, dict):
        named = [kind for kind in kinds if isinstance(kind, type) and hasattr(kind, "_fields")]
        if bytes in kinds and set(data) == {"hex"}:
            return _bytes(data["hex"], where)
        if named and named[0] in get_args(s.Condition):
            if isinstance(made := _tagged(s.Condition, data, where), named[0]):
                return made
        elif named:
            return _named(named[0], data, where.text)
    raise where.wrong(_expected(kinds, where, item), data)


def _expected(kinds: tuple[Any, ...], where: _Where, item: str) -> str:
    said = {bool: "true or false", NoneType: "null", int: "a number", str: f"a text of at most {_LONG}", bytes: '{"hex": ...}'}
    known = names(where.cls, where.field, item)
    words = [said.get(kind, "an object") for kind in kinds]
    return " or ".join((*words, *([f"a name as {next(iter(known.values()))}"] if known else ())))


def _bytes(data: Any, where: _Where) -> bytes:
    if isinstance(data, str) and len(data) <= 2 * _BYTES and re.fullmatch("([0-9a-f]{2})*", data):
        return bytes.fromhex(data)
    raise where.wrong(f"pairs of hexadecimal digits, at most {_BYTES} of them,", data)


def _object_of(pair: tuple[Any, ...], data: Any, where: _Where) -> tuple[Any, ...]:
    """Pairs, of the keys and values of an object."""
    if not isinstance(data, dict) or len(data) > _MOST:
        raise where.wrong(f"an object of at most {_MOST} keys", data)
    found = []
    for key, value in data.items():
        at = where._replace(text=f"{where.text} {key[:_LONG]!r}", field="" if where.field == "caps" else where.field)
        found.append((_value(pair[0], key, where, ""), _value(pair[1], value, at, key)))
    return tuple(found)
