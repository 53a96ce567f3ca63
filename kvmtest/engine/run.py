# SPDX-License-Identifier: GPL-2.0-only
"""Run cases on a real KVM, one after the other, and yield what they say."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator

from kvmtest.checks import CHECKS, DEFAULT_EFFORT, Effort, Subject, Untestable
from kvmtest.engine.broadcast import Broadcast
from kvmtest.engine.catch import NEVER_RUN
from kvmtest.engine.cycle import Cycle
from kvmtest.engine.judge import judge_check
from kvmtest.engine.judging import Untried, judge_of
from kvmtest.engine.machine import Machine, Machines, SetupError
from kvmtest.engine.plan import Case, wanted
from kvmtest.engine.result import CaseTime, Host, Result
from kvmtest.engine.verdicts import Judging
from kvmtest.engine.vmm_reset import VmmReset
from kvmtest.guests import GuestMissing
from kvmtest.kvm import Kvm, KvmError, RunStopped
from kvmtest.state.inside import GuestStopped, PlantRefused
from kvmtest.state.snapshot import Unread
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


def _check(case: Case, machine: Machine, host: Host, timeout_s: float, effort: Effort) -> Result:
    """The result of a case's check. Raises what its observe() does."""
    check = CHECKS[f"{case.prefix}.{case.check}"]
    target = machine.target(case.target)
    if not check.alone:
        # Whatever an earlier case left: every piece of state is written, the local APIC back to xAPIC mode.
        target.plant("a", "xapic").write(target.vcpu)
    seen = check.observe(Subject(target.vcpu, case.setup.vendor, timeout_s, effort, host.backend))
    return judge_check(check, case.name, seen, host, case.setup.vendor)


def run_case(
    case: Case,
    machines: Machines,
    timeout_s: float = 1.0,
    effort: Effort = DEFAULT_EFFORT,
    judging: Judging = judge_of,
) -> Iterator[Result]:
    """Run one case and judge every item of it. What cannot be tried becomes ``skip``, what went wrong ``error``.

    ``judging`` takes the evidence, of all but checks.
    """
    host = machines.host
    ours: Machine | None = None
    try:
        machine, fresh = _machine(case, machines)
        ours = machine if fresh else None
        if case.check:
            yield _check(case, machine, host, timeout_s, effort)
        elif case.trigger == "broadcast" and case.view == "host":
            yield from Broadcast(case, machine, host, judging).run()
        elif case.trigger == "vmm-reset":
            yield from VmmReset(case, machine, host, timeout_s, judging).run()
        else:
            yield from Cycle(case, machine, host, timeout_s, judging).run()
    except (GuestMissing, PlantRefused, SetupError, Untestable) as error:
        yield from judging(case, host, ()).of(Untried("skip", str(error)))
    except (GuestStopped, KvmError, TriggerError, Unread) as error:
        # What went wrong may be in what is kept of it.
        machines.drop(case.setup)
        yield from judging(case, host, ()).of(Untried("error", str(error)))
    finally:
        if ours:
            ours.close()


def run(
    kvm: Kvm,
    host: Host,
    cases: list[Case],
    selectors: tuple[str, ...] = (),
    timeout_s: float = 1.0,
    started: Callable[[Case], None] | None = None,
    effort: Effort = DEFAULT_EFFORT,
    judging: Judging = judge_of,
) -> Generator[Result | CaseTime, None, None]:
    """Run ``cases``; yields the results that ``selectors`` take as they come, and a CaseTime behind each case's.

    ``timeout_s`` bounds each KVM_RUN, in seconds. ``started`` is told of each case before it runs. ``effort`` is for the checks
    that have rounds, ``judging`` as for run_case(). What this host cannot show at all is skipped once for each id and reason,
    not in every case. It ends in the middle of a case, whose results are dropped, when ``kvm.stop`` is set.
    """
    machines = Machines(kvm, host)
    absent: set[tuple[str, str]] = set()
    try:
        for case in cases:
            if started:
                started(case)
            begin = time.monotonic()
            for result in run_case(case, machines, timeout_s, effort, judging):
                if kvm.stop.seen:
                    return  # and what a case that was stopped says is none of its results
                if result.verdict == "skip" and result.observed is None:
                    if (result.id, result.reason) in absent:
                        continue
                    absent.add((result.id, result.reason))
                if wanted(selectors, result.id):
                    yield result
            yield CaseTime(case.name, time.monotonic() - begin)
    except RunStopped:
        pass
    finally:
        machines.close()
