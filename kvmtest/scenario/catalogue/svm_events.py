# SPDX-License-Identifier: GPL-2.0-only
"""INIT beside what else is pending while a nested guest of an SVM hypervisor runs, and L2 that a VMM restores."""

from __future__ import annotations

from kvmtest.scenario import step as s
from kvmtest.scenario.catalogue.common import FINDS, RESTARTS
from kvmtest.scenario.catalogue.smm import handler
from kvmtest.scenario.catalogue.svm import INTERCEPT_INIT, exits, hypervisor
from kvmtest.scenario.hypervisor import IN_L2, in_l2
from kvmtest.scenario.setup import Setup
from kvmtest.scenario.step import Scenario
from kvmtest.spec.cite import A_EXCEPTION_INTERCEPTS, A_INTERRUPT_INTERCEPTS, A_PRIORITY, A_SVM_INIT, KVM_API
from kvmtest.uapi.kvm import KVM_STATE_NESTED_GIF_SET, KVM_STATE_NESTED_GUEST_MODE

__all__ = ("EXCEPTIONS", "SCENARIOS")

#: Bits of the VMCB's intercepts at 00CH, and the #VMEXIT that each makes, as those of exceptions.
_INTR, _NMI, _SMI = 0, 1, 2
_EXIT_INTR, _EXIT_NMI, _EXIT_SMI, _EXIT_INIT, _EXIT_EXCEPTION = 0x60, 0x61, 0x62, 0x63, 0x40
#: The VMCB's intercepts of exceptions.
EXCEPTIONS = 0x10008
_UD = 6
_VECTOR, _RFLAGS_IF = 0x61, 0x202
_CITE, _RESTORE = (A_INTERRUPT_INTERCEPTS, A_EXCEPTION_INTERCEPTS, A_PRIORITY), (KVM_API, A_SVM_INIT, A_INTERRUPT_INTERCEPTS)

_NMI_SENT, _SMI_SENT = s.Send("nmi", "ioctl-nmi", judged=False), s.Send("smi", "ioctl-smi", judged=False)
#: As one of L2's instructions would raise it.
_RAISED = s.Set((("events.exception_nr", _UD), ("events.exception_pending", 1)), check=False)
#: Without V_INTR_MASKING it is L2's own IF that lets interrupts in.
_REQUESTED = (s.Set((("lapic.svr", 0x1FF), ("rflags", _RFLAGS_IF))), s.Send("interrupt", vector=_VECTOR, judged=False))
_WAITS_FOR_IF = (
    s.Set((("lapic.svr", 0x1FF),)), s.Send("interrupt", vector=_VECTOR, judged=False), s.Until(s.Moves("COUNT")), s.Observe(),
)  # fmt: skip
_SENT = s.Send("init")


def _fault(vector: int) -> s.Step:
    """L2 raises an exception, or gets a vector that its IDT lacks."""
    return s.Expect(s.Words((s.Word("FAULT", vector << 24, "exception {:#x}", mask=0xFF000000),)), "delivered")


def _l2(*intercepts: int, exceptions: int = 0, nested: str = "NESTED_SPIN") -> tuple[s.Step, ...]:
    """To the nested guest's first word, and after that OUT."""
    ready = (*hypervisor("TOPIC_RUN", *intercepts, nested=nested), s.Poke(EXCEPTIONS, exceptions))
    return (*ready, s.Until(s.Word("NESTED")), s.Complete(), IN_L2, FINDS)


def _case(
    id: str, sequence: str, *steps: s.Step, cite: tuple[str, ...] = _CITE, needs: tuple[str, ...] = (), irqchip: str = "full"
) -> Scenario:
    event, trigger = id.split(".")
    return Scenario(
        event, trigger, sequence, steps, cite, "bsp", "guest", ("svm", *needs), Setup(irqchip), vendors=("amd",)
    )  # fmt: skip


def _beside(
    name: str, event: str, what: tuple[s.Step, ...], code: int, there: tuple[s.Step, ...], *bits: int, exceptions: int = 0,
    needs: tuple[str, ...] = (),
) -> tuple[Scenario, ...]:  # fmt: skip
    """``what`` alone makes the #VMEXIT ``code`` where it is intercepted, and else is ``there``; an INIT comes before both."""
    return (
        _case(
            f"{event}.vm-exit", f"{name}-in-svm-l2-intercepted", *_l2(*bits, exceptions=exceptions), *what, exits(code),
            needs=needs,
        ),
        _case(f"{event}.vm-exit", f"{name}-in-svm-l2", *_l2(), *what, *there, needs=needs),
        _case(
            "init.msi", f"in-svm-l2-intercepted-beside-intercepted-{name}",
            *_l2(INTERCEPT_INIT, *bits, exceptions=exceptions), *what, _SENT, exits(_EXIT_INIT), needs=needs,
        ),
        _case("init.msi", f"in-svm-l2-beside-{name}", *_l2(), *what, _SENT, RESTARTS, s.Observe(), needs=needs),
    )  # fmt: skip


_GUEST_MODE = KVM_STATE_NESTED_GUEST_MODE | KVM_STATE_NESTED_GIF_SET
#: KVM_GET_NESTED_STATE, and the same by KVM_SET_NESTED_STATE.
_RESTORED = (s.Set((("nested.flags", _GUEST_MODE),)), s.Expect(in_l2(), "nested.flags"))

SCENARIOS = (
    *_beside("nmi", "nmi", (_NMI_SENT,), _EXIT_NMI, (_fault(2),), _NMI),
    *_beside(
        "smi", "none", (handler(), _SMI_SENT), _EXIT_SMI, (s.Expect(s.Word("smram.SMI"), "delivered"),), _SMI, needs=("smm",),
    ),
    # L1's IDT, which L2 has, ends before this vector.
    *_beside("interrupt", "none", _REQUESTED, _EXIT_INTR, (_fault(13),), _INTR),
    *_beside("exception", "none", (_RAISED,), _EXIT_EXCEPTION + _UD, (_fault(_UD),), exceptions=1 << _UD),
    _case(
        "init.msi", "in-svm-l2-intercepted-over-injected-nmi",
        *_l2(INTERCEPT_INIT), s.Set((("events.nmi_injected", 1),)), _SENT, exits(_EXIT_INIT), cite=_RESTORE,
    ),
    _case(
        "init.msi", "in-restored-svm-l2-intercepted", *_l2(INTERCEPT_INIT), *_RESTORED, _SENT, exits(_EXIT_INIT), cite=_RESTORE,
    ),
    _case("init.msi", "in-restored-svm-l2", *_l2(), *_RESTORED, _SENT, RESTARTS, s.Observe(), cite=_RESTORE),
    _case(
        "nmi.vm-exit", "in-restored-svm-l2-intercepted", *_l2(_NMI), *_RESTORED, _NMI_SENT, exits(_EXIT_NMI), cite=_RESTORE,
    ),
    # KVM has asked the CPU for an interrupt window when INIT clears EFER.SVME.
    _case(
        "init.msi", "in-svm-l1-with-interrupt-waiting", *hypervisor("TOPIC_SPIN"), s.Complete(), *_WAITS_FOR_IF, _SENT, RESTARTS,
        s.Observe(), cite=(A_SVM_INIT, A_INTERRUPT_INTERCEPTS),
    ),
    # Without a local APIC in the kernel no INIT is looked for.
    _case("nmi.vm-exit", "in-svm-l2-without-irqchip", *_l2(_NMI), _NMI_SENT, exits(_EXIT_NMI), irqchip="none"),
)  # fmt: skip
