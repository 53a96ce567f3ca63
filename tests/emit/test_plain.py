# SPDX-License-Identifier: GPL-2.0-only
"""Reproducers as plain data, and back."""

from __future__ import annotations

import marshal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmtest.emit import c
from kvmtest.emit.head import About, Shown
from kvmtest.emit.plain import dump, load
from kvmtest.emit.repro import Check, Leaf
from kvmtest.scenario import program as p
from tests.emit.made import OPS, repro

_numbers = st.integers(0, (1 << 80) - 1)
_names = st.from_regex(r"[a-z0-9_.]{0,5}", fullmatch=True)
_places = st.builds(p.Place, _names, st.integers(0, 99), st.integers(1, 64), _names)
_checks = st.builds(
    Check, _names, _places | st.builds(Leaf, st.just("cpuid0"), _numbers, _numbers, st.just("eax")),
    st.tuples(_numbers), _numbers, st.none() | st.integers(0, 63),
)


@given(st.lists(st.sampled_from(OPS), min_size=1), st.lists(_checks), st.frozensets(st.integers(0, 99)))
def test_round_trip(ops: list[p.Op], checks: list[Check], pinned: frozenset[int]) -> None:
    about = About("init.msi.host.cr3", "init.msi/ap", "cr3", "init", "msi", "0x0", "0x1", ("a manual",), True)
    shown = Shown(repro(*ops)._replace(checks=tuple(checks), pinned=pinned, cpuid=frozenset({(0, "ebx")})), about, 9, 2)
    plain = marshal.loads(marshal.dumps(dump(shown)))
    assert load(plain) == shown
    assert list(map(type, load(plain).repro.body.ops[-1])) == list(map(type, shown.repro.body.ops[-1]))


@pytest.mark.parametrize("name", ["x; } int main(", "a b", "*/", "x\n#include", '"'])
def test_a_name_that_would_be_code_is_refused(name: str) -> None:
    for made in (p.Place(name, 0, 8), p.Place("regs", 0, 8, name), p.Buffer(name, b"")):
        with pytest.raises(ValueError, match="is not a name"):
            load(dump(made))


def test_a_comment_holds_what_a_kvm_says_of_itself() -> None:
    shown = repro(OPS[0])
    said = c.source(shown, ["6.1 */ int x; /*", "and \x1b[31m"])
    assert "*/ int" not in said and "\x1b" not in said


def test_what_is_no_class_of_ours_is_refused() -> None:
    with pytest.raises(KeyError):
        load(["Popen", "ls"])
    with pytest.raises(TypeError):
        load(["Check", 1])
