# SPDX-License-Identifier: GPL-2.0-only
"""Each line of KVM that is broken, or mended, has cases in the plan to show it."""

from __future__ import annotations

import pytest

from kvmtest.engine import plan
from tests.lab.caught import BREAKS
from tests.lab.counter import COUNTERS


@pytest.mark.parametrize("selector", sorted({one.selector for one in (*BREAKS, *COUNTERS)}))
def test_a_selector_takes_cases(selector: str) -> None:
    assert plan.select(plan.plan(), (selector,))
