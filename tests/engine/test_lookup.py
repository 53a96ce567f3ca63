# SPDX-License-Identifier: GPL-2.0-only
"""Many selectors are looked up at once, and long ones are refused."""

from __future__ import annotations

import random

import pytest

from kvmtest.engine import plan
from kvmtest.engine.lookup import Lookup
from kvmtest.model.select import SelectorError


def test_each_of_many_selectors_takes_what_it_takes_alone() -> None:
    ids = plan.ids(plan.plan())
    asked = tuple(random.Random(1).sample(ids, 40)) + ("cr3", "init.msi.host/ap,*", "none")
    alone = {case for selector in asked for case in plan.chosen((selector,))}
    assert plan.chosen(asked) == [case for case in plan.plan() if case in alone]


def test_a_case_is_looked_at_once_for_all_selectors() -> None:
    cases, looked = plan.plan(), 0

    def looks(case: plan.Case) -> tuple[tuple[str, tuple[str, ...]], ...]:
        nonlocal looked
        looked += 1
        return plan.looks(case)

    found = Lookup(cases, looks, plan._matches)
    for number in range(500):
        found.taken(f"init.msi.host.cr{number % 5}")
    assert looked == len(cases)


def test_a_selector_longer_than_any_name_is_one_line() -> None:
    with pytest.raises(SelectorError) as error:
        plan.chosen(("a" * 1_000_000,))
    assert len(str(error.value)) < 300
    with pytest.raises(SelectorError) as error:
        plan.chosen(("a" * 900,))
    assert len(str(error.value)) < 400
