# SPDX-License-Identifier: GPL-2.0-only
"""Time limits: what a thread waits for a CPU does not count, and what a vCPU does not do while it is halted does."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from time import monotonic

import pytest

from kvmtest.kvm import RunStopped, RunTimeout, Stop, Vm
from kvmtest.kvm import clock as clock_module
from kvmtest.kvm.clock import Limit
from tests.kvm.test_run import HLT, SPIN, boot

HERE = f"/proc/self/task/{threading.get_native_id()}/schedstat"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Now, and what was waited until now; the test's to set."""
    times = [100.0, 5.0]
    monkeypatch.setattr(clock_module, "monotonic", lambda: times[0])
    monkeypatch.setattr(Limit, "_wait", lambda self: times[1])
    return times


def test_waiting_for_a_cpu_is_not_counted(clock: list[float]) -> None:
    limit = Limit(1.0)
    assert limit.left() == 1.0
    clock[:] = 101.5, 6.2
    assert limit.left() == pytest.approx(0.7)
    clock[:] = 102.2, 6.2
    assert limit.left() <= 0


def test_without_waiting_it_is_wall_time(clock: list[float]) -> None:
    limit = Limit(1.0)
    clock[0] = 100.9
    assert limit.left() == pytest.approx(0.1)
    clock[0] = 101.0
    assert limit.left() <= 0


def test_a_kernel_that_does_not_count_it_gives_wall_time(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(path: str, flags: int) -> int:
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(clock_module.os, "open", missing)
    assert Limit(-1.0).left() <= 0 and Limit(1000.0).left() > 900


@pytest.fixture
def busy() -> Iterator[None]:
    """This thread and four that spin share one CPU."""
    if not os.path.exists(HERE):
        pytest.skip("a kernel without CONFIG_SCHED_INFO")
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(4)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()
        os.sched_setaffinity(0, before)


def _waited() -> float:
    with open(HERE) as file:
        return int(file.read().split()[1]) / 1e9


@pytest.mark.parametrize("guest", [SPIN, HLT], ids=["spins", "halts"])
@pytest.mark.parametrize("timeout_s", [0.05, 0.3])
def test_a_busy_cpu_takes_no_time_from_a_vcpu(guest: bytes, timeout_s: float, vm_irqchip: Vm, busy: None) -> None:
    """One that is halted needs no CPU, and its time passes all the same."""
    vcpu = boot(vm_irqchip, guest)
    begin, waited = monotonic(), _waited()
    with pytest.raises(RunTimeout):
        vcpu.run(timeout_s)
    assert monotonic() - begin - (_waited() - waited) > 0.6 * timeout_s


def test_a_stop_ends_every_run(vm: Vm) -> None:
    vcpu = boot(vm, SPIN)
    vm.kvm.stop = Stop()
    threading.Timer(0.02, lambda: setattr(vm.kvm.stop, "seen", True)).start()
    with pytest.raises(RunStopped):
        vcpu.run(3000)
    with pytest.raises(RunStopped):
        vcpu.run(3000)
    vm.kvm.stop = Stop()
    with pytest.raises(RunTimeout):
        vcpu.run(0.01)
