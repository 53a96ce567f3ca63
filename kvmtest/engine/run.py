# SPDX-License-Identifier: GPL-2.0-only
"""Run cases on a real KVM, one after the other, and yield what they say."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable
from functools import partial
from typing import Any, NamedTuple

from kvmtest.engine.bind import BoundCase, Unmet
from kvmtest.engine.error import TriggerError
from kvmtest.engine.machine import Machine, Machines, SetupError
from kvmtest.engine.plan import Case
from kvmtest.engine.vmm_reset import VmmReset
from kvmtest.guests import GuestMissing
from kvmtest.judge.cache import Cache
from kvmtest.judge.cases import Judging, judge
from kvmtest.judge.evidence import Again, Basis, Played, Untried
from kvmtest.judge.tries import lacks, untried
from kvmtest.kvm import Kvm, RunStopped
from kvmtest.model.host import Host
from kvmtest.model.record import FIRST_TRY, Observation
from kvmtest.scenario.program import DEFAULT_ROUNDS, StressRounds
from kvmtest.state.inside import GuestStopped, PlantRefused
from kvmtest.state.snapshot import Unread

__all__ = ("Done", "run", "run_case")


class Done(NamedTuple):
    """A finished case: its evidence, and the ``seconds`` that it took."""

    case: Case
    seen: list[Observation]
    seconds: float


#: The facts about the vCPUs before a case runs, and its evidence.
_Seen = tuple[tuple[Basis, ...], Any]


class _Runner(NamedTuple):
    """The machines and limits that each case is run with."""

    machines: Machines
    timeout_s: float
    stress_rounds: StressRounds

    def attempt(self, case: Case, alone: bool = False) -> _Seen:
        """Run ``case``; ``alone`` is on a machine that nothing has happened to."""
        ours: Machine | None = None
        try:
            if alone or _needs_fresh(case):
                machine = ours = self.machines.fresh(case.setup)
            else:
                machine = self.machines.kept(case.setup)
            bases, seen = self._observe(case, machine)
            if isinstance(seen, Played) and seen.end:
                # Cut short: whatever would have ended a state was not done.
                self.machines.drop(case.setup)
            return bases, seen
        except (GuestMissing, PlantRefused, SetupError, Unmet) as error:
            return (), Untried("skip", str(error))
        except (GuestStopped, OSError, TriggerError, Unread) as error:  # KvmError, RunTimeout, and no descriptor or timer left
            self.machines.drop(case.setup)
            return (), untried(error)
        except (ArithmeticError, AssertionError, LookupError, TypeError, ValueError) as error:
            if not case.given:
                raise
            # Steps of a user's that cannot be done one after the other: nothing that ends the run.
            return (), Untried("error", f"the scenario cannot be run: {error or type(error).__name__}")
        finally:
            if ours:
                self.machines.release(ours)

    def _observe(self, case: Case, machine: Machine) -> _Seen:
        host = self.machines.host
        made: VmmReset | BoundCase
        if case.scenario:
            made = BoundCase(case, machine, host, self.timeout_s, self.stress_rounds)
        else:
            made = VmmReset(case, machine, host, self.timeout_s)
        return made.bases, made.observe()


def _needs_fresh(case: Case) -> bool:
    """Return True if a case needs a machine that no other case has used."""
    if scenario := case.scenario:
        return scenario.fresh
    # The guest's report on a new vCPU is compared with its later report.
    return case.view == "guest"


def run_case(
    case: Case,
    machines: Machines,
    timeout_s: float = 1.0,
    stress_rounds: StressRounds = DEFAULT_ROUNDS,
    judging: Judging | None = None,
) -> list[Observation]:
    """Run one case; ``judging`` gets the evidence. What cannot be tried becomes ``skip``, what went wrong ``error``.

    One that runs out of time, or stops for what an earlier guest did, is tried once more, alone.
    """
    runner = _Runner(machines, timeout_s, stress_rounds)
    bases, seen = runner.attempt(case)
    if first := lacks(seen, machines.host, timeout_s):
        machines.drop(case.setup)
        bases, seen = runner.attempt(case, alone=True)
        if not lacks(seen, machines.host, timeout_s):
            seen = Again(seen, f"{first} {FIRST_TRY}")
    return (judging or partial(judge, Cache()))(case.look(), machines.host, bases, seen)


def run(
    kvm: Kvm,
    host: Host,
    cases: Iterable[Case],
    timeout_s: float = 1.0,
    started: Callable[[Case], None] | None = None,
    stress_rounds: StressRounds = DEFAULT_ROUNDS,
    judging: Judging | None = None,
) -> Generator[Done, None, None]:
    """Run ``cases``, and yield what each of them showed.

    ``timeout_s`` bounds each KVM_RUN, in seconds. ``started`` is called with each case before it runs. ``stress_rounds`` is for
    the stress case. ``judging`` judges the evidence, or passes it on. When ``kvm.stop`` is set, the current case is dropped, and
    the run ends.
    """
    machines = Machines(kvm, host)
    judging = judging or partial(judge, Cache())
    try:
        for case in cases:
            if started:
                started(case)
            begin = time.monotonic()
            seen = run_case(case, machines, timeout_s, stress_rounds, judging)
            if kvm.stop.seen:
                return
            yield Done(case, seen, time.monotonic() - begin)
    except RunStopped:
        pass
    finally:
        machines.close()
