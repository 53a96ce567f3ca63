# SPDX-License-Identifier: GPL-2.0-only
"""A line that mends what an open deviation lists makes its record pass. Minutes: make nightly."""

from __future__ import annotations

from collections import Counter as Count
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import pytest

from kvmtest.model.record import Result
from kvmtest.model.select import takes
from kvmtest.model.verdict import Verdict
from kvmtest.spec.deviations.open import OPEN
from tests.lab.builds import modules_with, results
from tests.lab.counter import COUNTERS, Counter


def test_each_is_of_a_deviation_that_is_listed() -> None:
    assert {counter.commit for counter in COUNTERS} <= {deviation.commit for deviation in OPEN}
    assert len({(counter.file, counter.line) for counter in COUNTERS}) == len(COUNTERS)


@pytest.fixture(scope="module")
def modules() -> Path:
    """KVM's modules with all of the lines in them."""
    return modules_with(COUNTERS)


@cache
def _before(modules: Path, backend: str, parameters: str) -> list[Result]:
    """The results without any of them."""
    asked = [counter.selector for counter in COUNTERS if (counter.backend, counter.parameters) == (backend, parameters)]
    return results(modules, 0, asked, backend, parameters)


def _verdicts(counter: Counter, seen: Iterable[Result]) -> Count[Verdict]:
    return Count(result.verdict for result in seen if takes([counter.selector], result.id, result.case))


@pytest.mark.lab
@pytest.mark.nightly
@pytest.mark.parametrize(
    ("number", "counter"), list(enumerate(COUNTERS, 1)), ids=[f"{one.backend} {one.selector}" for one in COUNTERS]
)
def test_the_record_passes_with_it(number: int, counter: Counter, modules: Path) -> None:
    was = _verdicts(counter, _before(modules, counter.backend, counter.parameters))
    assert was[Verdict.KNOWN] and not was[Verdict.FAIL] + was[Verdict.ERROR]
    now = _verdicts(counter, results(modules, number, [counter.selector], counter.backend, counter.parameters))
    assert not now[Verdict.KNOWN] + now[Verdict.FAIL] + now[Verdict.ERROR]
    # A deviation that is listed, and not seen, is `fixed`, or passes where that happens anyway.
    assert now[Verdict.FIXED] + now[Verdict.PASS]
