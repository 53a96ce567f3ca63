# SPDX-License-Identifier: GPL-2.0-only
"""Run cases on a real KVM, one after the other, and yield what they say."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator

from kvmtest import spec
from kvmtest.checks import CHECKS, DEFAULT_EFFORT, Effort, Subject, Untestable
from kvmtest.engine.broadcast import Broadcast
from kvmtest.engine.catch import NEVER_RUN
from kvmtest.engine.cycle import Cycle
from kvmtest.engine.judge import BOTH_VIEWS, judge_check
from kvmtest.engine.machine import Machine, Machines, SetupError
from kvmtest.engine.plan import BROADCAST, Case, items, views, wanted
from kvmtest.engine.result import CaseTime, Host, Result
from kvmtest.engine.verdicts import Judging, Verdicts
from kvmtest.engine.vmm_reset import AS_NEW, VmmReset
from kvmtest.guests import GuestMissing
from kvmtest.kvm import Kvm, KvmError
from kvmtest.state.inside import GuestStopped, PlantRefused
from kvmtest.triggers.error import TriggerError

__all__ = ("run", "run_case")


def _machine(case: Case, machines: Machines) -> tuple[Machine, bool]:
    """The machine for a case, and whether it is to be closed after it."""
    if case.check:
        fresh = CHECKS[f"{case.prefix}.{case.check}"].alone
    else:
        # RESET by KVM happens once in a vCPU's life, and the guest's report of a new vCPU is what a later one is held against.
        fresh = case.event == "reset" and (case.trigger == "create" or case.setup.memory) or case.state == NEVER_RUN
    if fresh:
        return machines.fresh(case.setup), True
    return machines.kept(case.setup), False


def _all(case: Case, host: Host, verdict: str, reason: str) -> Iterator[Result]:
    """The same verdict for every item of a case that could not be run to its end."""
    for of_view in views(case):
        for item in items(of_view):
            where = (f"{of_view.prefix}.{item}", case.event, case.trigger, of_view.view, item, of_view.name)
            yield Result(*where, None, None, None, verdict, reason, _cite(of_view, item, host), None)


def _cite(case: Case, item: str, host: Host) -> tuple[str, ...]:
    if case.check:
        return CHECKS[f"{case.prefix}.{item}"].cite
    if case.view == "views":
        return (BOTH_VIEWS,)
    if item in BROADCAST:
        return BROADCAST[item]
    if case.trigger == "vmm-reset":
        return AS_NEW
    return spec.rule_for(item, case.event, case.setup.vendor or "intel", host.backend).cite


def _check(case: Case, machine: Machine, host: Host, timeout_s: float, effort: Effort) -> Iterator[Result]:
    check = CHECKS[f"{case.prefix}.{case.check}"]
    target = machine.target(case.target)
    if not check.alone:
        # Whatever an earlier case left: every piece of state is written, the local APIC back to xAPIC mode.
        target.plant("a", "xapic").write(target.vcpu)
    try:
        seen = check.observe(Subject(target.vcpu, case.setup.vendor, timeout_s, effort, host.backend))
    except Untestable as error:
        yield from _all(case, host, "skip", str(error))
        return
    yield judge_check(check, case.name, seen, host, case.setup.vendor)


def run_case(
    case: Case,
    machines: Machines,
    timeout_s: float = 1.0,
    effort: Effort = DEFAULT_EFFORT,
    judging: Judging = Verdicts,
) -> Iterator[Result]:
    """Run one case and judge every item of it. What cannot be tried becomes ``skip``, what went wrong ``error``.

    ``judging`` takes what a case on one vCPU showed; what is worst of many is judged here.
    """
    try:
        machine, ours = _machine(case, machines)
    except (SetupError, KvmError) as error:
        yield from _all(case, machines.host, "skip" if isinstance(error, SetupError) else "error", str(error))
        return
    try:
        if case.check:
            yield from _check(case, machine, machines.host, timeout_s, effort)
        elif case.trigger == "broadcast" and case.view == "host":
            yield from Broadcast(case, machine, machines.host).run()
        elif case.trigger == "vmm-reset":
            yield from VmmReset(case, machine, machines.host, timeout_s).run()
        else:
            yield from Cycle(case, machine, machines.host, timeout_s, judging).run()
    except (GuestMissing, PlantRefused) as error:
        yield from _all(case, machines.host, "skip", str(error))
    except (GuestStopped, KvmError, TriggerError) as error:
        yield from _all(case, machines.host, "error", str(error))
    finally:
        if ours:
            machine.close()


def run(
    kvm: Kvm,
    host: Host,
    cases: list[Case],
    selectors: tuple[str, ...] = (),
    timeout_s: float = 1.0,
    started: Callable[[Case], None] | None = None,
    effort: Effort = DEFAULT_EFFORT,
    judging: Judging = Verdicts,
) -> Generator[Result | CaseTime, None, None]:
    """Run ``cases``; yields the results that ``selectors`` take as they come, and a CaseTime behind each case's.

    ``timeout_s`` bounds each KVM_RUN, in seconds. ``started`` is told of each case before it runs. ``effort`` is for the checks
    that have rounds, ``judging`` as for run_case(). What this host cannot show at all is skipped once for each id and reason,
    not in every case.
    """
    machines = Machines(kvm, host)
    absent: set[tuple[str, str]] = set()
    try:
        for case in cases:
            if started:
                started(case)
            begin = time.monotonic()
            for result in run_case(case, machines, timeout_s, effort, judging):
                if result.verdict == "skip" and result.observed is None:
                    if (result.id, result.reason) in absent:
                        continue
                    absent.add((result.id, result.reason))
                if wanted(selectors, result.id):
                    yield result
            yield CaseTime(case.name, time.monotonic() - begin)
    finally:
        machines.close()
