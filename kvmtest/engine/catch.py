# SPDX-License-Identifier: GPL-2.0-only
"""What the target is doing when the event comes: running, halted, in the middle of I/O, about to take an exception.

The vCPU has been planted by guest code (`kvmtest.state.inside`), which waits behind its last OUT. A state may ``prepare`` more
of it by ioctl, before the plant is read back; ``fire`` then makes the event happen at the moment that the state's name says.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from kvmtest.guests import planter
from kvmtest.kvm import Exit, RunTimeout, Vcpu
from kvmtest.kvm.clock import Limit
from kvmtest.state import inside
from kvmtest.triggers import latched, restart, triple_fault
from kvmtest.triggers.error import TriggerError
from kvmtest.uapi.kvm import (
    KVM_EXIT_IO,
    KVM_EXIT_MMIO,
    KVM_GUESTDBG_ENABLE,
    KVM_GUESTDBG_USE_HW_BP,
    KVM_MP_STATE_HALTED,
    KVM_MP_STATE_INIT_RECEIVED,
    KVM_VCPUEVENT_VALID_NMI_PENDING,
    kvm_vcpu_events,
)

__all__ = ("NEVER_RUN", "STATES", "State", "fire", "prepare", "release")

#: Seconds: to see that a loop goes on or has ended, and to be sure that a vCPU that halts has done so.
_POLL_S, _HALT_S = 0.002, 0.01
#: Requested and not delivered: vector 55H, whose priority class is below that of the TPR that guest code plants.
_IRR2, _VECTOR_55 = 0x220, 1 << 21
#: A hardware breakpoint that nothing hits: DR7.L0, one byte, on execution.
_HOST_DR7, _HOST_DR0 = 0x401, 0xDEADBEEF000

Fire = Callable[[], Exit | None]


def _nothing(vcpu: Vcpu) -> None:
    pass


class State(NamedTuple):
    """One state. ``prepare`` and ``release`` are ioctls before the plant is read back and after the case; ``fire`` takes the
    vCPU, what makes the event happen, and the seconds that a KVM_RUN may take, and returns the exit of a vCPU that already
    runs again behind the event.
    """

    prepare: Callable[[Vcpu], None]
    fire: Callable[[Vcpu, Fire, float], Exit | None]
    release: Callable[[Vcpu], None] = _nothing


class _Running:
    """A vCPU in KVM_RUN on a thread of its own."""

    def __init__(self, vcpu: Vcpu, timeout_s: float) -> None:
        self.vcpu = vcpu
        self.exit: Exit | None = None
        self.error: BaseException | None = None
        self._timeout_s = timeout_s
        self._thread = threading.Thread(target=self._run, name=f"vcpu {vcpu.id}")
        self._thread.start()

    def _run(self) -> None:
        try:
            self.exit = self.vcpu.run(self._timeout_s)
        except BaseException as error:  # handed to who waits
            self.error = error

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    def stop(self) -> None:
        """Out of KVM_RUN, at the latest now."""
        if self._thread.is_alive():
            self.vcpu.kick()
        self._thread.join()
        self.vcpu.unkick()

    def join(self, timeout_s: float | None) -> None:
        """Wait until it is out of KVM_RUN, whose own time is limited, or for so long."""
        self._thread.join(timeout_s)


def _while_running(vcpu: Vcpu, event: Fire, timeout_s: float, reached: Callable[[_Running], None]) -> Exit | None:
    """Fire at a vCPU in KVM_RUN once ``reached`` has seen it there."""
    on_bsp = bool(vcpu.get_sregs().apic_base & 0x100)
    if on_bsp:
        restart.watch(vcpu)
    thread = _Running(vcpu, timeout_s)
    try:
        reached(thread)
        if not thread.running:
            left = thread.exit or thread.error
            raise TriggerError(f"the vCPU was to run when the event came, and left KVM_RUN: {left}") from thread.error
        event()
        # The boot processor restarts, and leaves by the first code behind the reset vector; another one waits for its SIPI.
        thread.join(None if on_bsp else _HALT_S)
    finally:
        thread.stop()
    if not on_bsp:
        if vcpu.get_mp_state() != KVM_MP_STATE_INIT_RECEIVED:
            raise TriggerError("the event left no trace: the vCPU that was running does not wait for a SIPI")
        return None
    if not restart.restarted(thread.exit):
        raise TriggerError(f"the boot processor did not restart: {thread.exit or thread.error}") from thread.error
    return thread.exit


def _looping(thread: _Running) -> None:
    """Until the loop's counter moves, as long as the thread runs the vCPU."""
    while not inside.count(thread.vcpu):
        if not thread.running:
            raise TriggerError(f"the guest did not come to its loop: {thread.exit or thread.error}") from thread.error
        time.sleep(_POLL_S)


def _in_loop(vcpu: Vcpu, event: Fire, timeout_s: float) -> Exit | None:
    inside.resume(vcpu, "loop")
    return _while_running(vcpu, event, timeout_s, _looping)


def _in_hlt(vcpu: Vcpu, event: Fire, timeout_s: float) -> Exit | None:
    inside.resume(vcpu, "hlt")
    # How long the guest takes to get there depends on the machine's load; once it is there, no exit comes.
    limit = Limit(timeout_s)
    while vcpu.get_mp_state() != KVM_MP_STATE_HALTED:
        if limit.left() <= 0:
            raise TriggerError("the guest was to halt, and KVM_GET_MP_STATE does not say so") from TimeoutError()
        with contextlib.suppress(RunTimeout):
            raise TriggerError(f"the guest was to halt: {vcpu.run(_HALT_S)}")
    return _while_running(vcpu, event, timeout_s, lambda thread: time.sleep(_HALT_S))


def _at_exit(vcpu: Vcpu, event: Fire, timeout_s: float, end: str, wanted: Callable[[Exit], bool]) -> None:
    inside.resume(vcpu, end)
    try:
        seen = vcpu.run(timeout_s)
    except RunTimeout as error:
        raise TriggerError(f"the guest was to read a port or memory of a device: {error}") from error
    if not wanted(seen):
        raise TriggerError(f"the guest was to read a port or memory of a device: {seen}")
    event()
    latched.wait_for(vcpu, "in the middle of an instruction", timeout_s)
    # The answer arrives with the INIT pending: userspace has to let KVM finish the instruction (KVM API, struct kvm_run).
    vcpu.reply(b"\x5a" * 4)
    vcpu.complete_io()


def _in_io(vcpu: Vcpu, event: Fire, timeout_s: float) -> None:
    _at_exit(vcpu, event, timeout_s, "in", lambda seen: seen.reason == KVM_EXIT_IO and seen.port == planter.PORT_IN)


def _in_mmio(vcpu: Vcpu, event: Fire, timeout_s: float) -> None:
    _at_exit(vcpu, event, timeout_s, "mmio", lambda seen: seen.reason == KVM_EXIT_MMIO and seen.phys_addr == planter.MMIO)


def _at_once(vcpu: Vcpu, event: Fire, timeout_s: float) -> Exit | None:
    return event()


def _shut_down(vcpu: Vcpu) -> None:
    triple_fault.prepare(vcpu)
    triple_fault.shutdown(vcpu)


def _in_shutdown(vcpu: Vcpu, event: Fire, timeout_s: float) -> Exit | None:
    """Where a shutdown left the state of an INIT already, another one shows in nothing but that it was pending."""
    first = event()
    latched.wait_for(vcpu, "in shutdown", timeout_s)
    return first


def _request_interrupt(vcpu: Vcpu) -> None:
    state = vcpu.get_lapic()
    state.regs[_IRR2 : _IRR2 + 4] = list(_VECTOR_55.to_bytes(4, "little"))
    vcpu.set_lapic(state)


def _inject(part: str) -> Callable[[Vcpu], None]:
    def prepare(vcpu: Vcpu) -> None:
        events: kvm_vcpu_events = vcpu.get_vcpu_events()
        getattr(events, part).injected = 1
        # What goes with it: a device's interrupt, #GP(0).
        events.interrupt.nr = 0x55
        events.exception.nr, events.exception.has_error_code = 13, 1
        events.flags |= KVM_VCPUEVENT_VALID_NMI_PENDING
        vcpu.set_vcpu_events(events)

    return prepare


def _debug(vcpu: Vcpu) -> None:
    vcpu.set_guest_debug(KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP, (_HOST_DR0, 0, 0, 0, 0, 0, 0, _HOST_DR7))


def _no_debug(vcpu: Vcpu) -> None:
    vcpu.set_guest_debug(0)


#: By name. "" is a vCPU that is not in KVM_RUN, NEVER_RUN one that has never been; the others take a plant by guest code.
NEVER_RUN = "never-run"
STATES = {
    "": State(_nothing, _at_once),
    NEVER_RUN: State(_nothing, _at_once),
    "in-loop": State(_nothing, _in_loop),
    "in-hlt": State(_nothing, _in_hlt),
    "in-port-read": State(_nothing, _in_io),
    "in-mmio-read": State(_nothing, _in_mmio),
    "irq-requested": State(_request_interrupt, _at_once),
    "interrupt-injected": State(_inject("interrupt"), _at_once),
    "exception-injected": State(_inject("exception"), _at_once),
    "nmi-injected": State(_inject("nmi"), _at_once),
    "guest-debug": State(_debug, _at_once, _no_debug),
    "at-triple-fault": State(triple_fault.prepare, _at_once),
    "in-shutdown": State(_shut_down, _in_shutdown),
}


def prepare(state: str, vcpu: Vcpu) -> None:
    """What the state needs by ioctl, before the plant is read back. Raises KvmError."""
    STATES[state].prepare(vcpu)


def fire(state: str, vcpu: Vcpu, event: Fire, timeout_s: float) -> Exit | None:
    """Make the event happen in ``state``; the exit of a vCPU that runs again already. Raises KvmError, TriggerError."""
    return STATES[state].fire(vcpu, event, timeout_s)


def release(state: str, vcpu: Vcpu) -> None:
    """Undo what would outlive the case. Raises KvmError."""
    STATES[state].release(vcpu)
