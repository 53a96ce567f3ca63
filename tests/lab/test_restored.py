# SPDX-License-Identifier: GPL-2.0-only
"""With one line of KVM broken that a VMM's restore uses, a named case fails. Minutes: make nightly."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.lab import test_mutants as others
from tests.lab.builds import modules_with
from tests.lab.mutants import Mutant
from tests.lab.restored import RESTORED


@pytest.fixture(scope="module")
def modules() -> Path:
    """KVM's modules with all of these in them."""
    return modules_with(RESTORED)


@pytest.mark.lab
@pytest.mark.nightly
@pytest.mark.parametrize(("number", "mutant"), list(enumerate(RESTORED, 1)), ids=[mutant.name for mutant in RESTORED])
def test_a_broken_line_is_caught_by_name(number: int, mutant: Mutant, modules: Path) -> None:
    whole = others.catching(mutant, others.unexpected(modules, 0, [mutant.selector]))
    broken = others.catching(mutant, others.unexpected(modules, number, [mutant.selector]))
    known = {(result.id, result.case) for result in whole}
    assert any((result.id, result.case) not in known for result in broken), mutant.shown
