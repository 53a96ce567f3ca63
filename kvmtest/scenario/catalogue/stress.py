# SPDX-License-Identifier: GPL-2.0-only
"""vCPUs that send INIT-SIPI-SIPI to each other, round after round. A measurement, not a list of steps."""

from __future__ import annotations

from kvmtest.scenario import step as s
from kvmtest.scenario.program import MEASUREMENTS
from kvmtest.scenario.step import Scenario
from kvmtest.spec.cite import A_INIT_IPI, S_MP, SDM_SIPI

__all__ = ("SCENARIOS",)

#: Of each INIT-SIPI-SIPI there is one arrival, where it was sent to.
_EACH_ONCE = s.Do("arrivals", tuple((item, 0) for item in MEASUREMENTS["arrivals"]))

SCENARIOS = (Scenario("sipi", "icr-x2apic", "stress", (_EACH_ONCE,), (S_MP, SDM_SIPI, A_INIT_IPI)),)
