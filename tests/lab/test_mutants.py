# SPDX-License-Identifier: GPL-2.0-only
"""Each state, event and trigger can fail: with one line of KVM broken, kvmtest says so by name. Minutes: make nightly."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from kvmtest.model.record import Result
from kvmtest.model.select import takes
from kvmtest.model.verdict import Verdict
from tests.lab.builds import modules_with, results
from tests.lab.mutants import MUTANTS, Mutant

pytestmark = [pytest.mark.lab, pytest.mark.nightly]


@pytest.fixture(scope="module")
def modules() -> Path:
    """KVM's modules with all mutants in them."""
    return modules_with(MUTANTS)


def unexpected(modules: Path, number: int, selectors: Iterable[str]) -> list[Result]:
    """Return the failures in a cell with this mutant."""
    seen = results(modules, number, selectors)
    return [result for result in seen if result.verdict in (Verdict.FAIL, Verdict.ERROR)]


@pytest.fixture(scope="module")
def whole(modules: Path) -> list[Result]:
    """The failures without any of the mutants, in all of their cases."""
    return unexpected(modules, 0, sorted({mutant.selector for mutant in MUTANTS}))


def catching(mutant: Mutant, seen: Iterable[Result]) -> list[Result]:
    of_it = [result for result in seen if takes([mutant.selector], result.id, result.case)]
    return [result for result in of_it if fnmatchcase(result.observed or result.reason, mutant.shown)]


@pytest.mark.parametrize(("number", "mutant"), list(enumerate(MUTANTS, 1)), ids=[mutant.name for mutant in MUTANTS])
def test_a_broken_line_is_caught_by_name(
    number: int, mutant: Mutant, modules: Path, whole: list[Result], capsys: pytest.CaptureFixture[str]
) -> None:
    assert not catching(mutant, whole), "a KVM that is whole shows it, too"
    failed = unexpected(modules, number, [mutant.selector])
    caught = catching(mutant, failed)
    with capsys.disabled():
        first = caught[0] if caught else None
        shown = f"{first.selector}: {first.observed or first.reason}" if first else "not caught"
        print(f"\n{mutant.name:<30} {len(caught):5}/{len(failed):<5} {shown:.150}")
    assert caught, sorted({(result.id, result.case, result.observed or result.reason) for result in failed})[:20]
