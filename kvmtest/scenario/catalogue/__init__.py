# SPDX-License-Identifier: GPL-2.0-only
"""The catalogue of scenarios, one topic a file."""

from __future__ import annotations

from kvmtest.scenario.catalogue import (
    apic,
    creation,
    delivery,
    gif,
    interrupts,
    memory,
    mp_state,
    paging,
    restart,
    smm,
    stress,
    svm,
    timer,
    vmx,
)
from kvmtest.scenario.step import Scenario

__all__ = ("SCENARIOS",)

#: By the case's name without target and vendor, in the order of running.
SCENARIOS: dict[str, Scenario] = {
    f"{one.event}.{one.trigger}/{one.sequence}": one
    for topic in (creation, delivery, mp_state, restart, apic, interrupts, timer, memory, paging, smm, gif, svm, vmx, stress)
    for one in topic.SCENARIOS
}
