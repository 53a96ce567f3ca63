# SPDX-License-Identifier: GPL-2.0-only
"""Several records become one: the worst, with where it was seen."""

from __future__ import annotations

import pytest

from kvmtest.judge.cache import Cache
from kvmtest.judge.many import merged, ranges
from kvmtest.model.record import Block, Record
from kvmtest.model.value import Expected
from kvmtest.model.verdict import VERDICTS, Verdict


def _record(verdict: str, reason: str = "", observed: int = 0) -> Record:
    return Record("cr3", Verdict(verdict), 1, Expected((0,)), observed, reason, ("SDM",))


def _merged(*records: Record) -> Record:
    cache = Cache()
    (block,) = merged("vcpus", range(1, len(records) + 1), [(cache.block((record,)),) for record in records], cache)
    (record,) = block.records
    return record


def test_ids_that_follow_each_other_are_a_range() -> None:
    assert ranges([1, 2, 3, 7, 9, 10]) == "1-3, 7, 9-10"
    assert ranges(["sregs first", "msrs first"]) == "sregs first, msrs first"


@pytest.mark.parametrize("verdict", VERDICTS)
def test_any_verdict_is_worse_than_a_pass_and_none_than_a_fail(verdict: Verdict) -> None:
    assert _merged(_record("pass"), _record(verdict, "why")).verdict is verdict
    assert _merged(_record(verdict), _record("fail", "why")).verdict is Verdict.FAIL


def test_one_that_differs_is_named() -> None:
    found = _merged(_record("pass"), _record("pass"), _record("fail", observed=1), _record("pass"))
    assert (found.verdict, found.observed, found.reason) == ("fail", 1, "vcpus 3 of 4")
    found = _merged(_record("skip", "the plant was refused"), _record("pass"))
    assert (found.verdict, found.reason) == ("skip", "vcpus 1 of 2: the plant was refused")


def test_what_is_the_same_everywhere_is_said_as_it_is() -> None:
    assert _merged(_record("fail"), _record("fail")) == _record("fail")


def test_a_block_that_all_share_is_not_looked_into() -> None:
    block = Block((_record("fail"),))
    assert merged("vcpus", [1, 2], [(block,), (block,)], Cache()) == (block,)


def test_each_item_of_a_block_has_its_own_worst() -> None:
    cr3, wrong, right = _record("pass"), _record("fail")._replace(item="dr6"), _record("pass")._replace(item="dr6")
    cache = Cache()
    seen = [(cache.block((cr3, dr6)),) for dr6 in (wrong, wrong, right)]
    (block,) = merged("vcpus", [1, 2, 3], seen, cache)
    assert [(r.item, r.verdict, r.reason) for r in block.records] == [("cr3", "pass", ""), ("dr6", "fail", "vcpus 1-2 of 3")]
