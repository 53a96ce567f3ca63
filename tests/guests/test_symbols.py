# SPDX-License-Identifier: GPL-2.0-only
"""The numbers of a guest's source are read from its symbols at the first use, and each one that the package uses is there."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kvmtest import guests
from kvmtest.guests import behaviour, planter, smm
from kvmtest.scenario import access
from kvmtest.scenario.catalogue import paging, restart, rsm
from kvmtest.scenario.catalogue.common import SIPI_VECTOR
from kvmtest.state import inside

PACKAGE = Path(guests.__file__).parents[1]
MODULES = {path.stem for path in (PACKAGE / "guests").glob("[a-z]*.py")}


def _used() -> Iterator[tuple[str, str]]:
    """Module and attribute, wherever the package has one of a module of `kvmtest.guests`."""
    for path in PACKAGE.rglob("*.py"):
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        imports = (node for node in nodes if isinstance(node, ast.ImportFrom) and node.module == "kvmtest.guests")
        named = {name.asname or name.name: name.name for node in imports for name in node.names if name.name in MODULES}
        for node in nodes:
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in named:
                yield named[node.value.id], node.attr


def _words() -> Iterator[str]:
    """Yield the names that are written into a guest, as in ``stress_vm.order(id, VECTOR=1)``."""
    for path in (PACKAGE / "engine").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.keyword) and node.arg and node.arg.isupper():
                yield node.arg


def test_the_sources_have_every_number_that_the_package_uses() -> None:
    used = set(_used())
    assert {module for module, _ in used} == MODULES
    assert [use for use in used if not hasattr(importlib.import_module(f"kvmtest.guests.{use[0]}"), use[1])] == []
    words = {name for guest in guests.IMAGES for name in guests.symbols(guest)}
    assert [word for word in _words() if word not in words] == []


def test_what_l1_has_is_in_both_guests_that_include_it() -> None:
    of_l1 = {name for module, name in _used() if module == "l1"} - {"page_tables", "pages"}
    assert {name: guests.symbols("svm")[name] for name in of_l1} == {name: guests.symbols("vmx").get(name) for name in of_l1}


def test_numbers_that_a_listing_names_are_those_of_the_source() -> None:
    assert paging.REAL == behaviour.LINEAR
    assert (restart._TABLE_0, restart._TABLE_OTHER) == (behaviour.TABLE_0, behaviour.TABLE_OTHER)
    assert SIPI_VECTOR << 12 == behaviour.CODE == smm.CODE == guests.symbols("access")["CODE"]
    assert [guests.symbols("access")[kind] for kind in access.KINDS] == list(range(len(access.KINDS)))
    assert planter.BASE + inside._PDPT_PAE == rsm.PDPT
    assert int.from_bytes(rsm.PDPTES[8:16], "little") == planter.BASE + inside._PD + 0x1000 | 1


def test_a_name_that_no_source_has_is_reported() -> None:
    with pytest.raises(AttributeError, match=r"guests/behaviour\.S has no symbol 'TOPIC_SPIM'"):
        print(behaviour.TOPIC_SPIM)


@pytest.mark.parametrize(("content", "says"), [(None, "make guests"), ("", "not a list of symbols"), ("CODE a", "not a list")])
def test_symbols_that_were_not_built_are_reported(
    content: str | None, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guests, "__file__", str(tmp_path / "__init__.py"))
    if content is not None:
        (tmp_path / "behaviour.sym").write_text(content)
    with pytest.raises(guests.GuestMissing, match=says):
        print(behaviour.CODE)


@pytest.mark.program
def test_every_module_can_be_imported_where_no_guest_was_built() -> None:
    code = """
import importlib, pkgutil, sys
import kvmtest, kvmtest.guests
kvmtest.guests.__file__ = "/nonexistent/__init__.py"
for module in pkgutil.walk_packages(kvmtest.__path__, "kvmtest."):
    # runner.so looks like a module.
    if module.name not in ("kvmtest.__main__", "kvmtest.guests.runner", "kvmtest.pytest_plugin"):
        importlib.import_module(module.name)
print(len(kvmtest.guests.missing()))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=PACKAGE.parent, capture_output=True, text=True, timeout=60)
    assert done.stdout == f"{len(guests.IMAGES)}\n", done.stderr


def test_the_vector_table_leads_to_the_handlers() -> None:
    table = behaviour.vector_table(ff="AT_FF_OTHER")
    entries = [table[i : i + 4] for i in range(0, 1024, 4)]
    assert len(table) == 1024
    assert entries[2] == b"\x30\x00\x00\x01" and entries[13] == b"\x20\x00\x00\x01" and entries[0xFF] == b"\x40\x00\x00\x01"
    assert behaviour.vector_table(nmi="AT_NMI_COUNTS")[8] == behaviour.AT_NMI_COUNTS
