# SPDX-License-Identifier: GPL-2.0-only
"""The alarm that gets a thread out of KVM_RUN.

KVM_RUN ends only at an exit or a signal. Each thread that runs a vCPU has a POSIX timer that sends SIGNAL to it, first
when the time is up (mostly after TICK_S) and then again and again until the timer is stopped. Because it is sent again, a
signal that comes just before the thread enters KVM_RUN is not missed; for the same reason a Ctrl-C that comes just
then waits for TICK_S at most.

SIGNAL's handler is a C function that does nothing and is installed with SA_RESTART by the first run, from any thread,
unless the process already handles SIGNAL itself. It stays, since a signal on its way must not meet the default action;
Python's own signal handlers are neither used nor changed, and a program started with exec() does not inherit it.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import threading
from collections.abc import Callable
from ctypes import byref, c_int, c_long, c_void_p

from .ioctl import get_errno, libc

__all__ = ["SIGNAL", "Alarm", "thread_alarm", "wake"]

#: The signal used, SIGRTMIN as libc counts.
SIGNAL = int(signal.SIGRTMIN)

#: Seconds between two looks at the clock in a run.
TICK_S = 0.1

_SIGEV_THREAD_ID = 4
_SYS_TGKILL = 234


class _sigevent(ctypes.Structure):
    _fields_ = (
        ("sigev_value", c_void_p),
        ("sigev_signo", c_int),
        ("sigev_notify", c_int),
        ("sigev_notify_thread_id", c_int),
        ("pad", c_int * 11),
    )


class _itimerspec(ctypes.Structure):
    _fields_ = (("interval_s", c_long), ("interval_ns", c_long), ("value_s", c_long), ("value_ns", c_long))


# timer_create() is in librt before glibc 2.34.
_rt = libc if hasattr(libc, "timer_create") else ctypes.CDLL("librt.so.1", use_errno=True)
_timer_create = _rt.timer_create
_timer_create.argtypes = (c_int, c_void_p, c_void_p)
_timer_settime = _rt.timer_settime
_timer_settime.argtypes = (c_void_p, c_int, c_void_p, c_void_p)
_timer_delete = _rt.timer_delete
_timer_delete.argtypes = (c_void_p,)

_signal = libc.signal
_signal.argtypes = (c_int, c_void_p)
_signal.restype = c_void_p

_CLOCK_MONOTONIC = 1


def _install_handler() -> None:
    old = (ctypes.c_size_t * 32)()  # room for a struct sigaction, which starts with the handler
    libc.sigaction(SIGNAL, None, byref(old))
    if old[0] <= 1:  # SIG_DFL or SIG_IGN; a handler of somebody else's interrupts KVM_RUN just as well
        # abs() takes an int, touches nothing and returns: a handler that is safe in any thread and without the GIL.
        _signal(SIGNAL, ctypes.cast(libc.abs, c_void_p))


class Alarm:
    """The timer of one thread; `tid` is the kernel's id of the thread. Raises OSError if no timer is left."""

    def __init__(self) -> None:
        self.tid = threading.get_native_id()
        self._id = c_void_p()
        self._pid = os.getpid()
        self._off = _itimerspec()
        self._on = _itimerspec()
        self._set_for = 0.0
        event = _sigevent(None, SIGNAL, _SIGEV_THREAD_ID, self.tid)
        _install_handler()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (SIGNAL,))
        timer = c_void_p()
        if _timer_create(_CLOCK_MONOTONIC, byref(event), byref(timer)):
            error = get_errno()
            raise OSError(error, f"timer_create: {os.strerror(error)}")
        self._id = timer
        self._live = True
        self._off_ref = byref(self._off)
        self._on_ref = byref(self._on)

    def start(self, first_s: float) -> None:
        """Send SIGNAL to the thread after `first_s` seconds, and then over and over."""
        if first_s != self._set_for:
            first = max(1, int(first_s * 1e9))
            for spec, ns in (("value", first), ("interval", max(first, 1_000_000))):
                setattr(self._on, f"{spec}_s", ns // 10**9)
                setattr(self._on, f"{spec}_ns", ns % 10**9)
            self._set_for = first_s
        if _timer_settime(self._id, 0, self._on_ref, None):
            error = get_errno()
            raise OSError(error, f"timer_settime: {os.strerror(error)}")

    def stop(self) -> None:
        """Send no more."""
        _timer_settime(self._id, 0, self._off_ref, None)

    def __del__(self, getpid: Callable[[], int] = os.getpid, delete: Callable[[c_void_p], int] = _timer_delete) -> None:
        # Bound above, as the module's names are gone at the interpreter's exit. A child made by fork() has its parent's
        # Alarm but not the timer: the number may be that of another one.
        if getattr(self, "_live", False) and getpid() == self._pid:
            self._live = False
            delete(self._id)


_local = threading.local()


def thread_alarm() -> Alarm:
    """The calling thread's alarm, made when first asked for. Raises OSError."""
    try:
        alarm: Alarm = _local.alarm
    except AttributeError:
        alarm = _local.alarm = Alarm()
    return alarm


def _forget() -> None:
    global _local
    _local = threading.local()


os.register_at_fork(after_in_child=_forget)


def wake(tid: int) -> None:
    """Send SIGNAL once to a thread of this process, by the kernel's id; nothing if it has ended."""
    if libc.syscall(c_long(_SYS_TGKILL), c_long(os.getpid()), c_long(tid), c_long(SIGNAL)) < 0:
        error = get_errno()
        if error != errno.ESRCH:
            raise OSError(error, f"tgkill: {os.strerror(error)}")
