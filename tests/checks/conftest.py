# SPDX-License-Identifier: GPL-2.0-only
"""Runs one check as the engine does, on this host's KVM."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from kvmtest.checks import DEFAULT_EFFORT, Effort
from kvmtest.engine import plan
from kvmtest.engine.machine import Machines
from kvmtest.model.record import Result
from tests.cases import ran

Judge = Callable[..., Result]


@pytest.fixture
def judged(machines: Machines) -> Judge:
    """The result of the check with an id, in the case of a vendor."""

    def judge(id: str, vendor: str = "intel", timeout_s: float = 1.0, effort: Effort = DEFAULT_EFFORT) -> Result:
        cases = [c for c in plan.plan() if c.check and f"{c.prefix}.{c.check}" == id and c.setup.vendor == vendor]
        (result,) = ran(cases[0], machines, timeout_s, effort)
        return result

    return judge
