# SPDX-License-Identifier: GPL-2.0-only
"""A vCPU on a thread of its own, by one that is none."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from kvmtest.engine.running import Running
from kvmtest.kvm.alarm import SIGNAL


class _Vcpu:
    """A vCPU whose KVM_RUN notes what it is in."""

    id = 1

    def __init__(self, kvm: Any) -> None:
        self.vm = SimpleNamespace(kvm=kvm)
        self.ran: list[str] = []
        self.blocked: set[int] = set()

    def complete_io(self) -> None:
        self.ran.append("complete_io")

    def run(self, timeout_s: float, undisturbed: bool) -> str:
        self.ran.append("run")
        self.blocked = {int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, ())}
        return "an exit"

    def kick(self) -> None:
        pass

    unkick = kick


@pytest.mark.parametrize("fails", [False, True])
def test_what_the_thread_does_is_traced(fails: bool) -> None:
    threads = []

    @contextlib.contextmanager
    def traced() -> Iterator[None]:
        if fails:
            raise OSError(28, "No space left on device")
        threads.append(threading.current_thread().name)
        yield
        threads.append(",".join(vcpu.ran))

    vcpu = _Vcpu(SimpleNamespace(stop=SimpleNamespace(seen=False), traced=traced))
    running = Running(vcpu, 1.0)  # type: ignore[arg-type]
    if fails:
        with pytest.raises(OSError, match="No space left"):
            running.join(1.0)
    else:
        assert running.join(1.0) == "an exit"
        assert threads == ["vcpu 1", "complete_io,run"]


def test_no_signal_but_the_alarm_gets_the_vcpu_out_of_kvm_run() -> None:
    kvm = SimpleNamespace(stop=SimpleNamespace(seen=False), traced=contextlib.nullcontext)
    vcpu = _Vcpu(kvm)
    Running(vcpu, 1.0).join(1.0)  # type: ignore[arg-type]
    assert {signal.SIGINT, signal.SIGALRM, signal.SIGUSR1, signal.SIGCHLD} <= vcpu.blocked and SIGNAL not in vcpu.blocked
    # A signal raised by the thread's own instruction reaches its handler.
    assert not vcpu.blocked & {signal.SIGSEGV, signal.SIGBUS}
