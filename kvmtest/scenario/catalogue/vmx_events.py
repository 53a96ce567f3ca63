# SPDX-License-Identifier: GPL-2.0-only
"""INIT beside what else is pending while a nested guest of a VMX hypervisor runs, and L2 that a VMM restores and leaves."""

from __future__ import annotations

from kvmtest.scenario import step as s
from kvmtest.scenario.catalogue.common import pending
from kvmtest.scenario.catalogue.smm import GOES_ON, handler
from kvmtest.scenario.catalogue.vmx import INTERRUPT_EXITING, NMI_EXITING, entering, exits, nested, scenario
from kvmtest.scenario.hypervisor import in_l2
from kvmtest.scenario.setup import Setup
from kvmtest.scenario.states import vmxon
from kvmtest.scenario.step import Scenario
from kvmtest.spec.cite import (
    KVM_API,
    LINUX_NESTED_SMM,
    S_PRIORITY,
    S_SMM_INHIBIT,
    S_VMX_BASIC,
    S_VMX_EXITS,
    S_VMX_MTF,
    S_VMX_SMM,
    S_VMX_TIMER,
)
from kvmtest.uapi.kvm import KVM_MP_STATE_HALTED, KVM_STATE_NESTED_GUEST_MODE

__all__ = ("SCENARIOS",)

_EXCEPTION, _INTERRUPT, _INIT, _MTF, _TIMER = 0, 1, 3, 37, 52
_TIMER_ACTIVE, _MONITOR_TRAP = 1 << 6, 1 << 27
_UD, _DB, _GP, _BS = 6, 1, 13, 1 << 14
_VECTOR = 0x61
#: VM-exit interruption information: valid, and the type: NMI, hardware exception.
_OF_NMI, _OF_EXCEPTION = 1 << 31 | 2 << 8 | 2, 1 << 31 | 3 << 8
_BESIDE = (S_PRIORITY, S_VMX_EXITS, S_VMX_BASIC)
_NO_MANUAL = "no manual describes it: userspace asks for a state that a CPU cannot be in"

#: By KVM_SET_VCPU_EVENTS and in HLT: under Bochs one that KVM_NMI brings comes some instructions later.
_NMI = s.Set((("events.nmi_pending", 1),))
_HALTED = s.Until(s.Is("mp_state", KVM_MP_STATE_HALTED))
_REQUESTED = (s.Set((("lapic.svr", 0x1FF),)), s.Send("interrupt", vector=_VECTOR, judged=False))
#: #UD as one of L2's instructions would raise it.
_RAISED = s.Set((("events.exception_nr", _UD), ("events.exception_pending", 1)), check=False)
_SENT = s.Send("init")
#: Its exception handler has the low bits of RIP, which is in the loop.
_UD_IN_L2, _GP_IN_L2, _DB_IN_L2 = (
    s.Expect(s.Words((s.Word("FAULT", vector << 24, "exception {:#x}", mask=0xFF000000),)), "delivered")
    for vector in (_UD, _GP, _DB)
)
_NMI_IN_L2 = s.Expect(s.Word("NMI"), "delivered")


def _beside(
    name: str, what: tuple[s.Step, ...], event: str, exit: s.Step, there: s.Step, l2: str = "L2_SPIN", **words: int
) -> tuple[Scenario, ...]:
    """``what`` alone makes this ``exit``, or is ``there`` in L2 where L1 lets it; an INIT beside it comes first."""
    intercepted = (*nested(l2, **words), *what)
    alone = scenario(f"{event}.vm-exit", f"{name}-in-vmx-l2-intercepted", _BESIDE, *intercepted, exit)
    first = scenario("init.msi", f"in-vmx-l2-beside-intercepted-{name}", _BESIDE, *intercepted, _SENT, exits(_INIT), pending(0))
    let_through = (*nested(l2), *what)
    return (
        alone, first,
        scenario(f"{event}.vm-exit", f"{name}-in-vmx-l2", _BESIDE, *let_through, there),
        scenario("init.msi", f"in-vmx-l2-beside-{name}", _BESIDE, *let_through, _SENT, exits(_INIT), pending(0)),
    )  # fmt: skip


_STEPPED = nested("L2_STEP", exceptions=1 << _DB)
_TRAPS = ("vmx", "vmx-monitor-trap")
_TRAPPED = (*entering("L2_OUT", controls=_MONITOR_TRAP), s.Until(s.Word("NESTED")))
#: It has expired before L2's first instruction.
_TIMED = entering("L2_SPIN", pins=_TIMER_ACTIVE, timer=1)
_SMI = (handler(), *nested("L2_SPIN"), s.Send("smi", "ioctl-smi", judged=False), s.Until(s.Word("smram.SMI")))
#: KVM_GET_NESTED_STATE, and the same by KVM_SET_NESTED_STATE.
_RESTORE = (s.Set((("nested.flags", KVM_STATE_NESTED_GUEST_MODE),)), s.Expect(in_l2(), "nested.flags"))
_RESTORED = (*nested("L2_SPIN"), s.Complete(), *_RESTORE)

SCENARIOS = (
    *_beside("nmi", (_HALTED, _NMI), "nmi", exits(_EXCEPTION, interruption=_OF_NMI), _NMI_IN_L2, "L2_HLT", pins=NMI_EXITING),
    # L1's IDT, which L2 has, ends before this vector.
    *_beside("interrupt", _REQUESTED, "none", exits(_INTERRUPT), _GP_IN_L2, pins=INTERRUPT_EXITING),
    *_beside(
        "exception", (_RAISED,), "none", exits(_EXCEPTION, interruption=_OF_EXCEPTION | _UD), _UD_IN_L2, exceptions=1 << _UD,
    ),
    scenario(
        "none.vm-exit", "single-step-in-vmx-l2-intercepted", _BESIDE, *_STEPPED,
        exits(_EXCEPTION, qualification=_BS, interruption=_OF_EXCEPTION | _DB),
    ),
    # KVM emulates the OUT, so that the trap is pending when KVM_RUN comes back.
    scenario(
        "none.vm-exit", "single-step-in-vmx-l2-told", (*_BESIDE, KVM_API), *_STEPPED, s.Complete(), s.Observe(),
        exits(_EXCEPTION, interruption=_OF_EXCEPTION | _DB),
    ),
    scenario("none.vm-exit", "single-step-in-vmx-l2", _BESIDE, *nested("L2_STEP"), _DB_IN_L2),
    # Without a local APIC in the kernel no INIT or SIPI is looked for.
    scenario(
        "nmi.vm-exit", "in-vmx-l2-without-irqchip", _BESIDE, *nested("L2_HLT", pins=NMI_EXITING), s.Complete(), _NMI,
        exits(_EXCEPTION, interruption=_OF_NMI),
    )._replace(setup=Setup("none")),
    scenario(
        "init.msi", "in-vmx-l2-beside-intercepted-single-step", _BESIDE, *_STEPPED, _SENT, exits(_INIT, pending_debug=_BS),
    ),
    scenario("none.vm-exit", "monitor-trap-in-vmx-l2", (S_VMX_MTF,), *_TRAPPED, exits(_MTF), needs=_TRAPS),
    scenario("init.msi", "in-vmx-l2-beside-monitor-trap", (S_VMX_MTF, S_PRIORITY), *_TRAPPED, _SENT, exits(_INIT), needs=_TRAPS),
    scenario("none.vm-exit", "preemption-timer-in-vmx-l2", (S_VMX_TIMER,), *_TIMED, exits(_TIMER)),
    scenario("init.msi", "in-vmx-l2-beside-preemption-timer", (S_VMX_TIMER, S_PRIORITY), *_TIMED, _SENT, exits(_INIT)),
    scenario(
        "init.msi", "in-smm-over-vmx-l2", (S_SMM_INHIBIT, S_VMX_SMM), *_SMI, *GOES_ON, exits(_INIT), needs=("vmx", "smm"),
    ),
    # An event that is being delivered is, and the INIT comes then.
    scenario(
        "init.msi", "in-vmx-l2-over-injected-nmi", (KVM_API, S_VMX_EXITS),
        *nested("L2_SPIN"), s.Set((("events.nmi_injected", 1),)), _SENT, exits(_INIT),
    ),
    scenario("init.msi", "in-restored-vmx-l2", (KVM_API, S_VMX_EXITS), *_RESTORED, _SENT, exits(_INIT), pending(0)),
    scenario(
        "nmi.vm-exit", "in-restored-vmx-l2", (KVM_API, S_VMX_EXITS),
        *nested("L2_HLT"), _HALTED, *_RESTORE, _NMI, _NMI_IN_L2,
    ),
    scenario(
        "none.nested-state", "root-in-vmx-l2", (KVM_API,), *nested("L2_SPIN"), s.Complete(), vmxon(True),
        s.Expect(in_l2(0), "nested.flags"), s.Expect(s.Is("nested.vmxon_pa", 0x10000)), view="host",
    ),
    scenario(
        "none.vcpu-events", "smm-in-vmx-l2", (LINUX_NESTED_SMM,), *nested("L2_SPIN"), s.Set((("events.smi_smm", 1),)),
        s.Expect(in_l2(0), "nested.flags"), view="host", needs=("vmx", "smm"), undefined=_NO_MANUAL,
    ),
)  # fmt: skip
