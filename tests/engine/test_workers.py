# SPDX-License-Identifier: GPL-2.0-only
"""Cases in several processes: the same records in the same order, whatever becomes of a process."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kvmtest.engine import host, plan, run, workers
from kvmtest.engine.plan import Case
from kvmtest.engine.run import Done
from kvmtest.kvm import Kvm, Stop
from kvmtest.model.record import OUT_OF_TIME, Record
from kvmtest.model.verdict import Verdict
from kvmtest.spec.untouched import COUNTERS

#: Short cases of several setups, and in each view.
CASES = plan.chosen(("sipi.{msi,mp-state}/*", "init.latched/*,plant-{a,b}"))[:60]
FIRST, LAST = CASES[0], CASES[-1]


def _shown(done: Done) -> tuple[Any, ...]:
    """All that a case showed, but for what counts on by itself."""

    def bare(record: Record) -> Record:
        return record._replace(planted=None, expected=None, observed=None) if record.item in COUNTERS else record

    return done.case, [(*seen[:4], list(map(bare, seen.records))) for seen in done.seen]


def _alone(kvm: Kvm) -> list[Done]:
    return list(run.run(kvm, host.detect(), CASES))


@pytest.mark.parametrize("jobs", [2, 3])
def test_the_records_and_their_order_are_those_of_one_process(kvm: Kvm, jobs: int) -> None:
    begun: list[Case] = []
    done = list(workers.run_in(jobs, kvm, host.detect(), CASES, started=begun.append))
    assert begun == CASES == [one.case for one in done]
    assert list(map(_shown, done)) == list(map(_shown, _alone(kvm)))


def test_more_jobs_than_cases(kvm: Kvm) -> None:
    (done,) = workers.run_in(9, kvm, host.detect(), [FIRST])
    assert done.case == FIRST and done.seconds > 0
    assert any(record.verdict is Verdict.PASS for seen in done.seen for record in seen.records)


def _dying(monkeypatch: pytest.MonkeyPatch, cases: list[Case], die: Any) -> None:
    """Let each process that runs one of ``cases`` die in the middle of it."""
    real, parent = run.run_case, os.getpid()

    def run_case(case: Case, *rest: Any) -> Any:
        if case in cases:
            assert os.getpid() != parent
            die()
        return real(case, *rest)

    monkeypatch.setattr(run, "run_case", run_case)


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_process_that_is_killed_loses_its_case_alone(kvm: Kvm, monkeypatch: pytest.MonkeyPatch, jobs: int) -> None:
    expected = {done.case: _shown(done) for done in _alone(kvm)}
    bad = [CASES[0], CASES[20], CASES[21], CASES[-1]]
    _dying(monkeypatch, bad, lambda: os.kill(os.getpid(), signal.SIGKILL))
    done = list(workers.run_in(jobs, kvm, host.detect(), CASES))
    assert [one.case for one in done] == CASES
    for one in done:
        if one.case in bad:
            records = [record for seen in one.seen for record in seen.records]
            assert records and {record.verdict for record in records} == {Verdict.ERROR}
            assert {record.reason for record in records} == {"the process that ran it was killed by SIGKILL"}
            assert OUT_OF_TIME not in records[0].reason
            assert [seen.view for seen in one.seen] == [seen[3] for seen in expected[one.case][1]]
        else:
            assert _shown(one) == expected[one.case]


def test_every_process_dies(kvm: Kvm, monkeypatch: pytest.MonkeyPatch) -> None:
    _dying(monkeypatch, CASES, lambda: os._exit(7))
    done = list(workers.run_in(2, kvm, host.detect(), CASES[:5]))
    reasons = {record.reason for one in done for seen in one.seen for record in seen.records}
    assert [one.case for one in done] == CASES[:5] and reasons == {"the process that ran it ended with status 7"}


def test_a_fault_of_ours_ends_the_run(
    kvm: Kvm, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fault() -> None:
        raise LookupError("nothing there")

    _dying(monkeypatch, [CASES[9]], fault)
    with pytest.raises(RuntimeError, match="in a worker: LookupError: nothing there"):
        list(workers.run_in(2, kvm, host.detect(), CASES))
    assert "Traceback" in capfd.readouterr().err


def _children() -> list[int]:
    path = Path(f"/proc/self/task/{threading.get_native_id()}/children")
    return list(map(int, path.read_text().split()))


@pytest.fixture
def no_children() -> Iterator[None]:
    before = _children()
    yield
    assert _children() == before


@pytest.mark.usefixtures("no_children")
def test_stopped_it_shows_what_is_over(kvm: Kvm) -> None:
    kvm.stop = Stop()
    shown = []
    for done in workers.run_in(2, kvm, host.detect(), CASES):
        shown.append(done.case)
        kvm.stop.seen = len(shown) >= 5
    assert 5 <= len(shown) < len(CASES)
    numbers = list(map(CASES.index, shown))
    assert numbers == sorted(numbers) and numbers[:5] == list(range(5))


@pytest.mark.usefixtures("no_children")
def test_left_in_the_middle_it_leaves_no_process(kvm: Kvm) -> None:
    steps = workers.run_in(2, kvm, host.detect(), CASES)
    assert next(steps).case == FIRST
    steps.close()
