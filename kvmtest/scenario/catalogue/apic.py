# SPDX-License-Identifier: GPL-2.0-only
"""INIT and SIPI by what guest code sees: its local APIC's mode, shorthands of the ICR, and vectors that are reserved."""

from __future__ import annotations

from kvmtest.scenario import step as s
from kvmtest.scenario.access import UD, makes
from kvmtest.scenario.catalogue.common import boot, start, wait_for_sipi
from kvmtest.scenario.step import Scenario
from kvmtest.spec.cite import A_DURING_DELIVERY, A_ICR, A_INIT_IPI, A_X2APIC, S_APIC_VERSION, S_ICR, S_MP, S_X2APIC
from kvmtest.uapi.kvm import KVM_MP_STATE_INIT_RECEIVED, KVM_MP_STATE_RUNNABLE

__all__ = ("SCENARIOS",)

_EXTD = 1 << 10
#: INIT with the assert level, and destination shorthands.
_INIT, _SELF, _ALL_INCLUDING_SELF = 0x4500, 1 << 18, 2 << 18
_RESERVED_VECTORS = range(0xA0, 0xC0)
#: This guest goes to x2APIC mode by itself.
_LOAD = s.Load("behaviour", (("TOPIC", "TOPIC_ICR"),))

#: MOV of the local APIC's version register to EAX, OUT of that to VALUE, and no more.
_READS_VERSION = b"\xa1\x30\x00\xe0\xfe\xe7\xf5\xeb\xfe"

_INVALID = "the manuals list no such use of the shorthand with INIT, and do not say what it does"
_RESERVED = "the manuals keep vectors A0H-BFH for themselves, and do not say what they do"


def _shorthand(name: str, shorthand: int, other: int) -> Scenario:
    """The BSP sends, and ``other`` is the activity state of the AP then, which runs at first."""
    past = (step for event in ("init", "sipi") for step in (s.Send(event, to="other", judged=False), s.Settle("other")))
    steps = (
        _LOAD, *boot("bsp"), *past, s.Poke("ARG_ICR", _INIT | shorthand), s.Poke("TOPIC", "TOPIC_HALT"),
        # KVM may make it go on until the next exit.
        s.Expect(s.Word("RESET", past=("VALUE",))), s.Expect(s.Is("mp_state", other), who="other"),
    )  # fmt: skip
    return Scenario("init", "icr-x2apic", name, steps, (S_ICR, A_ICR), "bsp", "guest", undefined=_INVALID)


SCENARIOS = (
    Scenario(
        "init", "msi", "x2apic-by-guest",
        (
            _LOAD, *boot("ap"), s.Require(s.Is("apic_base", _EXTD, _EXTD), "the guest is not in x2APIC mode"), s.Complete(),
            s.Poke("TOPIC", "TOPIC_X2APIC"), s.Observe(), s.Send("init"), s.Observe(), *start(), s.Until(s.Word("READY")),
            s.Expect(s.Word("VALUE", 0xFEE00C00), "apic_base"), s.Expect(s.Word("VALUE", 1), "lapic.id"),
            # Written by the guest, so that there is more to read than INIT has left.
            s.Expect(s.Word("VALUE", 0x1AA), "lapic.svr"),
        ),
        (S_X2APIC, A_X2APIC), view="guest",
    ),
    _shorthand("shorthand-self", _SELF, KVM_MP_STATE_RUNNABLE),
    _shorthand("shorthand-all-including-self", _ALL_INCLUDING_SELF, KVM_MP_STATE_INIT_RECEIVED),
    Scenario(
        "sipi", "msi", "vectors-a0-bf",
        (
            s.Load("behaviour", (("TOPIC", "TOPIC_HALT"),)),
            *(
                step
                for vector in _RESERVED_VECTORS
                for step in (
                    s.Page(vector), *wait_for_sipi(), s.Send("sipi", vector=vector), s.Expect(s.Word("SIPI", vector << 8)),
                )
            ),
        ),
        (S_MP, A_INIT_IPI), view="guest", undefined=_RESERVED,
    ),
    # An access that KVM emulates, where the VM exit before it injected an exception.
    Scenario(
        "none", "mmio", "first-after-exception",
        (*makes(UD), s.Poke("CODE+came", _READS_VERSION), s.Event("none", "mmio"), s.Expect(s.Word("VALUE"))),
        (S_APIC_VERSION, A_DURING_DELIVERY), "bsp", "guest",
    ),
)  # fmt: skip
