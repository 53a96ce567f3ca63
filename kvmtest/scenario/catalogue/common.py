# SPDX-License-Identifier: GPL-2.0-only
"""Beginnings that scenarios have in common."""

from __future__ import annotations

from kvmtest.scenario import step as s

__all__ = ("LISTENS", "RESTARTS", "SIPI_VECTOR", "boot", "pending", "restarted", "start", "turn", "wait_for_sipi")

#: SIPI vector of the page that every guest has at 1000.
SIPI_VECTOR = 1
RESTARTS = s.Expect(s.Word("RESET"))


def start(vector: int = SIPI_VECTOR) -> tuple[s.Step, ...]:
    """Start the target, which waits for a SIPI, and see it arrive."""
    return (s.Send("sipi", vector=vector, judged=False), s.Until(s.Word("SIPI")))


def wait_for_sipi() -> tuple[s.Step, ...]:
    """Put an AP into wait-for-SIPI by a real INIT."""
    return (s.Send("init", judged=False), s.Settle())


def boot(target: str) -> tuple[s.Step, ...]:
    """From RESET to the guest's first READY: a BSP by the reset vector, an AP by a SIPI after an INIT."""
    first = (s.Until(s.Word("RESET")),) if target == "bsp" else (*wait_for_sipi(), *start())
    return (*first, s.Until(s.Word("READY")))


def pending(value: int = 1) -> s.Step:
    """Whether an INIT is pending."""
    return s.Expect(s.Is("events.smi_latched_init", value), "pending")


def restarted(apic_mode: str = "") -> tuple[s.Step, ...]:
    """The vCPU runs at the reset vector: the whole table there, in both views."""
    return (RESTARTS, s.Observe(), s.Reporter(stands=True, apic_mode=apic_mode), s.Guest())


#: The guest that tells whether an interrupt comes in so many cycles after READY, again and again; nothing is armed.
LISTENS = s.Load("behaviour", (("TOPIC", "TOPIC_INTERRUPT"), ("ARG_LVT", 1 << 16), ("ARG_LIMIT", 1 << 22)))


def turn(came: int) -> tuple[s.Step, ...]:
    """From READY to the next one of the guest that LISTENS: an interrupt ``came``, or none did."""
    note = f"an interrupt {'does not come even' if came else 'comes'} without INIT"
    return (s.Until(s.Word("VALUE", came), note=note), s.Until(s.Word("READY")))
