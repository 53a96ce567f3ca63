# SPDX-License-Identifier: GPL-2.0-only
"""The catalogue of scenarios, one topic a file."""

from __future__ import annotations

from kvmtest.scenario.catalogue import (
    alone,
    apic,
    bounds,
    capabilities,
    control,
    creation,
    delivery,
    destinations,
    events,
    gif,
    hypercalls,
    hyperv,
    interrupts,
    memory,
    mp_state,
    paging,
    paravirt,
    refused,
    registers,
    restart,
    restored,
    reuse,
    rsm,
    same_id,
    smm,
    stress,
    svm,
    svm_events,
    svm_exits,
    svm_vmrun,
    tasks,
    timer,
    tsc,
    userspace,
    vmx,
    vmx_events,
)
from kvmtest.scenario.step import Scenario

__all__ = ("SCENARIOS",)

#: In the order of running.
_TOPICS = (
    *(creation, delivery, same_id, destinations, mp_state, restart, reuse, apic, registers, refused, events, userspace),
    *(interrupts, timer, tsc, bounds, restored, tasks, memory, paging, control, hypercalls, paravirt, hyperv, smm, rsm, gif),
    *(svm, svm_events, svm_exits, svm_vmrun, vmx, vmx_events, capabilities, alone, stress),
)

#: By the case's name without target and vendor.
SCENARIOS: dict[str, Scenario] = {
    f"{one.event}.{one.trigger}/{one.sequence}": one for topic in _TOPICS for one in topic.SCENARIOS
}
