# SPDX-License-Identifier: GPL-2.0-only
"""Interprocessor interrupts by KVM's hypercall: who gets them, and INIT that comes this way."""

from __future__ import annotations

from kvmtest.scenario import step as s
from kvmtest.scenario.access import OPEN, READY, SAY, Access, apic, makes, says, send_ipi
from kvmtest.scenario.catalogue.common import FINDS, RESTARTS
from kvmtest.scenario.step import Scenario
from kvmtest.spec.cite import A_INIT_IPI, KVM_HYPERCALLS, S_MP
from kvmtest.uapi.kvm import KVM_MP_STATE_INIT_RECEIVED, KVM_MP_STATE_RUNNABLE

__all__ = ("SCENARIOS",)

_ON, _VECTOR = apic("xapic", "svr", 0x1FF), 0x60
_INIT, _ALL, _LOGICAL = 0x500, 2 << 18, 1 << 11
_TAKEN = s.Word("TAKEN", _VECTOR)
#: Bits of a bitmap: of APIC ids from the lowest on.
_FIRST, _THIRD = 1, 4
#: An error of KVM's own, KVM_EINVAL.
_INVALID = 22
_RUNNING = s.Set((("mp_state", KVM_MP_STATE_RUNNABLE),), "other")


def _reached(count: int) -> s.Step:
    """The hypercall returns how many vCPUs it reached."""
    return s.Expect(s.Word("VALUE", count & 0xFFFFFFFF), "answer")


def _case(sequence: str, accesses: tuple[Access, ...], *said: s.Step) -> Scenario:
    steps = (*makes(_ON, *accesses), s.Event("none", "hypercall"), *said)
    return Scenario("none", "hypercall", sequence, steps, (KVM_HYPERCALLS,), "bsp", "guest")


SCENARIOS = (
    _case("interrupt-to-itself", (send_ipi(_VECTOR, _FIRST), OPEN, SAY), _reached(1), *says(_TAKEN, READY)),
    _case("interrupt-to-nobody", (send_ipi(_VECTOR, _THIRD), OPEN, SAY), _reached(0), *says(READY)),
    _case("interrupt-beyond-all", (send_ipi(_VECTOR, _FIRST, 0x60), OPEN, SAY), _reached(0), *says(READY)),
    _case("shorthand-refused", (send_ipi(_VECTOR | _ALL, _FIRST), OPEN, SAY), _reached(-_INVALID), *says(READY)),
    _case("logical-refused", (send_ipi(_VECTOR | _LOGICAL, _FIRST), OPEN, SAY), _reached(-_INVALID), *says(READY)),
    Scenario(
        "init", "hypercall", "to-another",
        (
            s.Plant("a", who="other"), _RUNNING, *makes(_ON, send_ipi(_INIT, _FIRST, 1), SAY), s.Event("init", "hypercall"),
            _reached(1), s.Expect(s.Is("mp_state", KVM_MP_STATE_INIT_RECEIVED), who="other"),
            s.Expect(s.Is("rip", 0xFFF0), who="other"), s.Expect(s.Is("cr3", 0), who="other"), *says(READY),
        ),
        (KVM_HYPERCALLS, S_MP, A_INIT_IPI), "bsp", "guest",
    ),
    Scenario(
        "init", "hypercall", "to-itself",
        (
            *makes(_ON, SAY, send_ipi(_INIT, _FIRST), SAY), s.Until(READY), FINDS, s.Event("init", "hypercall"), RESTARTS,
            s.Observe(),
        ),
        (KVM_HYPERCALLS, S_MP, A_INIT_IPI), "bsp", "guest",
    ),
)  # fmt: skip
