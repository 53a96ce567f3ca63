# SPDX-License-Identifier: GPL-2.0-only
"""Each state, event and road can fail: with one line of KVM broken, kvmtest says so by name. Minutes: make nightly."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from kvmtest.lab import kernels
from kvmtest.lab.cell import Cell
from kvmtest.lab.error import LabError
from kvmtest.lab.steps import Spec
from kvmtest.model.record import Result
from kvmtest.model.select import takes
from kvmtest.model.verdict import Verdict
from tests.lab.builds import build, chosen
from tests.lab.mutants import MUTANTS, Mutant

pytestmark = [pytest.mark.lab, pytest.mark.nightly]

_KERNEL = "bookworm"


@pytest.fixture(scope="module")
def modules() -> Path:
    """KVM's modules with all mutants in them."""
    try:
        kernel = kernels.find(_KERNEL)
    except LabError as error:
        pytest.skip(str(error))
    return build(kernel, chosen(MUTANTS))


def unexpected(modules: Path, number: int, selectors: Iterable[str]) -> list[Result]:
    """What fails in a cell with this mutant."""
    spec = Spec("svm", kernels.find(_KERNEL), tuple(selectors), own_modules=str(modules), parameters={"kvm": f"mutant={number}"})
    cell = Cell(spec)
    try:
        cell.emulator.check()
    except LabError as error:
        pytest.skip(str(error))
    seen = [result for step in cell.steps() if isinstance(step, list) for one in step for result in one.results]
    assert len(seen) > 0
    return [result for result in seen if result.verdict in (Verdict.FAIL, Verdict.ERROR)]


@pytest.fixture(scope="module")
def whole(modules: Path) -> list[Result]:
    """What fails with none of the mutants, in all of their cases."""
    return unexpected(modules, 0, sorted({mutant.selector for mutant in MUTANTS}))


def catching(mutant: Mutant, results: Iterable[Result]) -> list[Result]:
    of_it = [result for result in results if takes([mutant.selector], result.id, result.case)]
    return [result for result in of_it if fnmatchcase(result.observed or result.reason, mutant.shown)]


@pytest.mark.parametrize(("number", "mutant"), list(enumerate(MUTANTS, 1)), ids=[mutant.name for mutant in MUTANTS])
def test_a_broken_line_is_caught_by_name(
    number: int, mutant: Mutant, modules: Path, whole: list[Result], capsys: pytest.CaptureFixture[str]
) -> None:
    assert not catching(mutant, whole), "a KVM that is whole shows it, too"
    results = unexpected(modules, number, [mutant.selector])
    caught = catching(mutant, results)
    with capsys.disabled():
        first = caught[0] if caught else None
        shown = f"{first.selector}: {first.observed or first.reason}" if first else "not caught"
        print(f"\n{mutant.name:<30} {len(caught):5}/{len(results):<5} {shown:.150}")
    assert caught, sorted({(result.id, result.case, result.observed or result.reason) for result in results})[:20]
