# SPDX-License-Identifier: GPL-2.0-only
"""INIT, SIPI and shutdown in VMX operation, as a hypervisor in the guest (L1) and a guest of its own (L2) show them."""

from __future__ import annotations

from typing import NamedTuple

from kvmtest.checks.check import Check, Observation, Stopped, Subject, Untestable
from kvmtest.checks.delivery import set_svr
from kvmtest.checks.l1 import Hypervisor
from kvmtest.guests import l1, vmx
from kvmtest.kvm import Exit, Vcpu
from kvmtest.kvm.where import where
from kvmtest.spec.cite import (
    KVM_API,
    S_DF,
    S_MP,
    S_PRIORITY,
    S_VMX_ACTIVITY,
    S_VMX_BASIC,
    S_VMX_EXITS,
    S_VMX_LIMITS,
    S_VMX_MISC,
    S_VMX_NON_REGISTER,
    S_VMXOFF,
)
from kvmtest.state.layout import MP_STATES
from kvmtest.triggers import msi
from kvmtest.uapi.kvm import (
    KVM_CAP_NESTED_STATE,
    KVM_CAP_X86_TRIPLE_FAULT_EVENT,
    KVM_EXIT_IO,
    KVM_EXIT_SHUTDOWN,
    KVM_MP_STATE_INIT_RECEIVED,
    KVM_STATE_NESTED_GUEST_MODE,
    KVM_VCPUEVENT_VALID_TRIPLE_FAULT,
)

__all__ = ("CHECKS", "Exited", "Nested", "in_l2", "need_vmx", "offered")

_CPUID_VMX = 1 << 5
_MSR_VMX_MISC, _MISC_WAIT_FOR_SIPI = 0x485, 1 << 8
#: Activity states.
_ACTIVE, _HLT, _WAIT_FOR_SIPI = 0, 1, 3
#: Exit reasons: L2's triple fault; and the bit of a VM entry that failed.
_TRIPLE_FAULT, _ENTRY_FAILURE = 2, 1 << 31
#: Turns of a loop without exits: some milliseconds at least.
_TURNS = 1_000_000
#: How long a vCPU that must execute nothing, or that must get somewhere, is run.
_WHILE_S = 0.02
_VECTOR = 0x9A
#: Pending debug exceptions: a single step.
_BS = 1 << 14
#: Pin-based controls.
_INTERRUPT_EXITING, _NMI_EXITING = 1 << 0, 1 << 3
#: Message data: delivery mode NMI; and a vector, which needs the local APIC enabled.
_NMI, _INTERRUPT, _SVR_ENABLED = 0x400, 0x61, 0x1FF


def need_vmx(subject: Subject) -> None:
    """Raises Untestable where the vCPU has no VMX."""
    if subject.vendor == "amd":
        raise Untestable("the guest's CPU is one of AMD's, which have no VMX")
    if not any(leaf.function == 1 and leaf.ecx & _CPUID_VMX for leaf in subject.vcpu.get_cpuid2()):
        raise Untestable("CPUID.1:ECX.VMX is clear: this KVM offers no VMX to its guests (kvm_intel's parameter nested=1)")
    if not subject.vcpu.vm.check_extension(KVM_CAP_NESTED_STATE):
        raise Untestable("KVM_CAP_NESTED_STATE is not there")


def offered(vcpu: Vcpu, index: int, bit: int) -> bool:
    """Whether capability MSR ``index`` that KVM shows its guest has ``bit``."""
    return bool(vcpu.get_msrs([index]).get(index, 0) & bit)


def in_l2(vcpu: Vcpu) -> bool:
    """Whether the vCPU runs a nested guest."""
    return bool(int.from_bytes(vcpu.get_nested_state()[:2], "little") & KVM_STATE_NESTED_GUEST_MODE)


def _state(vcpu: Vcpu) -> str:
    return MP_STATES.get(vcpu.get_mp_state(), "unknown")


class Exited(NamedTuple):
    """What L1 sees of a VM exit: VMCS fields, L2's RBX, and what SLDT gives."""

    reason: int
    qualification: int
    interruption: int
    activity: int
    pending_debug: int
    rip: int
    rbx: int
    ldtr: int

    def __str__(self) -> str:
        return f"exit reason {self.reason}"

    @property
    def kept(self) -> str:
        """What became of L2's registers."""
        return "kept" if self.rbx == vmx.MARK and vmx.CODE <= self.rip < vmx.CODE + vmx.CODE_SIZE else "changed"


class Nested(Hypervisor):
    """L1 before its entry into VMX operation, and L2 that does ``l2``. Raises Untestable."""

    def __init__(self, subject: Subject, topic: int, l2: int = vmx.L2_SPIN, **arguments: int) -> None:
        need_vmx(subject)
        super().__init__(subject, vmx, topic)
        self.set(ARG_L2=l2, ARG_TURNS=_TURNS, **arguments)
        self.enter()
        self.expect(l1.PORT_READY)

    def begin(self) -> None:
        """Let L1 enter L2, up to L2's first word. Raises Stopped."""
        port, value = self.next()
        if port == vmx.PORT_VMFAIL:
            raise Stopped(f"L1's VM entry fails with VM-instruction error {value:#x}")
        if port != l1.PORT_NESTED:
            raise Stopped(f"L1 gets no word of L2: {value:#x} by port {port:#x}")
        if not in_l2(self.vcpu):
            raise Stopped(f"KVM_GET_NESTED_STATE shows no nested guest while it runs ({where(self.vcpu)})")

    def exited(self, seen: Exit | None = None) -> Exited | str:
        """Run to L2's next VM exit, or from ``seen``: what L1 says of it, or what came instead. Raises Stopped."""
        seen = seen or self.run_for(self.timeout_s)
        if seen is None:
            return "no VM exit"
        if seen.reason == KVM_EXIT_IO and seen.port == l1.PORT_RESET:
            return "restarts"
        if seen.reason != KVM_EXIT_IO or seen.port != l1.PORT_EXIT:
            raise Stopped(f"no VM exit to L1, but {seen} ({where(self.vcpu)})")
        reason = int.from_bytes(seen.data[:4], "little")
        if reason & _ENTRY_FAILURE:
            return f"VM entry failed, reason {reason & ~_ENTRY_FAILURE}"
        return Exited(reason, *(self.expect(l1.PORT_VALUE) for _ in Exited._fields[1:]))


def _latched(subject: Subject) -> str:
    stage = Nested(subject, vmx.TOPIC_ROOT)
    msi.init(stage.vcpu)
    port, _ = stage.next()
    if port != l1.PORT_VALUE:
        return "taken in VMX root operation"
    return f"goes on, {'latched' if stage.vcpu.get_vcpu_events().smi.latched_init else 'lost'}"


def _at_vmxoff(subject: Subject) -> Observation:
    stage = Nested(subject, vmx.TOPIC_ROOT)
    msi.init(stage.vcpu)
    stage.expect(l1.PORT_VALUE)
    port, turns = stage.next()
    if port == l1.PORT_RESET:
        return Observation("restarts")
    stage.vcpu.get_mp_state()
    later = stage.run_for(stage.timeout_s)
    restarts = later is not None and later.reason == KVM_EXIT_IO and later.port == l1.PORT_RESET
    return Observation("goes on, restarts later" if restarts else "goes on", f"{turns - _TURNS} turns of a loop behind VMXOFF")


def _halted(subject: Subject) -> str:
    stage = Nested(subject, vmx.TOPIC_HALT)
    if (seen := stage.run_for(_WHILE_S)) is not None:
        raise Stopped(f"L1's HLT ends without INIT: {seen}")
    msi.init(stage.vcpu)
    seen = stage.run_for(_WHILE_S)
    if seen is None:
        return _state(stage.vcpu)
    return "restarts" if seen.port == l1.PORT_RESET else "HLT ends"


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
    return f"{exited}, registers {exited.kept}, {'consumed' if port == l1.PORT_LEFT else 'taken again behind VMXOFF'}"


def _exit_halted(subject: Subject) -> str:
    stage = Nested(subject, vmx.TOPIC_NESTED, vmx.L2_HLT)
    stage.begin()
    if (seen := stage.run_for(_WHILE_S)) is not None:
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
    seen = stage.run_for(_WHILE_S)
    if seen is not None:
        return f"L2 does not wait: {stage.exited(seen)}"
    if not in_l2(stage.vcpu) or stage.vcpu.get_mp_state() != KVM_MP_STATE_INIT_RECEIVED:
        raise Stopped(f"L2 does not wait for a SIPI ({where(stage.vcpu)})")
    return stage


def _init_in_wait_for_sipi(subject: Subject) -> str:
    stage = _wait_for_sipi(subject)
    if isinstance(stage, str):
        return stage
    msi.init(stage.vcpu)
    seen = stage.run_for(_WHILE_S)
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
    seen = stage.run_for(_WHILE_S)
    if seen is not None:
        return "the NMI in L2" if seen.port == vmx.PORT_NMI else str(stage.exited(seen))
    msi.sipi(stage.vcpu, _VECTOR)
    seen = stage.run_for(stage.timeout_s)
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
    seen = stage.run_for(stage.timeout_s)
    if seen is not None and seen.port == vmx.PORT_NMI:
        return "the NMI in L2"
    return str(stage.exited(seen)) if seen else "no VM exit"


def _sipi_in_l2(subject: Subject) -> str:
    stage = Nested(subject, vmx.TOPIC_NESTED)
    stage.begin()
    msi.sipi(stage.vcpu, _VECTOR)
    seen = stage.run_for(_WHILE_S)
    if seen is not None:
        return str(stage.exited(seen))
    if not stage.count():
        raise Stopped(f"L2 does not count, so that nothing shows that it goes on ({where(stage.vcpu)})")
    msi.init(stage.vcpu)
    return f"goes on, then by INIT {stage.exited()}"


def _sipi_in_root(subject: Subject) -> str:
    stage = Nested(subject, vmx.TOPIC_ROOT)
    msi.sipi(stage.vcpu, l1.CODE >> 12)
    port, _ = stage.next()
    if port == l1.PORT_SIPI:
        return "started by the SIPI"
    stage.expect(l1.PORT_LEFT)
    msi.init(stage.vcpu)
    return f"goes on, behind INIT {_state(stage.vcpu)}"


def _sipi_behind_latched(subject: Subject) -> str:
    stage = Nested(subject, vmx.TOPIC_ROOT)
    msi.init(stage.vcpu)
    msi.sipi(stage.vcpu, l1.CODE >> 12)
    stage.expect(l1.PORT_VALUE)
    seen = stage.run_for(stage.timeout_s)
    state = _state(stage.vcpu)
    if seen is None or seen.reason == KVM_EXIT_IO and seen.port == l1.PORT_LEFT:
        return f"behind VMXOFF {state}"
    return "started by the SIPI" if seen.port == l1.PORT_SIPI else str(seen)


def _triple_fault(subject: Subject) -> Observation:
    stage = Nested(subject, vmx.TOPIC_NESTED, vmx.L2_SHUTDOWN)
    stage.begin()
    return _down(stage)


def _down(stage: Nested) -> Observation:
    seen = stage.run_for(stage.timeout_s)
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


_ROOT = (S_VMX_LIMITS, S_VMX_EXITS)
_NON_ROOT = (S_VMX_EXITS, S_VMX_BASIC)
_WAITING = (S_VMX_EXITS, S_VMX_ACTIVITY, S_VMX_BASIC)
_ANYWHERE = "the API says that KVM_GET_MP_STATE takes a pending INIT, and not that it makes a VM exit"
_STEPPED = f"exit reason 3, pending debug exceptions {_BS:#x}"
_ONLY_SIPI = "no VM exit, then by a SIPI exit reason 4"
_MAY_LACK = "a CPU may lack this activity state"

CHECKS = (
    Check(
        "init", "msi", "latched-in-vmx-root", ("E-16",), "goes on, latched", _latched, _ROOT,
        target="bsp", view="guest", alone=True,
    ),
    Check(
        "init", "msi", "halted-in-vmx-root", ("E-16", "E-24"), "HALTED", _halted, _ROOT,
        target="bsp", view="guest", alone=True,
    ),
    Check(
        "init", "msi", "taken-at-vmxoff", ("E-16",), "restarts", _at_vmxoff, (S_VMX_LIMITS, S_VMXOFF),
        target="bsp", view="guest", alone=True,
    ),
    Check(
        "init", "msi", "exit-from-vmx-guest", ("E-17",), "exit reason 3, registers kept, consumed", _exit, _NON_ROOT,
        target="bsp", view="guest", alone=True,
    ),
    Check(
        "init", "msi", "exit-from-halted-vmx-guest", ("E-17",), f"exit reason 3, activity state {_HLT}", _exit_halted,
        (*_NON_ROOT, S_VMX_NON_REGISTER), target="bsp", view="guest", alone=True,
    ),
    Check(
        "init", "msi", "exit-at-vmx-entry", ("E-16", "E-17"), "exit reason 3", _exit_behind_entry, (*_ROOT, S_VMX_BASIC),
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
        "sipi", "msi", "dropped-in-vmx-root", ("E-5", "E-16"), "goes on, behind INIT INIT_RECEIVED", _sipi_in_root,
        (S_MP, S_VMX_LIMITS, S_VMX_ACTIVITY), view="guest", alone=True,
    ),
    Check(
        "sipi", "msi", "dropped-behind-init-in-vmx-root", ("E-5", "E-16"), "behind VMXOFF INIT_RECEIVED", _sipi_behind_latched,
        (S_MP, S_VMX_LIMITS, S_VMX_ACTIVITY), view="guest", alone=True,
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
