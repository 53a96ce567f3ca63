# SPDX-License-Identifier: GPL-2.0-only
"""Each state, event and trigger can fail: with one line of KVM broken, kvmtest says so by name. Minutes: make nightly."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from kvmtest.model.record import Result
from tests.lab import caught
from tests.lab.builds import modules_with
from tests.lab.caught import BREAKS, GROUPS
from tests.lab.mutants import Mutant


@cache
def _modules(group: str) -> Path:
    """KVM's modules with all breaks of a group in them."""
    return modules_with(GROUPS[group])


@cache
def _whole(group: str, backend: str) -> tuple[Result, ...]:
    """The failures without any of them, in all of their cases."""
    selectors = sorted({mutant.selector for mutant in GROUPS[group] if mutant.backend == backend})
    return tuple(caught.failures(_modules(group), 0, selectors, backend))


@pytest.mark.lab
@pytest.mark.nightly
@pytest.mark.parametrize("mutant", BREAKS, ids=lambda mutant: mutant.name)
def test_a_broken_line_is_caught_by_name(mutant: Mutant, capsys: pytest.CaptureFixture[str]) -> None:
    group, number = caught.number(mutant)
    failed = caught.failures(_modules(group), number, [mutant.selector], mutant.backend)
    showing = caught.catching(mutant, failed, _whole(group, mutant.backend))
    with capsys.disabled():
        first = showing[0] if showing else None
        shown = f"{first.selector}: {first.observed or first.reason}" if first else "not caught"
        print(f"\n{mutant.name:<30} {len(showing):5}/{len(failed):<5} {shown:.150}")
    assert showing, sorted({(result.id, result.case, result.observed or result.reason) for result in failed})[:20]
