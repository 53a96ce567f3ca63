# SPDX-License-Identifier: GPL-2.0-only
"""Run cases on a real KVM, one after the other, and yield what they say."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from typing import Any, NamedTuple

from kvmtest.checks import CHECKS, DEFAULT_EFFORT, Effort, Observation, Subject, Untestable
from kvmtest.engine.broadcast import Broadcast
from kvmtest.engine.catch import NEVER_RUN
from kvmtest.engine.cycle import Cycle
from kvmtest.engine.judge import judge_check
from kvmtest.engine.judging import Untried
from kvmtest.engine.machine import Machine, Machines, SetupError
from kvmtest.engine.plan import Case, wanted
from kvmtest.engine.result import FIRST_TRY, CaseTime, Host, Result
from kvmtest.engine.tries import Again, Settled, judge_tries, out_of_time, untried
from kvmtest.engine.verdicts import Judge, Judging
from kvmtest.engine.vmm_reset import VmmReset
from kvmtest.guests import GuestMissing
from kvmtest.kvm import Kvm, RunStopped
from kvmtest.state.inside import GuestStopped, PlantRefused
from kvmtest.state.snapshot import Unread
from kvmtest.triggers.error import TriggerError

__all__ = ("run", "run_case")


class _CheckJudge:
    """What a check saw as its one result."""

    def __init__(self, case: Case, host: Host) -> None:
        self._case = case
        self._host = host

    def of(self, seen: str | Observation) -> list[Result]:
        """The result."""
        case = self._case
        return [judge_check(CHECKS[f"{case.prefix}.{case.check}"], case.name, seen, self._host, case.setup.vendor)]


class _Runner(NamedTuple):
    """How each case is run."""

    machines: Machines
    timeout_s: float
    effort: Effort
    judging: Judging

    def attempt(self, case: Case, alone: bool = False) -> tuple[Judge, Any]:
        """Run ``case``: what judges it, and what was seen. ``alone`` is on a machine that nothing has happened to."""
        ours: Machine | None = None
        try:
            if alone or _needs_fresh(case):
                machine = ours = self.machines.fresh(case.setup)
            else:
                machine = self.machines.kept(case.setup)
            return self._observe(case, machine)
        except (GuestMissing, PlantRefused, SetupError, Untestable) as error:
            seen = Untried("skip", str(error))
        except (GuestStopped, OSError, TriggerError, Unread) as error:  # KvmError, RunTimeout, and no descriptor or timer left
            seen = untried(error)
            self.machines.drop(case.setup)
        finally:
            if ours:
                self.machines.release(ours)
        return self.judging(case, self.machines.host, ()), seen

    def _observe(self, case: Case, machine: Machine) -> tuple[Judge, Any]:
        host = self.machines.host
        if case.check:
            return Settled(_CheckJudge(case, host)), self._check(case, machine)
        made: Broadcast | VmmReset | Cycle
        if case.trigger == "broadcast" and case.view == "host":
            made = Broadcast(case, machine, host, self.judging)
        elif case.trigger == "vmm-reset":
            made = VmmReset(case, machine, host, self.timeout_s, self.judging)
        else:
            made = Cycle(case, machine, host, self.timeout_s, self.judging)
        return made.judge, made.observe()

    def _check(self, case: Case, machine: Machine) -> str | Observation:
        """What the case's check saw. Raises what its observe() does."""
        check = CHECKS[f"{case.prefix}.{case.check}"]
        target = machine.target(case.target)
        if not check.alone:
            # Whatever an earlier case left: every piece of state is written, the local APIC back to xAPIC mode.
            target.plant("a", "xapic").write(target.vcpu)
        return check.observe(Subject(target.vcpu, case.setup.vendor, self.timeout_s, self.effort, self.machines.host.backend))


def _needs_fresh(case: Case) -> bool:
    """Whether a case needs a machine that nothing has happened to."""
    if case.check:
        return CHECKS[f"{case.prefix}.{case.check}"].alone
    # RESET by KVM happens once in a vCPU's life, and the guest's report of a new vCPU is what a later one is held against.
    return case.event == "reset" and (case.trigger == "create" or case.setup.memory) or case.state == NEVER_RUN


def run_case(
    case: Case,
    machines: Machines,
    timeout_s: float = 1.0,
    effort: Effort = DEFAULT_EFFORT,
    judging: Judging = judge_tries,
) -> Iterator[Result]:
    """Run one case and judge every item of it. What cannot be tried becomes ``skip``, what went wrong ``error``.

    One that runs out of time is tried once more, alone. ``judging`` takes the evidence, of all but checks.
    """
    runner = _Runner(machines, timeout_s, effort, judging)
    judge, seen = runner.attempt(case)
    if out_of_time(seen):
        machines.drop(case.setup)
        judge, seen = runner.attempt(case, alone=True)
        if not out_of_time(seen):
            seen = Again(seen, f"no exit within {timeout_s:g} s {FIRST_TRY}")
    yield from judge.of(seen)


def run(
    kvm: Kvm,
    host: Host,
    cases: list[Case],
    selectors: tuple[str, ...] = (),
    timeout_s: float = 1.0,
    started: Callable[[Case], None] | None = None,
    effort: Effort = DEFAULT_EFFORT,
    judging: Judging = judge_tries,
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
