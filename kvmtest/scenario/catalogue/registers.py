# SPDX-License-Identifier: GPL-2.0-only
"""A local APIC's registers accessed by guest code, in both modes: refusals, effects of writes, and INIT afterwards."""

from __future__ import annotations

from kvmtest.scenario import step as s
from kvmtest.scenario.access import GP, OPEN, READY, WAIT, Access, apic, makes, rdmsr, says, wrmsr
from kvmtest.scenario.catalogue.common import RESTARTS, restarted
from kvmtest.scenario.setup import VENDORS, Setup
from kvmtest.scenario.step import Scenario
from kvmtest.scenario.triggers import signal
from kvmtest.spec.cite import (
    A_APIC,
    A_APIC_ID,
    A_PRIORITY,
    A_X2APIC,
    S_APIC_DISABLED,
    S_APIC_INIT,
    S_APIC_REGISTERS,
    S_LVT,
    S_PRIORITIES,
    S_SELF_IPI,
    S_X2APIC,
    S_X2APIC_REGISTERS,
)
from kvmtest.uapi.kvm import KVM_MP_STATE_HALTED

__all__ = ("SCENARIOS",)

_BASE, _BSP, _EN, _EXTD = 0x1B, 0xFEE00100, 1 << 11, 1 << 10
_ON, _OFF = 0x1FF, 0xFF
_VECTOR, _MASKED, _PERIODIC, _NMI = 0x60, 1 << 16, 1 << 17, 0x400
#: An interrupt to the sender itself.
_SELF = 1 << 18 | 1 << 14 | _VECTOR
_EOI, _SELF_IPI = 0xB0, 0x3F0
#: Of the 1 GHz bus that KVM has: some milliseconds, and more than any case takes.
_SOON, _NEVER = 4_000_000, 0xFFFFFFFF
_TAKEN, _AWAKE = s.Word("TAKEN", _VECTOR), s.Word("AWAKE")
_MODES = ("xapic", "x2apic")
_IN_X2APIC = wrmsr(_BASE, _BSP | _EN | _EXTD)
_INIT = (s.Observe(), s.Send("init"), RESTARTS, s.Observe())
_WRITTEN = s.Event("none", "apic-access")

_MODEL = "whether software may write the APIC id is up to the processor's model"


def _enter(mode: str) -> tuple[Access, ...]:
    """Into ``mode``, and software-enabled."""
    return (*((_IN_X2APIC,) if mode == "x2apic" else ()), apic(mode, "svr", _ON))


def _case(
    sequence: str, accesses: tuple[Access, ...], said: tuple[s.Step, ...], cite: tuple[str, ...], *then: s.Step
) -> Scenario:
    """Return the scenario of ``accesses``, and ``then`` of an INIT after them."""
    steps = (*makes(*accesses), _WRITTEN, *said, *(then or _INIT))
    # Nothing here depends on the vendor.
    return Scenario("init", "msi", sequence, steps, cite, "bsp", "guest", vendors=(VENDORS[sequence.startswith("x2apic")],))


def _of_both(mode: str) -> tuple[Scenario, ...]:
    on, lint1, timer = _enter(mode), ("lapic.lvt_lint1", _MASKED | _NMI), ("lapic.lvt_timer", _MASKED | _PERIODIC | _VECTOR)
    read = (apic(mode, "lvt_lint1"), apic(mode, "lvt_timer"))
    written = (apic(mode, "lvt_lint1", _NMI), apic(mode, "lvt_timer", _PERIODIC | _VECTOR))
    unmasked = (("lapic.lvt_lint1", _NMI), ("lapic.lvt_timer", _PERIODIC | _VECTOR))
    sent = apic(mode, "icr", _SELF)
    counts = (apic(mode, "lvt_timer", _VECTOR), apic(mode, "timer_divide", 0xB))
    return (
        # Software that disables the local APIC masks all its entries, and cannot undo that.
        _case(
            f"{mode}-disabled-by-software", (*on, *written, *read, apic(mode, "svr", _OFF), *read, *written, *read),
            says(*unmasked, lint1, timer, lint1, timer, READY), (S_APIC_DISABLED, A_APIC),
        ),
        _case(
            f"{mode}-tpr-lowered", (*on, apic(mode, "tpr", 0x70), sent, OPEN, apic(mode, "tpr"), apic(mode, "tpr", 0), OPEN),
            says(("lapic.tpr", 0x70), _TAKEN, READY), (S_PRIORITIES, A_PRIORITY),
        ),
        # The rest of the count goes on at the other rate.
        _case(
            f"{mode}-timer-divided-anew", (*on, *counts, apic(mode, "timer_initial", _SOON), apic(mode, "timer_divide", 0), WAIT),
            says(_TAKEN, _AWAKE, READY), (S_LVT, A_APIC),
        ),
        _case(
            f"{mode}-timer-in-hlt", (*on, *counts, apic(mode, "timer_initial", _SOON), WAIT, apic(mode, _EOI, 0)),
            says(_TAKEN, _AWAKE, READY), (S_LVT, A_APIC),
        ),
        # A VMM that restores the state of a running timer lets it run on.
        _case(
            f"{mode}-timer-restored", (*on, *counts, apic(mode, "timer_initial", 10 * _SOON), (0, 0, 0), WAIT),
            (s.Until(READY), s.Set((("lapic.tpr", 0x10),)), *says(_TAKEN, _AWAKE, READY)), (S_LVT, A_APIC),
        ),
        _case(
            f"{mode}-halted-with-timer", (*on, *counts, apic(mode, "timer_initial", _NEVER), WAIT), (),
            (S_APIC_INIT, A_APIC), s.Until(s.Is("mp_state", KVM_MP_STATE_HALTED)), *_INIT,
        ),
    )  # fmt: skip


_REFUSED_IN_X2APIC = (
    wrmsr(0x802, 0), wrmsr(0x80D, 1), wrmsr(0x80E, 0xFFFFFFFF), rdmsr(0x80E), wrmsr(0x828, 1), wrmsr(0x831, 0),
    wrmsr(0x83F, 0x160), wrmsr(0x808, 1 << 32), wrmsr(0x803, 0), wrmsr(0x80A, 0), wrmsr(0x839, 0), wrmsr(0x804, 0),
    wrmsr(_BASE, _BSP | _EN),
)  # fmt: skip
_REFUSED_IN_XAPIC = (rdmsr(0x802), wrmsr(0x80F, _ON), wrmsr(0x830, _SELF), wrmsr(0x83F, _VECTOR))

SCENARIOS = (
    *(scenario for mode in _MODES for scenario in _of_both(mode)),
    _case(
        "x2apic-registers-refused", (*_enter("x2apic"), *_REFUSED_IN_X2APIC, wrmsr(0x828, 0), OPEN, rdmsr(_BASE)),
        says(*[GP] * len(_REFUSED_IN_X2APIC), ("apic_base", _BSP | _EN | _EXTD), READY), (S_X2APIC_REGISTERS, S_X2APIC, A_X2APIC),
    ),
    _case(
        # The register of x2APIC mode alone has a place in the page, where nothing is.
        "xapic-registers-refused", (*_enter("xapic"), *_REFUSED_IN_XAPIC, apic("xapic", _SELF_IPI, _VECTOR), OPEN),
        says(*[GP] * len(_REFUSED_IN_XAPIC), READY), (S_X2APIC_REGISTERS, A_X2APIC),
    ),
    _case(
        "x2apic-self-ipi", (*_enter("x2apic"), apic("x2apic", _SELF_IPI, _VECTOR), OPEN),
        says(_TAKEN, READY), (S_SELF_IPI, A_X2APIC),
    ),
    # Out of the disabled state only xAPIC mode leads on.
    _case(
        "x2apic-out-of-disabled",
        (wrmsr(_BASE, _BSP), _IN_X2APIC, rdmsr(_BASE), wrmsr(_BASE, _BSP | _EN), _IN_X2APIC, rdmsr(_BASE)),
        says(GP, ("apic_base", _BSP), ("apic_base", _BSP | _EN | _EXTD), READY), (S_X2APIC, A_X2APIC),
    ),
    # A CPU without x2APIC mode does not go there.
    _case(
        "xapic-alone", (_IN_X2APIC, rdmsr(_BASE), *_enter("xapic"), apic("xapic", "icr", _SELF), OPEN),
        says(GP, ("apic_base", _BSP | _EN), _TAKEN, READY), (S_X2APIC, A_X2APIC),
    )._replace(setup=Setup(leaves="no-x2apic")),
    Scenario(
        "init", "msi", "xapic-id-by-guest",
        (
            *makes(apic("xapic", "id", 5 << 24), apic("xapic", "id")), _WRITTEN,
            s.Expect(s.Word("VALUE", 5 << 24), "lapic.id", undefined=_MODEL), s.Until(READY), s.Observe(), s.Event("init", "msi"),
            signal(5, 0x500), *restarted(),
        ),
        (S_APIC_REGISTERS, A_APIC_ID), "bsp", "guest",
    ),
)  # fmt: skip
