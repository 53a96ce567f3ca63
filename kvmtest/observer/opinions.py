# SPDX-License-Identifier: GPL-2.0-only
"""Opinions out of judged logs: one an item, event and machine; a departure in any place is one of the machine."""

from __future__ import annotations

from collections.abc import Iterable

from kvmtest.model.host import NO_KVM, OBSERVER
from kvmtest.model.run import Run
from kvmtest.model.verdict import Verdict
from kvmtest.spec.opinions import Opinion

__all__ = ("opinions",)

#: Values that differ from run to run are left out.
_COUNTS = ("msr.tsc", "msr.tsc_adjust", "runs")


def opinions(runs: Iterable[Run]) -> tuple[Opinion, ...]:
    """The opinions of the machines without KVM among ``runs``."""
    found: dict[tuple[str, str, str, str], Opinion] = {}
    for run in runs:
        host = run.host
        if host.backend != NO_KVM or not host.lab or host.lab["kernel_source"] != OBSERVER:
            continue
        who = f"{host.name or host.cpu_model} ({host.accel})"
        for result in run.results:
            case = result.of.case
            if result.item in _COUNTS or result.event == "none" or not case:
                continue
            if result.verdict not in (Verdict.PASS, Verdict.FAIL):
                continue
            key = (result.item, result.event, str(case.get("vendor") or ""), who)
            if result.verdict is Verdict.FAIL:
                found[key] = Opinion(*key, result.observed or "", result.expected or "")
            else:
                found.setdefault(key, Opinion(*key))
    return tuple(found.values())
