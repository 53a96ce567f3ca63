# SPDX-License-Identifier: GPL-2.0-only
"""INIT with other pending events, and events while a vCPU waits for a SIPI."""

from __future__ import annotations

from kvmtest.scenario import step as s
from kvmtest.scenario.catalogue.common import (
    LISTENS,
    RESTARTS,
    SIPI_VECTOR,
    boot,
    reported,
    restarted,
    start,
    turn,
    wait_for_sipi,
)
from kvmtest.scenario.catalogue.smm import handler
from kvmtest.scenario.step import Scenario
from kvmtest.spec.cite import A_APIC, A_INIT_IPI, A_PRIORITY, S_APIC_INIT, S_PRIORITY, S_VMX_ACTIVITY, S_VMX_EXITS_CLEAR

__all__ = ("SCENARIOS",)

_VECTOR, _IRR, _IRR_BIT = 0x61, "lapic.irr3", 1 << 1
#: TPR in a priority class above the vector's; RFLAGS.IF.
_ABOVE, _RFLAGS_IF = 0x90, 0x202
_REQUESTED = (
    s.Send("interrupt", vector=_VECTOR, judged=False),
    s.Require(s.Is(_IRR, _IRR_BIT, _IRR_BIT), "the interrupt is not requested in the local APIC's IRR"),
)
_NMI, _SMI = s.Send("nmi", "ioctl-nmi", judged=False), s.Send("smi", "ioctl-smi", judged=False)
#: The base in IDTR until INIT: the NMI handler there reports itself, that of the table at 0 counts.
_OTHER_TABLE = 0x8000

_PRIORITY = (S_PRIORITY, A_PRIORITY)
_WAITING = (S_VMX_ACTIVITY, A_INIT_IPI)
_NOT_SAID = "the APM does not say whether INIT leaves an NMI that was pending before it"
_HELD = "the SDM blocks an NMI in wait-for-SIPI and does not say whether it is kept; the APM holds it pending until the SIPI"
_ONE_CLASS = "the SDM's table puts SMI and INIT into one class, and does not say that one outlives the other"


def _requested(sequence: str, cite: tuple[str, ...], *prepared: tuple[str, int]) -> Scenario:
    """INIT forgets a requested interrupt, which neither comes before it nor keeps the CPU from restarting.

    On VT-x one that TPR holds back sets a threshold, which an INIT that clears TPR has to undo.
    """
    steps = (
        LISTENS, *boot("bsp"), *_REQUESTED, *turn(1), *_REQUESTED, s.Set(prepared), s.Observe(), s.Send("init"), RESTARTS,
        s.Expect(s.Holds("COUNT", 0), "delivered", says=((0, "none"), (1, "before INIT"))), s.Observe(), s.Until(s.Word("READY")),
        *reported(0),
    )  # fmt: skip
    return Scenario("init", "msi", sequence, steps, cite, "bsp", "guest")


def _waits(sequence: str, sent: tuple[s.Step, ...], changes: str, *then: s.Step) -> Scenario:
    """An AP in wait-for-SIPI whose local APIC (in x2APIC mode) and flags would accept what is ``sent``."""
    steps = (
        LISTENS, *boot("ap"), *wait_for_sipi(), s.Set((("lapic.svr", 0x1FF), ("rflags", _RFLAGS_IF))), s.Observe(), *sent,
        s.Expect(s.Quiet()), s.Expect(s.Same((changes,))), *then,
    )  # fmt: skip
    return Scenario("init", "msi", sequence, steps, _WAITING, view="guest")


SCENARIOS = (
    _requested("interrupt-requested", (S_APIC_INIT, A_APIC)),
    _requested("interrupt-below-tpr", (S_APIC_INIT, A_APIC), ("lapic.tpr", _ABOVE)),
    _requested("interrupt-enabled", _PRIORITY, ("rflags", _RFLAGS_IF)),
    Scenario(
        "init", "msi", "nmi-pending",
        (
            LISTENS, s.Poke(_OTHER_TABLE, s.Image("vectors")), s.Poke(0, s.Image("vectors-nmi")), *boot("bsp"),
            s.Set((("idt.base", _OTHER_TABLE),)), _NMI, s.Until(s.Word("NMI")), *turn(0), _NMI,
            s.Require(s.Is("events.nmi_pending", 1), "KVM_NMI left no NMI pending"), s.Observe(), s.Send("init"),
            *restarted(
                s.Expect(
                    s.Holds("COUNT", 0), "delivered", says=((0, "dropped"), (1, "after INIT")), undefined=_NOT_SAID, vendor="amd",
                ),
                apic_mode="x2apic",
            ),
        ),
        (*_PRIORITY, S_VMX_EXITS_CLEAR), "bsp", "guest",
    ),
    Scenario(
        "init", "msi", "smi-pending",
        (
            LISTENS, handler(), *boot("bsp"), _SMI, s.Until(s.Word("SMI")), s.Until(s.Word("VALUE")), *turn(0), _SMI,
            s.Observe(), s.Send("init"), *restarted(apic_mode="x2apic"),
        ),
        _PRIORITY, "bsp", "guest", ("smm",), undefined=_ONE_CLASS,
    ),
    _waits("interrupt-while-waiting", _REQUESTED, _IRR, *start()),
    _waits(
        "nmi-while-waiting", (s.Send("nmi", judged=False),), "events.nmi_pending",
        s.Send("sipi", vector=SIPI_VECTOR), s.Expect(s.Word("NMI"), undefined=_HELD, vendor="intel"),
    ),
)  # fmt: skip
