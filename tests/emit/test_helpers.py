# SPDX-License-Identifier: GPL-2.0-only
"""The functions that reproducers begin with: all of them together are a C file without a warning."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path

import pytest

from kvmtest.emit.helpers import HELPERS, INCLUDES, NEEDS
from tests.emit.compiled import built, parsed


def test_each_mark_of_the_file_begins_one() -> None:
    text = files("kvmtest").joinpath("emit/helpers.c").read_text(encoding="utf-8")
    assert list(HELPERS) == re.findall(r"^/// (\w+)", text, re.MULTILINE)
    assert all(re.search(rf"\b{name}\b", body) for name, body in HELPERS.items())


def test_it_needs_what_comes_before_it() -> None:
    order = list(HELPERS)
    for name, needs in NEEDS.items():
        assert all(order.index(other) < order.index(name) for other in needs), name
    assert set(NEEDS["get_msr"]) == {"need", "kvm_ioctl"}


@pytest.mark.parametrize("name", HELPERS)
def test_each_compiles_with_what_it_needs(name: str, tmp_path: Path) -> None:
    # Nobody waits for a thread that was not started.
    chosen, left = set(), [name, *(["start"] if name == "join" else [])]
    while left:
        chosen.add(one := left.pop())
        left += [other for other in ("need", "kvm_ioctl", *NEEDS[one]) if other not in chosen]
    parsed(_file(chosen), tmp_path)


def test_all_compile(tmp_path: Path) -> None:
    built(_file(set(HELPERS)), tmp_path)


def _file(chosen: set[str]) -> str:
    headers = {"fcntl.h", "stdio.h", *(header for one in chosen for header in INCLUDES[one])}
    # A function that nobody calls is a warning.
    names = [name for one in chosen for name in re.findall(r"^static [\w *]*?\b(\w+)\(", HELPERS[one], re.MULTILINE)]
    called = "".join(f"\tprintf(\"%p\\n\", (void *){name});\n" for name in sorted(names))
    parts = ["#define _GNU_SOURCE", *(f"#include <{header}>" for header in sorted(headers)), "#include <linux/kvm.h>"]
    return "\n".join([*parts, *(HELPERS[name] for name in HELPERS if name in chosen), f"int main(void)\n{{\n{called}}}\n"])
