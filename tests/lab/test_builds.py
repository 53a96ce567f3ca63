# SPDX-License-Identifier: GPL-2.0-only
"""Each line of KVM that is broken, or mended, has cases in the plan to show it."""

from __future__ import annotations

import pytest

from kvmtest.engine import plan
from tests.lab.counter import COUNTERS
from tests.lab.mutants import MUTANTS
from tests.lab.restored import RESTORED


@pytest.mark.parametrize("selector", sorted({one.selector for rows in (MUTANTS, RESTORED, COUNTERS) for one in rows}))
def test_a_selector_takes_cases(selector: str) -> None:
    assert plan.select(plan.plan(), (selector,))
