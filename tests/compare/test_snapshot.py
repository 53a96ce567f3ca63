# SPDX-License-Identifier: GPL-2.0-only
"""Snapshots as files: what is written is read back, is valid, and whatever else a file holds ends in one line."""

from __future__ import annotations

import json

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmtest import schemas
from kvmtest.compare import show, states
from kvmtest.compare.snapshot import Item, State, dump, is_one, parse
from kvmtest.model.host import Host
from kvmtest.results.saved import SavedError
from kvmtest.spec import ENTRIES
from kvmtest.spec.untouched import COUNTERS

_SCHEMA = schemas.load("snapshot")
_HOST = Host("6.1.0", "svm", "AuthenticAMD", "a CPU", {"npt": "Y"}, {"emulator": "QEMU", "cpu": "max", "kernel_source": "deb"})
_MADE = {
    "case": "init.msi.host/ap,intel,xapic,plant-a",
    "event": "init",
    "trigger": "msi",
    "view": "host",
    "target": "ap",
    "mode": "xapic",
    "plant": "a",
    "vendor": "intel",
}
_ITEMS = {
    "cr0": Item("0x60000010", "0x80050033"),
    "cr2": Item("0x0", "0x5000", "", "0x6000 was planted, but KVM_GET_* returned 0x5000 before the event"),
    "mp_state": Item("INIT_RECEIVED", "RUNNABLE"),
    "msr.tsc": Item("0x123", "0x100"),
    "ssp": Item(None, None, "KVM_GET_ONE_REG: EINVAL"),
}
_STATE = State("file", _HOST, "2026-01-01T00:00:00Z", _MADE, _ITEMS)


def _bent(**changes: object) -> bytes:
    return json.dumps({**json.loads(dump(_STATE)), **changes}).encode()


def test_it_is_read_back_and_valid() -> None:
    text = dump(_STATE)
    assert is_one(text.encode()) and parse("file", text.encode()) == _STATE
    jsonschema.validate(json.loads(text), _SCHEMA)


def test_an_item_is_a_line() -> None:
    assert sum('"value":' in line for line in dump(_STATE).splitlines()) == len(_ITEMS)


@pytest.mark.parametrize(
    "items",
    [
        {},
        {"cr0": {}},
        {"cr0": {"value": None}},
        {"cr0": {"value": "0x1", "unreadable": "why"}},
        {"cr0": {"value": 1}},
        {"cr0": {"value": "0xG"}},
        {"a b": {"value": "0x1"}},
        {"cr0": {"value": "0x1", "planted": "1"}},
        {"cr0": {"value": None, "unreadable": 3}},
    ],
)
def test_reader_and_schema_refuse_the_same(items: dict[str, object]) -> None:
    contents = _bent(items=items)
    with pytest.raises(SavedError):
        parse("file", contents)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(json.loads(contents), _SCHEMA)


@pytest.mark.parametrize(
    "contents",
    [
        _bent(schema="kvmtest.snapshot/2"),
        _bent(taken=3),
        _bent(made={}),
        _bent(made={**_MADE, "mode": None}),
        _bent(items=[]),
        _bent(host=3),
        b'"kvmtest.snapshot/1"',
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"items": ' + b"9" * 5000 + b"}",
    ],
)
def test_anything_else_is_one_line(contents: bytes) -> None:
    with pytest.raises(SavedError) as error:
        parse("file", contents)
    assert "\n" not in str(error.value) and str(error.value).startswith("file")


@given(st.integers(0, len(dump(_STATE)) - 2))
def test_one_that_was_cut_is_never_taken(end: int) -> None:
    with pytest.raises(SavedError):
        parse("file", dump(_STATE)[:end].encode())


_LEAVES = st.none() | st.booleans() | st.floats() | st.integers() | st.text()
_JSON = st.recursive(_LEAVES, lambda s: st.lists(s, max_size=3) | st.dictionaries(st.text(), s, max_size=3), max_leaves=5)


@given(st.dictionaries(st.sampled_from(["host", "taken", "made", "items", "schema"]), _JSON), _JSON)
def test_no_json_ends_in_a_traceback(changes: dict[str, object], item: object) -> None:
    for contents in (_bent(**changes), _bent(items={"cr0": item})):
        try:
            parse("file", contents)
        except SavedError as error:
            assert "\n" not in str(error)


_VALUES = st.none() | st.integers(0, 2**64 - 1).map(hex)
_READ = st.builds(lambda value, planted: Item(value, planted, "" if value else "why"), _VALUES, _VALUES)
_MANY = st.dictionaries(st.sampled_from(sorted(ENTRIES)), _READ, min_size=1)


@given(_MANY, _MANY)
def test_what_differs(a: dict[str, Item], b: dict[str, Item]) -> None:
    first, second = _STATE._replace(items=a), _STATE._replace(items=b)
    assert states.difference(first, first) == []
    found = {change.name for change in states.difference(first, second)}
    assert found == {change.name for change in states.difference(second, first)}
    for name in (a.keys() & b.keys()) - COUNTERS:
        assert (name in found) == (a[name][:2] != b[name][:2])
    assert parse("file", dump(first).encode()).items == a
    # Whatever differs has lines of its own.
    lines = list(show.items(states.difference(first, second)))
    assert [line for line in lines if not line.startswith(" ")] == [c.name for c in states.difference(first, second)]


def test_a_counter_does_not_differ_unless_it_cannot_be_read() -> None:
    counted = _STATE._replace(items={**_ITEMS, "msr.tsc": Item("0x999", "0x777")})
    assert states.difference(_STATE, counted) == []
    gone = _STATE._replace(items={**_ITEMS, "msr.tsc": Item(None, None, "refused")})
    assert [change.name for change in states.difference(_STATE, gone)] == ["msr.tsc"]


def test_bits_are_named() -> None:
    other = _STATE._replace(items={**_ITEMS, "cr0": Item("0x10", "0x80050033"), "cr2": Item("0x5000", "0x5000")})
    lines = list(show.items(states.difference(_STATE, other)))
    assert lines == [
        "cr0",
        "  - value     0x60000010  CD|NW|ET",
        "  + value     0x10  ET",
        "    differs   CD|NW",
        "cr2",
        "  - value     0x0",
        "  + value     0x5000",
    ]


def test_an_item_that_one_has_only_says_why() -> None:
    less = _STATE._replace(items={name: item for name, item in _ITEMS.items() if name != "cr2"})
    lines = list(show.items(states.difference(_STATE, less)))
    assert "  + value     -" in lines and "  + the snapshot has no such item" in lines


def test_text_has_a_register_a_line_and_reasons() -> None:
    lines = list(show.state(_STATE))
    assert "cr0       0x60000010  CD|NW|ET      was 0x80050033  PG|AM|WP|NE|ET|MP|PE" in lines
    assert "  KVM_GET_ONE_REG: EINVAL: ssp" in lines


def test_where_they_come_from() -> None:
    other = _HOST._replace(kernel="6.12", parameters={"npt": "N", "avic": "Y"})
    assert states.hosts(_HOST, _HOST) == []
    assert ("kernel", "6.1.0", "6.12") in states.hosts(_HOST, other)
    assert ("parameter npt", "Y", "N") in states.hosts(_HOST, other)
    assert ("parameter avic", "-", "Y") in states.hosts(_HOST, other)
    assert states.hosts(Host("unknown", "unknown", "unknown", "unknown", {}), other) == []
    assert states.made(_STATE, _STATE._replace(made={**_MADE, "mode": "x2apic"})) == [("mode", "xapic", "x2apic")]
