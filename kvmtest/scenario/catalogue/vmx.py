# SPDX-License-Identifier: GPL-2.0-only
"""INIT, SIPI and shutdown in VMX operation: in VMX root operation INIT waits and SIPI is dropped, in L2 they make VM exits."""

from __future__ import annotations

from kvmtest.scenario import step as s
from kvmtest.scenario.catalogue.common import FINDS, HELD, PLANTED, SIPI_VECTOR, init_received, pending, restarted
from kvmtest.scenario.hypervisor import CR0, EFER, IN_L2, enter, in_l2
from kvmtest.scenario.states import vmxon
from kvmtest.scenario.step import Scenario
from kvmtest.spec.cite import (
    KVM_API,
    S_DF,
    S_MP,
    S_PRIORITY,
    S_VMX_ACTIVITY,
    S_VMX_BASIC,
    S_VMX_CONDITIONAL,
    S_VMX_EXITS,
    S_VMX_HOST_SEGMENTS,
    S_VMX_LIMITS,
    S_VMX_MISC,
    S_VMX_NON_REGISTER,
    S_VMXOFF,
)
from kvmtest.uapi.kvm import KVM_MP_STATE_HALTED, KVM_MP_STATE_INIT_RECEIVED, KVM_MP_STATE_SIPI_RECEIVED

__all__ = ("NMI_EXITING", "INTERRUPT_EXITING", "SCENARIOS", "entering", "exits", "nested", "scenario")

#: Turns of a loop without exits: some milliseconds at least.
_TURNS = 1_000_000
#: RBX of L2.
_MARK = 0x5A5AA5A5
_VECTOR, _INTERRUPT = 0x9A, 0x61
#: Activity states.
_HLT, _WAIT_FOR_SIPI = 1, 3
#: Basic exit reasons.
_NMI_EXIT, _TRIPLE_FAULT_EXIT, _INIT_EXIT, _SIPI_EXIT, _HLT_EXIT, _CR_EXIT = 0, 2, 3, 4, 12, 28
#: Pin-based and primary processor-based controls.
INTERRUPT_EXITING, NMI_EXITING, _HLT_EXITING, _CR3_LOAD_EXITING = 1 << 0, 1 << 3, 1 << 7, 1 << 15
#: Pending debug exceptions: a single step.
_BS = 1 << 14
#: The fields of a VM exit that L1 reports after its reason, in this order.
_FIELDS = {
    "qualification": "qualification {:#x}",
    "interruption": "interruption information {:#x}",
    "activity": "activity state {}",
    "pending_debug": "pending debug exceptions {:#x}",
    "page": "RIP in the page {:#x}",
    "rbx": "RBX {:#x}",
    "sldt": "SLDT {:#x}",
}
_ALL, _PAGE = 0xFFFFFFFF, 0xFFFFF000
#: Fields that show that L2's registers are kept.
_KEPT = {"page": SIPI_VECTOR << 12, "rbx": _MARK}


def _exited(reason: int, **fields: int) -> s.Words:
    """Return the words of L1 for a VM exit with this ``reason`` and these of its fields."""
    values = (s.Word("VALUE", fields.get(name), says, mask=_PAGE if name == "page" else _ALL) for name, says in _FIELDS.items())
    return s.Words((s.Word("EXIT", reason, "reason {}"), *values))


def exits(reason: int, **fields: int) -> s.Step:
    return s.Expect(_exited(reason, **fields), "exits")


def _l1(topic: str, *words: tuple[str, int | str]) -> tuple[s.Step, ...]:
    """L1 in VMX root operation; of TOPIC_NESTED before its VM entry."""
    return (*enter("vmx", (("TOPIC", topic), ("ARG_TURNS", _TURNS), ("ARG_MARK", _MARK), *words)), s.Until(s.Word("READY")))


def entering(l2: str, **words: int) -> tuple[s.Step, ...]:
    """L1 before its VM entry to L2, which does ``l2``."""
    return _l1("TOPIC_NESTED", ("ARG_L2", l2), *((f"ARG_{name.upper()}", value) for name, value in words.items()))


def _until(mp_state: int) -> s.Step:
    return s.Until(s.Is("mp_state", mp_state))


_NESTED = (s.Until(s.Word("NESTED")), IN_L2)


def nested(l2: str, **words: int) -> tuple[s.Step, ...]:
    """L2 after its first word."""
    return (*entering(l2, **words), *_NESTED)


def _waiting(pins: int = 0) -> tuple[s.Step, ...]:
    """L2 in wait-for-SIPI."""
    return (*entering("L2_SPIN", activity=_WAIT_FOR_SIPI, pins=pins), _until(KVM_MP_STATE_INIT_RECEIVED), IN_L2)


_ROOT = (*_l1("TOPIC_ROOT"), FINDS)
_SIPI = s.Send("sipi", vector=_VECTOR)
_SIPI_TO_L1 = s.Send("sipi", vector=SIPI_VECTOR)
_THEN_INIT, _THEN_SIPI = s.Send("init", judged=False), s.Send("sipi", vector=_VECTOR, judged=False)
_NMI = s.Send("nmi", judged=False)

#: KVM without unrestricted guests intercepts CR3 while a guest does not page: it must not stop then for one whose L1 does.
_UNPAGED = (("cr0", CR0 & ~(1 << 31)), ("efer", 0), ("cs.l", 0), ("cs.db", 1))
_PAGED = (("cr0", CR0), ("efer", EFER), ("cs.l", 1), ("cs.db", 0))
_REFUSED = "KVM_SET_SREGS refuses to clear CR0.PG of a nested guest that is not unrestricted"

_IN_ROOT = (S_VMX_LIMITS, S_VMX_EXITS)
_DROPPED = (S_MP, S_VMX_LIMITS, S_VMX_ACTIVITY)
_NON_ROOT = (S_VMX_EXITS, S_VMX_BASIC)
_IN_WAIT = (S_VMX_EXITS, S_VMX_ACTIVITY, S_VMX_BASIC)
_CR3 = (S_VMX_CONDITIONAL, S_VMX_BASIC)
_ANYWHERE = "the API says that KVM_GET_MP_STATE accepts a pending INIT, and does not say that it makes a VM exit"
_MAY_LACK = "a CPU may lack this activity state"


def scenario(
    id: str, sequence: str, cite: tuple[str, ...], *steps: s.Step,
    target: str = "bsp", view: str = "guest", needs: tuple[str, ...] = ("vmx",), undefined: str = "",
) -> Scenario:  # fmt: skip
    event, trigger = id.split(".")
    return Scenario(event, trigger, sequence, steps, cite, target, view, needs, undefined=undefined, vendors=("intel",))


_WAITS = ("vmx", "vmx-wait-for-sipi")

SCENARIOS = (
    scenario(
        "init.msi", "in-vmx-root-until-vmxoff", (*_IN_ROOT, S_VMXOFF),
        *_ROOT, s.Send("init"), s.Expect(s.Word("VALUE")), pending(), *restarted(),
    ),
    scenario(
        "init.msi", "halted-in-vmx-root", _IN_ROOT,
        *_l1("TOPIC_HALT"), _until(KVM_MP_STATE_HALTED), FINDS, s.Send("init"), s.Expect(s.Quiet()), *HELD[2:],
    ),
    scenario(
        "sipi.msi", "in-vmx-root", _DROPPED,
        *_ROOT, _SIPI_TO_L1, s.Expect(s.Word("VALUE")), s.Expect(s.Word("LEFT")), s.Send("init"), s.Observe(), target="ap",
    ),
    scenario(
        "sipi.msi", "after-init-in-vmx-root", _DROPPED,
        *_ROOT, _THEN_INIT, _SIPI_TO_L1, s.Until(s.Word("VALUE")), s.Expect(s.Quiet()), s.Observe(rule="init"), target="ap",
    ),
    *(
        init_received(f"{name}-received-in-vmx-root", (PLANTED, vmxon(True)), ("vmx",), state)._replace(vendors=("intel",))
        for name, state in (("init", KVM_MP_STATE_INIT_RECEIVED), ("sipi", KVM_MP_STATE_SIPI_RECEIVED))
    ),
    scenario(
        "init.msi", "in-vmx-l2-loop", _NON_ROOT,
        *nested("L2_SPIN"), s.Send("init"), exits(_INIT_EXIT, **_KEPT),
        s.Until(s.Word("READY")), s.Expect(s.Word("LEFT")), pending(0),
    ),
    scenario(
        "init.msi", "in-vmx-l2-hlt", (*_NON_ROOT, S_VMX_NON_REGISTER),
        *nested("L2_HLT"), _until(KVM_MP_STATE_HALTED), s.Send("init"), exits(_INIT_EXIT, activity=_HLT, **_KEPT),
    ),
    scenario(
        "init.msi", "before-vmx-entry", (S_VMX_LIMITS, *_NON_ROOT),
        *entering("L2_SILENT"), s.Send("init"), exits(_INIT_EXIT),
    ),
    scenario(
        "init.msi", "in-vmx-l2-in-single-step", (S_PRIORITY, S_VMX_EXITS, S_VMX_NON_REGISTER),
        *nested("L2_STEP"), s.Send("init"), exits(_INIT_EXIT, pending_debug=_BS, **_KEPT),
    ),
    scenario(
        "init.msi", "in-vmx-l2-after-get-mp-state", (KVM_API, *_NON_ROOT),
        *nested("L2_SPIN"), s.Send("init"), s.Complete(), s.Settle(), exits(_INIT_EXIT, **_KEPT),
    ),
    scenario(
        "init.msi", "in-vmx-l2-at-get-mp-state", (KVM_API, *_NON_ROOT),
        *nested("L2_SPIN"), s.Send("init"), s.Complete(), s.Settle(), s.Expect(in_l2(0)), view="host", undefined=_ANYWHERE,
    ),
    scenario(
        "init.msi", "in-vmx-l2-waiting", _IN_WAIT,
        *_waiting(), s.Send("init"), s.Expect(s.Quiet()), _THEN_SIPI, exits(_SIPI_EXIT), needs=_WAITS,
    ),
    scenario(
        "sipi.msi", "in-vmx-l2-waiting", (*_IN_WAIT, S_VMX_NON_REGISTER),
        *_waiting(), _SIPI, exits(_SIPI_EXIT, qualification=_VECTOR, activity=_WAIT_FOR_SIPI), needs=_WAITS,
    ),
    scenario(
        "sipi.msi", "after-nmi-in-vmx-l2-waiting", _IN_WAIT,
        *_waiting(NMI_EXITING), _NMI, s.Require(s.Is("events.nmi_pending", 1), "no NMI is pending"),
        s.Expect(s.Quiet()), _SIPI, exits(_SIPI_EXIT), needs=_WAITS,
    ),
    scenario(
        "sipi.msi", "after-interrupt-in-vmx-l2-waiting", _IN_WAIT,
        *_waiting(INTERRUPT_EXITING), s.Set((("lapic.svr", 0x1FF),)), s.Send("interrupt", vector=_INTERRUPT, judged=False),
        s.Expect(s.Quiet()), _SIPI, exits(_SIPI_EXIT), needs=_WAITS,
    ),
    scenario("sipi.msi", "after-nmi-in-vmx-l2", _IN_WAIT, *nested("L2_SPIN", pins=NMI_EXITING), _NMI, _SIPI, exits(_NMI_EXIT)),
    scenario(
        "sipi.msi", "in-vmx-l2-loop", _IN_WAIT,
        *nested("L2_SPIN"), _SIPI, s.Expect(s.Quiet("makes no VM exit"), "exits"), s.Until(s.Moves("COUNT")),
        _THEN_INIT, exits(_INIT_EXIT),
    ),
    scenario("shutdown.triple-fault", "in-vmx-l2", (S_VMX_EXITS, S_DF), *nested("L2_SHUTDOWN"), exits(_TRIPLE_FAULT_EXIT)),
    scenario(
        "shutdown.vcpu-events", "in-vmx-l2", (S_VMX_EXITS, S_DF, KVM_API),
        *nested("L2_SPIN"), s.Set((("events.triple_fault_pending", 1),)), exits(_TRIPLE_FAULT_EXIT),
        needs=("triple-fault-event", "vmx"),
    ),
    scenario(
        "none.vm-entry", "in-vmx-l2-waiting", (S_VMX_MISC,), s.Expect(s.Is("msr.vmx_misc", 1 << 8, 1 << 8)),
        view="host", undefined=_MAY_LACK,
    ),
    scenario(
        "none.vm-exit", "ldtr-in-vmx-root", (S_VMX_HOST_SEGMENTS,),
        *entering("L2_HLT", controls=_HLT_EXITING), s.Require(s.Is("ldt.unusable", 0), "L1's LLDT leaves LDTR unusable"),
        *_NESTED, s.Until(s.Words(_exited(_HLT_EXIT).words[:-1]), note="L2's HLT makes no VM exit"),
        s.Expect(s.Word("VALUE", 0), "ldt.selector"), s.Expect(s.Is("ldt.selector", 0)), s.Expect(s.Is("ldt.unusable", 1)),
    ),
    # Qualification: CR3, MOV to it, RAX.
    scenario(
        "none.vm-exit", "cr3-load-in-vmx-l2", _CR3,
        *nested("L2_CR3", controls=_CR3_LOAD_EXITING), exits(_CR_EXIT, qualification=3),
    ),
    scenario(
        "none.vm-exit", "cr3-load-in-repaged-vmx-l2", _CR3,
        *nested("L2_CR3", controls=_CR3_LOAD_EXITING), s.Complete(), s.Set(_UNPAGED, why=_REFUSED, check=False), s.Set(_PAGED),
        exits(_CR_EXIT, qualification=3), needs=("vmx", "vmx-restricted-guest"),
    ),
)  # fmt: skip
