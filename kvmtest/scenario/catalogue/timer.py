# SPDX-License-Identifier: GPL-2.0-only
"""A timer of the local APIC: armed before INIT it is silent after it, restored by ioctl it fires."""

from __future__ import annotations

from kvmtest.scenario import step as s
from kvmtest.scenario.catalogue.common import LISTENS, RESTARTS, boot, reported, turn
from kvmtest.scenario.setup import Setup
from kvmtest.scenario.step import Scenario
from kvmtest.spec.cite import A_APIC, KVM_API, S_APIC_INIT, S_LVT, S_TSC_DEADLINE

__all__ = ("SCENARIOS",)

_VECTOR, _PERIODIC, _DEADLINE = 0x60, 1 << 17, 2 << 17
#: Of the 1 GHz bus that KVM has: half a millisecond.
_PERIOD = 500_000
#: Cycles of the TSC: until a deadline, one that the restarted guest still sees pass by, enough to see it, and more than any timer
#: here needs to fire.
_SOON, _LATER, _LONG = 1 << 20, 1 << 25, 1 << 28
_PASSED = _LATER + (1 << 22)


def _pokes(**words: int) -> tuple[s.Step, ...]:
    return tuple(s.Poke(name, value) for name, value in words.items())


def _armed(**words: int) -> tuple[s.Step, ...]:
    """To the word after a timer has fired, which is the proof that it can."""
    fires = s.Until(s.Word("VALUE", 1), note="the timer does not fire")
    return (LISTENS, *_pokes(ARG_LIMIT=_LONG, **words), *boot("bsp"), fires)


#: The restarted guest unmasks the LVT entry at once, and nobody arms the timer. The whole state is not observed: that would take
#: longer than until the deadline, and what fires while the entry is masked is lost.
_SILENT = (
    *_pokes(ARG_LIMIT=_PASSED, ARG_LVT=_VECTOR, ARG_COUNT=0, ARG_DELTA=0), s.Send("init"), RESTARTS, s.Until(s.Word("READY")),
    *reported(0),
)  # fmt: skip

SCENARIOS = (
    Scenario(
        "init", "msi", "periodic-timer",
        (
            *_armed(ARG_LVT=_PERIODIC | _VECTOR, ARG_COUNT=_PERIOD), s.Until(s.Word("READY")),
            s.Require(s.Is("lapic.timer_initial", _PERIOD), "the timer is not armed before INIT"), *_SILENT,
        ),
        (S_APIC_INIT, S_LVT, A_APIC), "bsp", "guest",
    ),
    Scenario(
        "init", "msi", "tsc-deadline-timer",
        (
            *_armed(ARG_LVT=_DEADLINE | _VECTOR, ARG_DELTA=_SOON), *_pokes(ARG_DELTA=_LATER), s.Until(s.Word("READY")),
            # KVM clears the MSR when the deadline has passed.
            s.Require(s.Differs("msr.tsc_deadline", 0), "the deadline had passed before INIT"), *_SILENT,
        ),
        (S_APIC_INIT, S_TSC_DEADLINE, A_APIC), "bsp", "guest", ("tsc-deadline",), Setup(leaves="deadline"),
    ),
    Scenario(
        "none", "set-lapic", "timer-expires",
        (
            # One that has a nanosecond left, so that it expires while KVM accepts the state.
            LISTENS, *boot("bsp"), *turn(0),
            s.Set(
                (
                    ("lapic.lvt_timer", _VECTOR), ("lapic.timer_initial", _PERIOD), ("lapic.timer_current", 1),
                    ("lapic.timer_divide", 0xB),
                ),
                check=False,
            ),
            *_pokes(ARG_LIMIT=_PASSED), *reported(1),
        ),
        (KVM_API, S_LVT), "bsp", "guest",
    ),
)  # fmt: skip
