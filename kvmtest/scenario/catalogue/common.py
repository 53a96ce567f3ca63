# SPDX-License-Identifier: GPL-2.0-only
"""Beginnings that scenarios have in common."""

from __future__ import annotations

from errno import EINVAL

from kvmtest.scenario import step as s
from kvmtest.scenario.step import Scenario
from kvmtest.spec.cite import KVM_API
from kvmtest.uapi.kvm import KVM_MP_STATE_INIT_RECEIVED, KVM_SET_MP_STATE, kvm_mp_state

__all__ = (
    "DROPPED",
    "FINDS",
    "HELD",
    "LISTENS",
    "PLANTED",
    "RESTARTS",
    "SILENT",
    "SIPI_VECTOR",
    "WAITS",
    "boot",
    "init_received",
    "pending",
    "ran",
    "restarted",
    "start",
    "reported",
    "turn",
    "wait_for_sipi",
)

#: SIPI vector of the page that every guest has at 1000.
SIPI_VECTOR = 1
RESTARTS = s.Expect(s.Word("RESET"))
PLANTED = s.Plant("a")
#: The observation before the event.
FINDS = s.Observe()
SILENT = "the API is silent; KVM refuses it until v6.16, and from v6.17 on fails the KVM_RUN after it"


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
    """Return a step that checks if an INIT is pending."""
    return s.Expect(s.Is("events.smi_latched_init", value), "pending")


#: The guest that reports if an interrupt comes within so many cycles after READY, again and again; nothing is armed.
LISTENS = s.Load("behaviour", (("TOPIC", "TOPIC_INTERRUPT"), ("ARG_LVT", 1 << 16), ("ARG_LIMIT", 1 << 22)))


def reported(came: int) -> tuple[s.Step, ...]:
    """The guest of LISTENS reports if an interrupt ``came``; this takes as long as it waits for one."""
    says = ((0, "none"), (1, "an interrupt"))
    return (s.Until(s.Word("VALUE")), s.Expect(s.Is("rax", came, 0xFFFFFFFF), "delivered", says=says))


def turn(came: int) -> tuple[s.Step, ...]:
    """From READY to the next one of the guest that LISTENS: an interrupt ``came``, or none did."""
    note = f"an interrupt {'does not come even' if came else 'comes'} without INIT"
    return (s.Until(s.Word("VALUE", came), note=note), s.Until(s.Word("READY")))


def ran(*state: tuple[str, int], apic_mode: str = "xapic") -> tuple[s.Step, ...]:
    """An AP that is past INIT and SIPI, in which everything is planted, and then ``state``, pairs of item and value."""
    # A plant that is made leaves the local APIC as it has it.
    past = (s.Plant("a"), *wait_for_sipi(), s.Send("sipi", judged=False), s.Settle())
    return (*past, s.Plant("a", apic_mode), s.Set(state), s.Observe())


#: An INIT is kept, and nothing else changes; KVM_GET_MP_STATE, which comes first, makes KVM accept it.
HELD = (FINDS, s.Send("init"), s.Expect(s.Same(("events.smi_latched_init",))), pending())

#: A SIPI changes nothing while an INIT is kept, and the AP, once it accepts the INIT, waits for another SIPI.
DROPPED = (s.Send("init", judged=False), FINDS, s.Send("sipi", vector=0x10), s.Expect(s.Same()))
WAITS = (s.Event("init", "msi"), s.Observe())


def restarted(*more: s.Step, apic_mode: str = "xapic") -> tuple[s.Step, ...]:
    """The vCPU runs at the reset vector, where ``more`` holds: the whole table there, in both views."""
    return (RESTARTS, *more, s.Observe(), s.Reporter(stands=True, apic_mode=apic_mode), s.Guest())


def init_received(
    sequence: str, state: tuple[s.Step, ...], needs: tuple[str, ...], mp_state: int = KVM_MP_STATE_INIT_RECEIVED
) -> Scenario:
    """KVM_SET_MP_STATE(INIT_RECEIVED), or to another ``mp_state``, in a ``state`` that holds INIT, and the KVM_RUN after it."""
    asked = s.Call(KVM_SET_MP_STATE, bytes(kvm_mp_state(mp_state)), keep=True, kind="kvm_mp_state")
    steps = (*state, asked, s.Expect(s.Answer(0)), s.Expect(s.Fails(EINVAL)))
    return Scenario("none", "mp-state", sequence, steps, (KVM_API,), needs=needs, undefined=SILENT)
