# SPDX-License-Identifier: GPL-2.0-only
"""States of the target when the event comes, as facts: how to enter and leave each, and which events it holds."""

from __future__ import annotations

import ctypes
from typing import NamedTuple

from kvmtest.scenario import step as s
from kvmtest.scenario.hypervisor import EFER_SVME, IN_L2, svm
from kvmtest.scenario.triggers import Steps
from kvmtest.state.values import PLANTS
from kvmtest.uapi.kvm import (
    KVM_EXIT_SHUTDOWN,
    KVM_GUESTDBG_ENABLE,
    KVM_GUESTDBG_USE_HW_BP,
    KVM_MP_STATE_HALTED,
    KVM_MP_STATE_INIT_RECEIVED,
    KVM_SET_GUEST_DEBUG,
    KVM_SET_NESTED_STATE,
    KVM_STATE_NESTED_FORMAT_SVM,
    KVM_STATE_NESTED_FORMAT_VMX,
    KVM_STATE_NESTED_GIF_SET,
    kvm_guest_debug,
    kvm_nested_state,
)

__all__ = ("GUEST_PLANTS", "NEVER_RUN", "STATES", "VMXON", "State", "debug", "gif", "vmxon")

GUEST_PLANTS = ("guest-long", "guest-protected", "guest-v86")
_LONG = ("guest-long",)
NEVER_RUN = "never-run"
#: The address of the VMXON region.
VMXON = 0x10000
#: Requested and not delivered: vector 55H, whose priority class is below that of the TPR that guest code plants.
_VECTOR_55 = 1 << 21
#: A hardware breakpoint that nothing hits: DR7.L0, one byte, on execution.
_DR7, _DR0 = 0x401, 0xDEADBEEF000
_LATCHED = s.Until(s.Is("events.smi_latched_init", 1), note="no INIT is pending", run=False)


class State(NamedTuple):
    """A state of the target.

    ``before`` are the steps before everything is planted, ``keep`` is what they leave set (`s.Plant`). ``prepare`` are the
    steps before the observation that precedes the event, ``enter`` those after it. ``leave`` ends what held the event,
    ``release`` undoes what would outlast the case. ``plants`` are the plants by guest code that it allows; without any, it
    allows those by ioctls. ``needs`` are its needs. ``holds`` and ``drops`` are the events that wait until the state is left,
    and those that are lost in it. ``on_thread`` is set if the target is in KVM_RUN, ``silent`` if the event may leave no trace,
    ``fresh`` if it needs a new VM. ``events`` are the only events that it is for, and ``only`` the only plants, if not all.
    ``memory`` is set if a guest of its own lies where the reporting one does, ``runs`` if the target has to run to accept the
    event.
    """

    before: Steps = ()
    keep: int = 0
    prepare: Steps = ()
    enter: Steps = ()
    leave: Steps = ()
    release: Steps = ()
    plants: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    holds: tuple[str, ...] = ()
    drops: tuple[str, ...] = ()
    targets: tuple[str, ...] = ("bsp", "ap")
    on_thread: bool = False
    silent: bool = False
    fresh: bool = False
    events: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    memory: bool = False
    runs: bool = False


def _inject(event: str) -> Steps:
    """Injected by KVM_SET_VCPU_EVENTS, with what goes with it: a device's interrupt, #GP(0)."""
    with_it = (("events.interrupt_nr", 0x55), ("events.exception_nr", 13), ("events.exception_has_error_code", 1))
    return (s.Set(((f"events.{event}_injected", 1), *with_it)),)


def _at_exit(end: str, condition: s.Condition) -> tuple[Steps, Steps]:
    """In the middle of an instruction that reads a device: the data arrives with the INIT pending, and userspace has to let KVM
    finish the instruction (KVM API, struct kvm_run).
    """
    reads = s.Until(condition, note="the guest does not read a port or a device's memory")
    return (s.Resume(end), reads), (_LATCHED, s.Give(b"\x5a" * 4), s.Complete())


def debug(control: int, *registers: int) -> s.Step:
    """KVM_SET_GUEST_DEBUG, with these debug registers."""
    made = kvm_guest_debug(control)
    for index, value in enumerate(registers):
        made.arch.debugreg[index] = value
    return s.Call(KVM_SET_GUEST_DEBUG, bytes(made), kind="kvm_guest_debug")


def gif(value: bool) -> s.Call:
    """KVM_SET_NESTED_STATE outside of guest mode, with GIF set or clear."""
    nested = kvm_nested_state(
        flags=KVM_STATE_NESTED_GIF_SET if value else 0, format=KVM_STATE_NESTED_FORMAT_SVM, size=ctypes.sizeof(kvm_nested_state)
    )
    return s.Call(KVM_SET_NESTED_STATE, bytes(nested), kind="kvm_nested_state")


def vmxon(on: bool) -> s.Step:
    """KVM_SET_NESTED_STATE into VMX root operation, or out of it. KVM does not check the VMXON region."""
    nested = kvm_nested_state(format=KVM_STATE_NESTED_FORMAT_VMX, size=ctypes.sizeof(kvm_nested_state))
    nested.hdr.vmx.vmxon_pa, nested.hdr.vmx.vmcs12_pa = VMXON if on else (1 << 64) - 1, (1 << 64) - 1
    return s.Call(KVM_SET_NESTED_STATE, bytes(nested), kind="kvm_nested_state")


_IN, _IN_LEFT = _at_exit("in", s.In("planter.IN"))
_MMIO, _MMIO_LEFT = _at_exit("mmio", s.Mmio("planter.MMIO"))
#: Before a UD2 and without an IDT, so that the fault itself changes no register: with no entry to read, none of the three
#: exceptions writes CR2.
_AT_UD = (s.Set((("idt.limit", 0), ("rip", "planter.ud"))),)
_HALTED = s.Until(s.Is("mp_state", KVM_MP_STATE_HALTED), note="the guest does not halt, by KVM_GET_MP_STATE")

STATES: dict[str, State] = {
    # Not in KVM_RUN; and one that has never been.
    "": State(),
    NEVER_RUN: State(fresh=True, only=("a",)),
    "in-loop": State(
        enter=(s.Resume("loop"), s.Start(), s.Until(s.Moves("planter.count"), note="the guest did not reach its loop")),
        plants=GUEST_PLANTS, on_thread=True,
    ),
    "in-hlt": State(enter=(s.Resume("hlt"), _HALTED, s.Start()), plants=GUEST_PLANTS[:2], on_thread=True),
    "in-port-read": State(enter=_IN, leave=_IN_LEFT, plants=("guest-long", "guest-v86")),
    "in-mmio-read": State(enter=_MMIO, leave=_MMIO_LEFT, plants=_LONG),
    "irq-requested": State(prepare=(s.Set((("lapic.irr2", _VECTOR_55),)),), plants=_LONG),
    "interrupt-injected": State(prepare=_inject("interrupt"), plants=_LONG),
    "exception-injected": State(prepare=_inject("exception"), plants=_LONG),
    "nmi-injected": State(prepare=_inject("nmi"), plants=_LONG),
    "guest-debug": State(
        prepare=(debug(KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP, _DR0, 0, 0, 0, 0, 0, 0, _DR7),),
        release=(debug(0),), plants=_LONG,
    ),
    "at-triple-fault": State(prepare=_AT_UD, plants=_LONG, silent=True, events=("shutdown",)),
    "in-shutdown": State(
        prepare=(*_AT_UD, s.Until(s.Exit(KVM_EXIT_SHUTDOWN), note="the guest does not shut down")),
        leave=(_LATCHED,), plants=_LONG, silent=True,
    ),
    "in-smm": State(
        prepare=(s.Set((("events.smi_smm", 1),)),), leave=(s.Set((("events.smi_smm", 0),)),), needs=("smm",), only=PLANTS,
        holds=("init",), drops=("sipi",),
    ),
    "gif-clear": State(
        prepare=(s.SetBits("efer", EFER_SVME), gif(False)), leave=(gif(True),), needs=("svm",), only=PLANTS,
        holds=("init",), drops=("sipi",),
    ),
    # By an SMI whose handler does not return before the event has come.
    "in-smi-handler": State(
        prepare=(
            s.Load("smram", (("SMM_TOPIC", "smm.SMM_RSM"), ("SMM_TURNS", 1000))), s.Resume("loop"),
            s.Send("smi", "ioctl-smi", judged=False), s.Until(s.Word("smram.SMI"), note="the SMI handler does not run"),
            s.Require(s.Is("events.smi_smm", 1), "the SMI handler runs, and KVM_GET_VCPU_EVENTS shows no SMM"),
        ),
        leave=(s.Until(s.Word("smram.VALUE"), note="the SMI handler does not continue"),), needs=("smm",), plants=_LONG,
        holds=("init",), drops=("sipi",), runs=True, fresh=True,
    ),
    # In L2, where L1 does not intercept INIT; what is planted then is L2's.
    "in-svm-l2": State(
        before=(*svm("TOPIC_RUN"), s.Until(s.Word("NESTED")), s.Complete(), IN_L2), keep=EFER_SVME,
        # KVM accepts no INIT in L2 before an injected event has been delivered (svm_check_nested_events()).
        prepare=(s.Set(tuple((f"events.{name}_injected", 0) for name in ("exception", "interrupt", "nmi"))), IN_L2),
        needs=("svm",), only=PLANTS, fresh=True, memory=True,
    ),
    # By ioctl alone.
    "wait-for-sipi": State(
        before=(s.Plant(), s.Send("init", judged=False), s.Settle()),
        prepare=(s.Set((("mp_state", KVM_MP_STATE_INIT_RECEIVED),)),), only=PLANTS, targets=("ap",),
    ),
    "halted": State(prepare=(s.Set((("mp_state", KVM_MP_STATE_HALTED),)),), only=PLANTS),
    "in-vmx-root": State(
        prepare=(vmxon(True),), leave=(vmxon(False),), needs=("vmx",), only=PLANTS, holds=("init",), drops=("sipi",),
    ),
}  # fmt: skip
