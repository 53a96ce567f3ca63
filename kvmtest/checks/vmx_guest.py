# SPDX-License-Identifier: GPL-2.0-only
"""INIT, SIPI and shutdown of a nested guest in VMX non-root operation: which of them make a VM exit, and what L1 sees of it."""

from __future__ import annotations

from kvmtest.checks.check import Check, Observation, Stopped, Subject, Untestable
from kvmtest.checks.delivery import set_svr
from kvmtest.checks.vmx import WHILE_S, Nested, in_l2, need_vmx, offered
from kvmtest.guests import l1, vmx
from kvmtest.kvm.where import where
from kvmtest.spec.cite import (
    KVM_API,
    S_DF,
    S_PRIORITY,
    S_VMX_ACTIVITY,
    S_VMX_BASIC,
    S_VMX_EXITS,
    S_VMX_LIMITS,
    S_VMX_MISC,
    S_VMX_NON_REGISTER,
)
from kvmtest.triggers import msi
from kvmtest.uapi.kvm import (
    KVM_CAP_X86_TRIPLE_FAULT_EVENT,
    KVM_EXIT_SHUTDOWN,
    KVM_MP_STATE_HALTED,
    KVM_MP_STATE_INIT_RECEIVED,
    KVM_VCPUEVENT_VALID_TRIPLE_FAULT,
)

__all__ = ("CHECKS",)

_MSR_VMX_MISC, _MISC_WAIT_FOR_SIPI = 0x485, 1 << 8
#: Activity states, and the exit reason of a triple fault.
_HLT, _WAIT_FOR_SIPI, _TRIPLE_FAULT = 1, 3, 2
_VECTOR = 0x9A
#: Pending debug exceptions: a single step.
_BS = 1 << 14
#: Pin-based controls.
_INTERRUPT_EXITING, _NMI_EXITING = 1 << 0, 1 << 3
#: Message data: delivery mode NMI; and a vector, which needs the local APIC enabled.
_NMI, _INTERRUPT, _SVR_ENABLED = 0x400, 0x61, 0x1FF


def _exit(subject: Subject) -> str:
    stage = Nested(subject, vmx.TOPIC_NESTED)
    stage.begin()
    msi.init(stage.vcpu)
    exited = stage.exited()
    if isinstance(exited, str):
        return exited
    stage.expect(l1.PORT_READY)
    # L1 leaves VMX operation.
    port, _ = stage.next()
    if port not in (l1.PORT_LEFT, l1.PORT_RESET):
        raise Stopped(f"L1's loop behind VMXOFF ends at port {port:#x}")
    return f"{exited}, registers {exited.kept}, {'consumed' if port == l1.PORT_LEFT else 'taken again behind VMXOFF'}"


def _exit_halted(subject: Subject) -> str:
    stage = Nested(subject, vmx.TOPIC_NESTED, vmx.L2_HLT)
    stage.begin()
    if (seen := stage.until_state(KVM_MP_STATE_HALTED)) is not None:
        raise Stopped(f"L2 does not halt: {seen}")
    msi.init(stage.vcpu)
    exited = stage.exited()
    return exited if isinstance(exited, str) else f"{exited}, activity state {exited.activity}"


def _exit_behind_entry(subject: Subject) -> Observation:
    stage = Nested(subject, vmx.TOPIC_NESTED, vmx.L2_SILENT)
    msi.init(stage.vcpu)
    return Observation(str(stage.exited()), f"{stage.count()} turns of L2")


def _exit_by_get_mp_state(subject: Subject) -> str | Observation:
    stage = Nested(subject, vmx.TOPIC_NESTED)
    stage.begin()
    msi.init(stage.vcpu)
    stage.vcpu.complete_io()
    stage.vcpu.get_mp_state()
    by = "KVM_RUN" if in_l2(stage.vcpu) else "KVM_GET_MP_STATE"
    exited = stage.exited()
    return exited if isinstance(exited, str) else Observation(f"{exited} in {by}", "", _ANYWHERE)


def _pending_debug(subject: Subject) -> str:
    stage = Nested(subject, vmx.TOPIC_NESTED, vmx.L2_STEP)
    stage.begin()
    msi.init(stage.vcpu)
    exited = stage.exited()
    return exited if isinstance(exited, str) else f"{exited}, pending debug exceptions {exited.pending_debug:#x}"


def _wait_for_sipi(subject: Subject, pins: int = 0) -> Nested | str:
    """L2 in wait-for-SIPI, or what came of the VM entry instead. Raises Stopped, Untestable."""
    need_vmx(subject)
    if not offered(subject.vcpu, _MSR_VMX_MISC, _MISC_WAIT_FOR_SIPI):
        raise Untestable("IA32_VMX_MISC[8] is clear: no VM entry into the activity state wait-for-SIPI")
    stage = Nested(subject, vmx.TOPIC_NESTED, ARG_ACTIVITY=_WAIT_FOR_SIPI, ARG_PINS=pins)
    seen = stage.until_state(KVM_MP_STATE_INIT_RECEIVED)
    if seen is not None:
        return f"L2 does not wait: {stage.exited(seen)}"
    if not in_l2(stage.vcpu):
        raise Stopped(f"L2 does not wait for a SIPI ({where(stage.vcpu)})")
    return stage


def _init_in_wait_for_sipi(subject: Subject) -> str:
    stage = _wait_for_sipi(subject)
    if isinstance(stage, str):
        return stage
    msi.init(stage.vcpu)
    seen = stage.run_for(WHILE_S)
    if seen is not None:
        return str(stage.exited(seen))
    msi.sipi(stage.vcpu, _VECTOR)
    return f"no VM exit, then by a SIPI {stage.exited()}"


def _sipi_in_wait_for_sipi(subject: Subject) -> str:
    stage = _wait_for_sipi(subject)
    if isinstance(stage, str):
        return stage
    msi.sipi(stage.vcpu, _VECTOR)
    exited = stage.exited()
    if isinstance(exited, str):
        return exited
    return f"{exited}, qualification {exited.qualification:#x}, activity state {exited.activity}"


def _blocked_in_wait_for_sipi(subject: Subject, pins: int, message: int) -> str | Observation:
    """Something that L1 wants a VM exit for, sent to L2 in wait-for-SIPI."""
    stage = _wait_for_sipi(subject, pins)
    if isinstance(stage, str):
        return stage
    set_svr(stage.vcpu, _SVR_ENABLED)
    msi.send(stage.vcpu, message)
    # KVM decides here about an NMI that it has only noted so far.
    stage.vcpu.get_vcpu_events()
    seen = stage.run_for(WHILE_S)
    if seen is not None:
        return "the NMI in L2" if seen.port == vmx.PORT_NMI else str(stage.exited(seen))
    msi.sipi(stage.vcpu, _VECTOR)
    seen = stage.listen()
    # Behind the VM exit L1 may get it.
    kept = seen is not None and seen.port == vmx.PORT_NMI
    exited = stage.exited(None if kept else seen)
    return Observation(f"no VM exit, then by a SIPI {exited}", "the NMI is kept, and taken in L1" if kept else "")


def _nmi_in_wait_for_sipi(subject: Subject) -> str | Observation:
    return _blocked_in_wait_for_sipi(subject, _NMI_EXITING, _NMI)


def _interrupt_in_wait_for_sipi(subject: Subject) -> str | Observation:
    return _blocked_in_wait_for_sipi(subject, _INTERRUPT_EXITING, _INTERRUPT)


def _sipi_beside_nmi(subject: Subject) -> str:
    stage = Nested(subject, vmx.TOPIC_NESTED, ARG_PINS=_NMI_EXITING)
    stage.begin()
    msi.send(stage.vcpu, _NMI)
    msi.sipi(stage.vcpu, _VECTOR)
    seen = stage.listen()
    if seen is not None and seen.port == vmx.PORT_NMI:
        return "the NMI in L2"
    return str(stage.exited(seen)) if seen else "no VM exit"


def _sipi_in_l2(subject: Subject) -> str:
    stage = Nested(subject, vmx.TOPIC_NESTED)
    stage.begin()
    msi.sipi(stage.vcpu, _VECTOR)
    before = stage.count()
    seen = stage.until(lambda: stage.count() > before)
    if seen is not None:
        return str(stage.exited(seen))
    msi.init(stage.vcpu)
    return f"goes on, then by INIT {stage.exited()}"


def _triple_fault(subject: Subject) -> Observation:
    stage = Nested(subject, vmx.TOPIC_NESTED, vmx.L2_SHUTDOWN)
    stage.begin()
    return _down(stage)


def _down(stage: Nested) -> Observation:
    seen = stage.listen()
    if seen is not None and seen.reason == KVM_EXIT_SHUTDOWN:
        return Observation(seen.name)
    exited = stage.exited(seen) if seen else "no VM exit"
    if isinstance(exited, str):
        raise Stopped(f"L2's triple fault leads to {exited} ({where(stage.vcpu)})")
    more = f"qualification {exited.qualification:#x}, interruption information {exited.interruption:#x}"
    return Observation(str(exited), more if exited.reason != _TRIPLE_FAULT else "")


def _triple_fault_event(subject: Subject) -> Observation:
    if not subject.vcpu.vm.check_extension(KVM_CAP_X86_TRIPLE_FAULT_EVENT):
        raise Untestable("KVM_CAP_X86_TRIPLE_FAULT_EVENT is not there")
    stage = Nested(subject, vmx.TOPIC_NESTED)
    stage.begin()
    events = stage.vcpu.get_vcpu_events()
    events.flags |= KVM_VCPUEVENT_VALID_TRIPLE_FAULT
    events.triple_fault.pending = 1
    stage.vcpu.set_vcpu_events(events)
    return _down(stage)


def _wait_for_sipi_offered(subject: Subject) -> str:
    need_vmx(subject)
    return "offered" if offered(subject.vcpu, _MSR_VMX_MISC, _MISC_WAIT_FOR_SIPI) else "not offered"


_NON_ROOT = (S_VMX_EXITS, S_VMX_BASIC)
_WAITING = (S_VMX_EXITS, S_VMX_ACTIVITY, S_VMX_BASIC)
_ANYWHERE = "the API says that KVM_GET_MP_STATE takes a pending INIT, and not that it makes a VM exit"
_STEPPED = f"exit reason 3, pending debug exceptions {_BS:#x}"
_ONLY_SIPI = "no VM exit, then by a SIPI exit reason 4"
_MAY_LACK = "a CPU may lack this activity state"

CHECKS = (
    Check(
        "init", "msi", "exit-from-vmx-guest", ("E-17",), "exit reason 3, registers kept, consumed", _exit, _NON_ROOT,
        target="bsp", view="guest", alone=True,
    ),
    Check(
        "init", "msi", "exit-from-halted-vmx-guest", ("E-17",), f"exit reason 3, activity state {_HLT}", _exit_halted,
        (*_NON_ROOT, S_VMX_NON_REGISTER), target="bsp", view="guest", alone=True,
    ),
    Check(
        "init", "msi", "exit-at-vmx-entry", ("E-16", "E-17"), "exit reason 3", _exit_behind_entry, (S_VMX_LIMITS, *_NON_ROOT),
        target="bsp", view="guest", alone=True,
    ),
    Check(
        "init", "msi", "get-mp-state-in-vmx-guest", ("E-17",), "exit reason 3", _exit_by_get_mp_state, (KVM_API, *_NON_ROOT),
        target="bsp", view="guest", alone=True,
    ),
    Check(
        "init", "msi", "pending-debug-in-vmx-guest", ("E-17",), _STEPPED, _pending_debug,
        (S_PRIORITY, S_VMX_EXITS, S_VMX_NON_REGISTER), target="bsp", view="guest", alone=True,
    ),
    Check(
        "init", "msi", "blocked-in-waiting-vmx-guest", ("E-17",), _ONLY_SIPI, _init_in_wait_for_sipi, _WAITING,
        target="bsp", view="guest", alone=True,
    ),
    Check(
        "sipi", "msi", "exit-from-waiting-vmx-guest", ("E-17",), f"exit reason 4, qualification {_VECTOR:#x}, activity state 3",
        _sipi_in_wait_for_sipi, (*_WAITING, S_VMX_NON_REGISTER), target="bsp", view="guest", alone=True,
    ),
    Check(
        "sipi", "msi", "nmi-in-waiting-vmx-guest", ("E-26",), _ONLY_SIPI, _nmi_in_wait_for_sipi, _WAITING,
        target="bsp", view="guest", alone=True,
    ),
    Check(
        "sipi", "msi", "interrupt-in-waiting-vmx-guest", ("E-26",), _ONLY_SIPI, _interrupt_in_wait_for_sipi, _WAITING,
        target="bsp", view="guest", alone=True,
    ),
    Check(
        "sipi", "msi", "beside-nmi-in-vmx-guest", ("E-5", "E-17"), "exit reason 0", _sipi_beside_nmi, _WAITING,
        target="bsp", view="guest", alone=True,
    ),
    Check(
        "sipi", "msi", "dropped-in-vmx-guest", ("E-5", "E-17"), "goes on, then by INIT exit reason 3", _sipi_in_l2, _WAITING,
        target="bsp", view="guest", alone=True,
    ),
    Check(
        "shutdown", "triple-fault", "exit-from-vmx-guest", ("E-22",), "exit reason 2", _triple_fault, (S_VMX_EXITS, S_DF),
        target="bsp", view="guest", alone=True,
    ),
    Check(
        "shutdown", "vcpu-events", "exit-from-vmx-guest", ("E-22",), "exit reason 2", _triple_fault_event,
        (S_VMX_EXITS, S_DF, KVM_API), target="bsp", view="guest", alone=True,
    ),
    Check(
        "none", "vm-entry", "waiting-vmx-guest", ("E-17",), "", _wait_for_sipi_offered, (S_VMX_MISC,), _MAY_LACK,
        target="bsp", alone=True,
    ),
)  # fmt: skip
