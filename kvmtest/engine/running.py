# SPDX-License-Identifier: GPL-2.0-only
"""A vCPU in KVM_RUN on a thread of its own, which nothing but KVM wakes."""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path

from kvmtest.kvm import Exit, RunStopped, RunTimeout, Vcpu
from kvmtest.kvm.alarm import SIGNAL, TICK_S
from kvmtest.uapi.kvm import KVM_RUN

__all__ = ("Running",)

#: Between two looks.
_LOOK_S = 0.0005
#: More CPU time than a thread needs on its way into KVM_RUN, and how /proc shows that it sleeps there: ioctl and its request.
_STARTED_NS, _IN_KVM_RUN = 20_000_000, ["16", f"{KVM_RUN:#x}"]


#: Signals that an instruction of the thread itself raises.
_OWN = {signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGTRAP, signal.SIGSYS, SIGNAL}


def _used_ns(task: Path) -> int:
    return int((task / "schedstat").read_text().split()[0])


class Running:
    """A vCPU in KVM_RUN on a thread of its own."""

    def __init__(self, vcpu: Vcpu, timeout_s: float) -> None:
        self.vcpu, self._timeout_s = vcpu, timeout_s
        self.exit: Exit | None = None
        self.error: BaseException | None = None
        self._entering = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"vcpu {vcpu.id}")
        self._thread.start()
        self._until_halted()

    def _run(self) -> None:
        # A signal to the process that this thread took would end KVM_RUN, and the next one wakes what KVM has failed to wake.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals() - _OWN)
        try:
            # A thread's first KVM_RUN waits for RCU (kvm_vcpu_ioctl()), asleep before the guest runs.
            with self.vcpu.vm.kvm.traced():
                self.vcpu.complete_io()
                self._entering.set()
                self.exit = self.vcpu.run(self._timeout_s, undisturbed=True)
        except BaseException as error:  # for who joins
            self.error = error
            self._entering.set()

    def _until_halted(self) -> None:
        """Wait until the thread sleeps in KVM_RUN, or runs the guest: a vCPU that gets an event earlier needs no wake-up."""
        task = Path(f"/proc/self/task/{self._thread.native_id}")
        self._entering.wait()
        try:
            end = _used_ns(task) + _STARTED_NS
            while (task / "syscall").read_text().split()[::2][:2] != _IN_KVM_RUN and _used_ns(task) < end:
                time.sleep(_LOOK_S)
        except OSError:  # it has ended, or this kernel does not show it
            pass

    def join(self, timeout_s: float | None) -> Exit | None:
        """The exit; None where none came in ``timeout_s`` seconds, after which the vCPU is out of KVM_RUN all the same."""
        stop = self.vcpu.vm.kvm.stop
        if timeout_s is None:
            while self._thread.is_alive() and not stop.seen:
                self._thread.join(TICK_S)
        else:
            self._thread.join(timeout_s)
        kicked = self._thread.is_alive()
        if kicked:
            self.vcpu.kick()
        self._thread.join()
        self.vcpu.unkick()
        if stop.seen and timeout_s is None:
            raise RunStopped
        if isinstance(self.error, RunTimeout):
            return None
        if self.error:
            raise self.error
        return None if kicked else self.exit
