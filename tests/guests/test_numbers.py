# SPDX-License-Identifier: GPL-2.0-only
"""The numbers of a guest's source are those that the host uses, and its handlers are where the host looks for them."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType

import pytest

from kvmtest import guests
from kvmtest.guests import behaviour, l1, smm, stress, svm, vmx

SOURCES = Path(__file__).parents[2] / "guests"


def _text(name: str) -> str:
    """A source, and what it includes."""
    text = (SOURCES / name).read_text(encoding="utf-8")
    return re.sub(r'^\t\.include "(.*)"$', lambda found: _text(found[1]), text, flags=re.MULTILINE)


def _source(module: ModuleType) -> str:
    return _text(f"{module.NAME}.S" if hasattr(module, "NAME") else "l1.inc")


@pytest.mark.parametrize("module", [behaviour, stress, l1, smm, svm, vmx])
def test_the_host_uses_the_numbers_of_the_source(module: ModuleType) -> None:
    text = _source(module)
    source = {name: int(value, 0) for name, value in re.findall(r"^\t\.set (\w+), (\w+)", text, re.MULTILINE)}
    host = {name: value for name, value in vars(module).items() if name.isupper() and isinstance(value, int)}
    host = {name: value for name, value in host.items() if not name.startswith("_") and name != "FIRST_INTERRUPT"}
    assert len(host) > 10
    assert {name: source.get(name) for name in host} == host


@pytest.mark.parametrize("module", [behaviour, stress, smm])
def test_the_page_is_the_beginning_of_the_image(module: ModuleType) -> None:
    assert module.page() == guests.load(module.NAME)[:0x1000]


def test_the_vector_table_leads_to_the_handlers() -> None:
    table = behaviour.vector_table(ff=behaviour.AT_FF_OTHER)
    entries = [table[i : i + 4] for i in range(0, 1024, 4)]
    assert len(table) == 1024
    assert entries[2] == b"\x30\x00\x00\x01" and entries[13] == b"\x20\x00\x00\x01" and entries[0xFF] == b"\x40\x00\x00\x01"
    assert behaviour.vector_table(nmi=behaviour.AT_NMI_COUNTS)[8] == behaviour.AT_NMI_COUNTS
