# SPDX-License-Identifier: GPL-2.0-only
"""Shards: disjoint, complete, the same wherever they are asked for, and of similar size."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmtest.engine import plan
from kvmtest.model.shard import Shard, ShardError

_OF = st.integers(1, 40)


def _every(of: int) -> list[Shard]:
    return [Shard.parse(f"{number}/{of}") for number in range(1, of + 1)]


@given(st.text(max_size=30), _OF)
def test_a_name_is_in_one_shard_alone(name: str, of: int) -> None:
    assert [shard.has(name) for shard in _every(of)].count(True) == 1


def test_where_a_case_is_was_decided_once_and_for_all() -> None:
    # Machines with other releases of Python, or of kvmtest, share the work, too.
    names = ("init.msi/ap,intel,xapic,plant-a", "reset.create/bsp,full-irqchip,intel", "a case")
    assert [[number for number in range(1, 8) if Shard((number,), 7).has(name)] for name in names] == [[6], [7], [5]]


@pytest.mark.parametrize("of", [2, 3, 8, 20])
def test_the_plan_is_shared_out_about_evenly_and_whatever_is_selected(of: int) -> None:
    cases = plan.plan()
    sizes = Counter(next(shard.numbers[0] for shard in _every(of) if shard.has(case.name)) for case in cases)
    assert len(sizes) == of and max(sizes.values()) < 1.4 * len(cases) / of
    some = plan.chosen(("init.msi",), False, ())
    for shard in _every(of):
        whole = {case for case in cases if shard.has(case.name)}
        assert {case for case in some if shard.has(case.name)} == whole & {*some}


@given(_OF, st.integers(1, 500))
def test_a_number_is_in_one_shard_alone(of: int, number: int) -> None:
    assert [shard.counts(number) for shard in _every(of)].count(True) == 1


@given(st.lists(st.integers(), min_size=1, max_size=9, unique=True), _OF)
def test_things_are_dealt_whole_or_in_parts_that_are_all_of_them(things: list[int], of: int) -> None:
    hands = [shard.deal(things) for shard in _every(of)]
    assert all(hands)
    for thing in things:
        parts = [part for hand in hands for one, part in hand if one == thing]
        assert parts in ([None], _every(len(parts)))


@given(st.sets(st.integers(1, 50), min_size=1), st.integers(50, 10_000))
def test_a_shard_comes_back_from_its_text(numbers: set[int], of: int) -> None:
    shard = Shard(tuple(sorted(numbers)), of)
    assert Shard.parse(str(shard)) == shard


_NONE = ("", "1", "0/4", "5/4", "1/0", "-1/4", "1/4/2", "2,1/4", "1,1/4", "1/10001", "\u0663/4", "1/4\n", " 1/4")


@pytest.mark.parametrize("text", _NONE)
def test_what_is_no_shard_is_refused(text: str) -> None:
    with pytest.raises(ShardError, match="is not I/N"):
        Shard.parse(text)
