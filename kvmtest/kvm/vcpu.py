# SPDX-License-Identifier: GPL-2.0-only
"""One vCPU: running it, and sending things to it. Sections named are those of Documentation/virt/kvm/api.rst."""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Iterable
from ctypes import byref, create_string_buffer
from fcntl import F_DUPFD_CLOEXEC, fcntl
from signal import SIGINT
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING

from ..uapi.consts import KVM_EXIT_INTR, KVM_EXIT_IO, KVM_EXIT_MMIO, KVM_GUESTDBG_ENABLE
from ..uapi.ioctls import (
    KVM_ENABLE_CAP,
    KVM_GET_REGS,
    KVM_GET_STATS_FD,
    KVM_INTERRUPT,
    KVM_NMI,
    KVM_RUN,
    KVM_SET_GUEST_DEBUG,
    KVM_SET_SIGNAL_MASK,
    KVM_SMI,
)
from ..uapi.run import kvm_run
from ..uapi.structs import kvm_enable_cap, kvm_guest_debug, kvm_interrupt, kvm_regs
from .alarm import SIGNAL, TICK_S, thread_alarm, wake
from .clock import Limit
from .error import KvmError, RunTimeout
from .exit import Exit
from .ioctl import get_errno, ioctl, raw_ioctl
from .state import VcpuState
from .stats import read_stats
from .stop import RunStopped
from .where import where

if TYPE_CHECKING:
    from .system import Kvm
    from .vm import Vm

__all__ = ["Vcpu"]


class Vcpu(VcpuState):
    """A vCPU: `id`, its `vm`, its `fd`, and `run_struct`, the struct kvm_run that it shares with KVM.

    Made by Vm.create_vcpu() and closed with the Vm, or by from_fd(). `run_struct` and views on its parts must not be kept
    after close(): their memory stays mapped as long as they exist. Every method that is an ioctl raises KvmError if KVM
    refuses it.
    """

    def __init__(self, vm: Vm, id: int, fd: int) -> None:
        self.fd = fd
        self.id = id
        self.vm = vm
        self._what = f"vcpu {id}"
        self._xsave_size = 0
        self._tid = 0
        self._kicked = False
        self._page: mmap.mmap | None = None
        self._run: kvm_run | None = None
        try:
            self._page = mmap.mmap(fd, vm.kvm.vcpu_mmap_size(), mmap.MAP_SHARED)
            self._run = kvm_run.from_buffer(self._page)
        except BaseException:
            self.close()
            raise

    @classmethod
    def from_fd(cls, kvm: Kvm, fd: int, id: int = 0) -> Vcpu:
        """The vCPU of descriptor `fd`, which other code of this process made with KVM_CREATE_VCPU, with APIC id `id`.

        It has a descriptor of its own: close() leaves `fd` open. Its `vm` knows what `kvm` can do and nothing else. While
        another thread is in KVM_RUN, every ioctl here waits until it is out. Raises KvmError if `fd` is not a vCPU (ENOTTY),
        or is one of another process, which alone may use it (EIO; kvm_vcpu_ioctl() in virt/kvm/kvm_main.c).
        """
        from .vm import Vm

        ioctl(fd, KVM_GET_REGS, byref(kvm_regs()), f"descriptor {fd}")
        vm = Vm(kvm, -1)
        vm.check_extension = kvm.check_extension  # type: ignore[method-assign]
        vm.vcpus.append(vcpu := cls(vm, id, fcntl(fd, F_DUPFD_CLOEXEC, 0)))
        return vcpu

    # Running

    @property
    def run_struct(self) -> kvm_run:
        """The struct kvm_run. Raises ValueError after close()."""
        if self._run is None:
            raise ValueError(f"{self._what} is closed")
        return self._run

    def run(self, timeout_s: float = 1.0, undisturbed: bool = False) -> Exit:
        """KVM_RUN (4.10) until the next exit to userspace, for `timeout_s` seconds at most; waiting for a CPU does not count.

        KVM_RUN is called again when a signal ends it (Python's handlers run in between, so Ctrl-C comes out as
        KeyboardInterrupt) and on EAGAIN, by which KVM reports that a vCPU waiting for INIT or SIPI has woken up.
        After kick(), or if `immediate_exit` is set, the Exit has the reason KVM_EXIT_INTR. From any thread, but one at
        a time. See alarm.py and clock.py for how the time is kept.

        `undisturbed`, no signal comes before the time is up: KVM_RUN looks at what is pending when it is called again, so that a
        vCPU that KVM fails to wake would wake all the same. Only kick() stops such a run.

        Raises RunTimeout if the guest makes no exit in time, RunStopped within TICK_S if the Kvm's `stop` is set, KvmError if
        KVM_RUN fails, ValueError if `timeout_s` is not positive.
        """
        if not timeout_s > 0:
            raise ValueError(f"a time-out of {timeout_s} s")
        shared = self.run_struct
        stop = self.vm.kvm.stop
        alarm = thread_alarm()
        start = monotonic()
        first_s = timeout_s if undisturbed else min(timeout_s, TICK_S)
        limit = Limit(timeout_s) if first_s == timeout_s else None
        # The signal that ends an undisturbed run is not to wake the vCPU, even if its thread waited for a CPU for a moment.
        least = timeout_s / 2 if undisturbed else 0
        self._tid = alarm.tid
        try:
            alarm.start(first_s)
            while not stop.seen:
                if raw_ioctl(self.fd, KVM_RUN, 0) >= 0:
                    return Exit(shared.exit_reason, shared, self._page)
                error = get_errno()
                if error == errno.EINTR:
                    if self._kicked:
                        self._kicked = False
                        shared.immediate_exit = 0
                        return Exit(KVM_EXIT_INTR)
                    if shared.immediate_exit:
                        return Exit(KVM_EXIT_INTR)
                elif error != errno.EAGAIN:
                    raise KvmError(error, KVM_RUN, self._what)
                if limit is None:
                    # Most runs are over before the first tick, and cost no look at the clock. What a tick was late was a wait.
                    limit = Limit(timeout_s - min(TICK_S, monotonic() - start))
                left = limit.left()
                if left <= least:
                    raise RunTimeout(self, timeout_s, where(self))
                if left < TICK_S:
                    alarm.start(left)
            raise RunStopped
        finally:
            self._tid = 0
            alarm.stop()

    def run_once(self) -> Exit:
        """KVM_RUN (4.10), once and without time-out: with `immediate_exit` set, or for a guest that is sure to exit.

        With `immediate_exit` it finishes the I/O or MMIO of the last exit and runs nothing. Ended by a signal, the Exit
        has the reason KVM_EXIT_INTR.
        """
        shared = self.run_struct
        if raw_ioctl(self.fd, KVM_RUN, 0) >= 0:
            return Exit(shared.exit_reason, shared, self._page)
        error = get_errno()
        if error == errno.EINTR:
            return Exit(KVM_EXIT_INTR)
        raise KvmError(error, KVM_RUN, self._what)

    def complete_io(self) -> None:
        """Finish the I/O or MMIO of the last exit and run nothing: only then is the state whole (KVM API, struct kvm_run)."""
        self.run_struct.immediate_exit = 1
        try:
            self.run_once()
        finally:
            self.run_struct.immediate_exit = 0

    def kick(self) -> None:
        """End the run() that is going on, or else the next one, with KVM_EXIT_INTR. From any thread."""
        self._kicked = True
        self.run_struct.immediate_exit = 1
        tid = self._tid
        if tid:
            wake(tid)

    def unkick(self) -> None:
        """Take back a kick() that came when the run() had ended already, so that it does not end the next one."""
        self._kicked = False
        self.run_struct.immediate_exit = 0

    @property
    def immediate_exit(self) -> bool:
        """True if KVM_RUN returns before it runs any guest code; stays so until set to False."""
        return bool(self.run_struct.immediate_exit)

    @immediate_exit.setter
    def immediate_exit(self, value: bool) -> None:
        self.run_struct.immediate_exit = bool(value)

    def reply(self, data: bytes) -> None:
        """Give the data for an IN or an MMIO read that ended run(); the guest sees it at the next run.

        Raises ValueError if the last exit asked for no data or for another number of bytes.
        """
        shared = self.run_struct
        assert self._page is not None
        if shared.exit_reason == KVM_EXIT_IO and not shared.io.direction:
            at, wanted = shared.io.data_offset, shared.io.size * shared.io.count
        elif shared.exit_reason == KVM_EXIT_MMIO and not shared.mmio.is_write:
            at, wanted = kvm_run.u.offset + type(shared.mmio).data.offset, shared.mmio.len
        else:
            raise ValueError(f"{Exit(shared.exit_reason).name} asks for no data")
        if len(data) != wanted:
            raise ValueError(f"{len(data)} bytes for an exit that asks for {wanted}")
        self._page[at : at + wanted] = data

    # Events

    def nmi(self) -> None:
        """KVM_NMI (4.64): queue an NMI. KVM_CAP_USER_NMI."""
        ioctl(self.fd, KVM_NMI, 0, self._what)

    def smi(self) -> None:
        """KVM_SMI (4.96): queue an SMI. KVM_CAP_X86_SMM; a KVM without SMM gives EINVAL or ENOTTY."""
        ioctl(self.fd, KVM_SMI, 0, self._what)

    def interrupt(self, n: int) -> None:
        """KVM_INTERRUPT (4.16): inject vector `n`. Without an in-kernel PIC only (ENXIO)."""
        ioctl(self.fd, KVM_INTERRUPT, byref(kvm_interrupt(n)), f"{self._what}, vector {n}")

    # Control

    def set_guest_debug(self, control: int = KVM_GUESTDBG_ENABLE, debugreg: Iterable[int] = ()) -> None:
        """KVM_SET_GUEST_DEBUG (4.87): KVM_GUESTDBG_*, and at most eight debug registers; `control` 0 turns it off."""
        request = kvm_guest_debug(control)
        for index, value in enumerate(debugreg):
            request.arch.debugreg[index] = value
        ioctl(self.fd, KVM_SET_GUEST_DEBUG, byref(request), f"{self._what}, control {control:#x}")

    def set_signal_mask(self, signals: Iterable[int] | None) -> None:
        """KVM_SET_SIGNAL_MASK (4.21): the signals blocked during KVM_RUN; None for those that the thread blocks anyway.

        SIGINT and the signal of run()'s time-out stay open whatever is asked for.
        """
        if signals is None:
            ioctl(self.fd, KVM_SET_SIGNAL_MASK, None, self._what)
            return
        bits = 0
        for number in signals:
            if not 1 <= number <= 64:
                raise ValueError(f"signal {number}")
            bits |= 1 << (number - 1)
        bits &= ~(1 << (SIGNAL - 1) | 1 << (SIGINT - 1))
        buffer = create_string_buffer((8).to_bytes(4, "little") + bits.to_bytes(8, "little"))
        ioctl(self.fd, KVM_SET_SIGNAL_MASK, buffer, f"{self._what}, signals {bits:#x}")

    def enable_cap(self, cap: int, *args: int, flags: int = 0) -> int:
        """KVM_ENABLE_CAP (4.37) on the vCPU, with at most four 64-bit `args`."""
        request = kvm_enable_cap(cap, flags, args)
        return ioctl(self.fd, KVM_ENABLE_CAP, byref(request), f"{self._what}, cap {cap}, args {list(args)}")

    def stats_fd(self) -> int:
        """KVM_GET_STATS_FD (4.133): a descriptor to read binary statistics from; the caller closes it."""
        return ioctl(self.fd, KVM_GET_STATS_FD, 0, self._what)

    def stats(self) -> dict[str, list[int]]:
        """KVM_GET_STATS_FD (4.133): every statistic of the vCPU, by name."""
        return read_stats(self.stats_fd())

    # Life

    @property
    def closed(self) -> bool:
        """True once close() was called."""
        return self.fd < 0

    def close(self) -> None:
        """Unmap the struct kvm_run and close the vCPU. Can be called again; not while another thread runs it."""
        self._run = None
        page, self._page = self._page, None
        if page is not None:
            try:
                page.close()
            except BufferError:
                pass  # the caller still has run_struct: unmapped when that is gone
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> Vcpu:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Vcpu {self.id}{' closed' if self.closed else ''}>"
