# SPDX-License-Identifier: GPL-2.0-only
"""Machines are closed while the run goes on, and all of them."""

from __future__ import annotations

import os
import threading

import pytest

from kvmtest.engine import machine, plan
from kvmtest.engine.machine import Machine, Machines, SetupError
from kvmtest.engine.plan import Setup
from kvmtest.engine.run import run
from kvmtest.kvm import KvmError, Vm
from kvmtest.uapi.kvm import KVM_CAP_X2APIC_API

_SETUP = Setup("full", "intel")


def _open() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture(params=["one CPU", "two CPUs"])
def cpus(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    count = 1 if request.param == "one CPU" else 2
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(count)))
    return count


def test_a_run_leaves_no_descriptor_open(machines: Machines, cpus: int) -> None:
    cases = [case for case in plan.plan() if case.trigger == "create"][:20]
    assert len(cases) == 20
    before = _open()
    for _ in run(machines.kvm, machines.host, cases):
        pass
    assert _open() == before


def test_a_run_that_is_dropped_in_the_middle_leaves_none_either(machines: Machines, cpus: int) -> None:
    before = _open()
    steps = run(machines.kvm, machines.host, [case for case in plan.plan() if case.trigger == "create"])
    for _ in range(10):
        next(steps)
    steps.close()
    assert _open() == before
    assert not [thread for thread in threading.enumerate() if thread.name == "closer"]


def test_no_more_than_a_few_wait_to_be_closed(machines: Machines, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
    go, closed, dropped = threading.Event(), [], []
    real = Machine.close

    def close(self: Machine) -> None:
        go.wait(60)
        closed.append(self)
        real(self)

    monkeypatch.setattr(Machine, "close", close)
    mine = Machines(machines.kvm, machines.host)

    def drop() -> None:
        for _ in range(3 * machine._CLOSING):
            mine.release(mine.fresh(_SETUP))
            dropped.append(None)

    thread = threading.Thread(target=drop)
    thread.start()
    # The one that is being closed, and those that wait; the next one stops whoever drops it.
    thread.join(1.0)
    assert thread.is_alive() and len(dropped) <= machine._CLOSING + 1 and not closed
    go.set()
    thread.join(60)
    mine.close()
    assert len(closed) == 3 * machine._CLOSING and all(each.vm.closed for each in closed)


def test_what_goes_wrong_is_raised_at_the_end_and_the_others_are_closed(
    machines: Machines, cpus: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = Machines(machines.kvm, machines.host)
    made = [mine.fresh(_SETUP) for _ in range(3)]
    real = Machine.close

    def close(self: Machine) -> None:
        real(self)
        if self is made[0]:
            raise OSError(9, "made up")

    monkeypatch.setattr(Machine, "close", close)
    with pytest.raises(OSError, match="made up"):
        for each in made:
            mine.release(each)
        mine.close()
    mine.close()
    assert made[0].vm.closed
    assert cpus == 1 or all(each.vm.closed for each in made)
    for each in made:
        real(each)


def test_a_capability_that_is_refused_is_a_skip_unless_it_is_offered(machines: Machines, monkeypatch: pytest.MonkeyPatch) -> None:
    setup = _SETUP._replace(caps=((KVM_CAP_X2APIC_API, 1 << 30),))
    with pytest.raises(SetupError, match="EINVAL"):
        machines.fresh(setup)
    monkeypatch.setattr(Vm, "check_extension", lambda self, cap: 1 << 30 if cap == KVM_CAP_X2APIC_API else 0)
    with pytest.raises(KvmError):
        machines.fresh(setup)


def test_an_id_above_255_goes_into_a_plant(machines: Machines) -> None:
    """In xAPIC mode bits 7:0 of it are the APIC's id."""
    made = machines.fresh(_SETUP._replace(ids=(0, 256)))
    (lapic,) = [contents for section, _, contents in made.targets[1].plant("a", "xapic").writes(256) if section == "lapic"]
    made.close()
    assert lapic[0x20:0x24] == bytes(4)
