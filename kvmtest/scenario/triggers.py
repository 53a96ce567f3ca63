# SPDX-License-Identifier: GPL-2.0-only
"""Triggers as facts: how each event is sent, to which local APICs, and what that needs."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from kvmtest.scenario import memory
from kvmtest.scenario import step as s
from kvmtest.uapi.irq import kvm_msi
from kvmtest.uapi.kvm import (
    KVM_MP_STATE_INIT_RECEIVED,
    KVM_MP_STATE_SIPI_RECEIVED,
    KVM_NMI,
    KVM_SIGNAL_MSI,
    KVM_SMI,
)

__all__ = ("TRIGGERS", "Trigger", "message", "signal", "steps", "words")

#: Message data: delivery modes (SDM vol. 3, Message Data Register Format).
#: A level-triggered INIT without the assert level is a de-assertion.
_DATA = {"init": 0x500, "deassert": 0x8500, "sipi": 0x600, "nmi": 0x400, "interrupt": 0x000, "smi": 0x200}
_XAPIC, _ANY = ("xapic",), ("xapic", "x2apic")


def signal(id: int, data: int) -> s.Step:
    """KVM_SIGNAL_MSI with ``data`` to APIC id ``id``, in physical destination mode, whomever it reaches."""
    # Bits 31:8 of the id count with KVM_X2APIC_API_USE_32BIT_IDS (KVM API, KVM_SET_GSI_ROUTING).
    msi = kvm_msi(0xFEE00000 | (id & 0xFF) << 12, id & ~0xFF, data)
    return s.Call(KVM_SIGNAL_MSI, bytes(msi), "vm", keep=True, kind="kvm_msi")


def message(id: int, data: int) -> tuple[s.Step, ...]:
    """A message as `signal` sends it, which has to reach a vCPU."""
    return (
        signal(id, data),
        s.Require(s.Answer(1), f"KVM_SIGNAL_MSI with data {data:#x} reached no vCPU with APIC id {id}"),
    )


def _msi(send: s.Send, id: int) -> tuple[s.Step, ...]:
    return message(id, _DATA[send.event] | send.vector)


def _latched(send: s.Send, id: int) -> tuple[s.Step, ...]:
    return (s.Set((("events.smi_latched_init", 1),), id),)


#: Flat 32-bit protected mode without paging, from a vCPU's state at RESET.
_FLAT = (("base", 0), ("limit", 0xFFFFFFFF), ("present", 1), ("s", 1), ("db", 1), ("g", 1))


def _icr_xapic(send: s.Send, id: int) -> tuple[s.Step, ...]:
    """The other vCPU, which is as RESET leaves a BSP, runs guests/sender.S."""
    code = (("cs.selector", 8), ("cs.type", 0xB), *((f"cs.{name}", value) for name, value in _FLAT))
    data = (("ds.selector", 16), ("ds.type", 3), *((f"ds.{name}", value) for name, value in _FLAT))
    at = memory.SENDER + memory.number("sender", "SENDER_XAPIC")
    regs = (("rax", _DATA[send.event] | send.vector), ("rdx", id << 24), ("rip", at), ("rflags", 2))
    return (
        s.Load("sender"),
        s.Set((*code, *data, ("cr0", 0x11)), "other", check=False),
        s.Set(regs, "other"),
        s.Until(s.Word("SENT"), "other", "the sending guest did not write its ICR"),
        s.Complete("other"),
    )


def _mp_state(send: s.Send, id: int) -> tuple[s.Step, ...]:
    if send.event == "none":
        return (s.Set((("mp_state", KVM_MP_STATE_INIT_RECEIVED),), id),)
    # The vector comes first (KVM API); neither reads back as it was written.
    vector = s.Set((("events.sipi_vector", send.vector),), id, check=False)
    return (vector, s.Set((("mp_state", KVM_MP_STATE_SIPI_RECEIVED),), id, check=False))


def _ioctl(request: int) -> Callable[[s.Send, int], tuple[s.Step, ...]]:
    return lambda send, id: (s.Call(request, 0, id),)


class Trigger(NamedTuple):
    """One way to send ``events``.

    ``steps`` are those of one event to the vCPU of an id. ``modes`` are the modes of the local APIC in which it hears the event,
    ``irqchips`` the interrupt controllers that it needs, ``needs`` what else (`kvmtest.scenario.needs`).
    """

    events: tuple[str, ...]
    steps: Callable[[s.Send, int], tuple[s.Step, ...]]
    modes: tuple[str, ...] = _ANY
    irqchips: tuple[str, ...] = ("full",)
    needs: tuple[str, ...] = ()


TRIGGERS: dict[str, Trigger] = {
    "latched": Trigger(("init",), _latched, (*_ANY, "relocated", "disabled")),
    "msi": Trigger(("init", "deassert", "sipi", "nmi", "interrupt", "smi"), _msi),
    "icr-xapic": Trigger(("init", "deassert"), _icr_xapic, _XAPIC),
    "mp-state": Trigger(("sipi", "none"), _mp_state, (*_ANY, "relocated", "disabled")),
    "ioctl-nmi": Trigger(("nmi",), _ioctl(KVM_NMI)),
    "ioctl-smi": Trigger(("smi",), _ioctl(KVM_SMI), needs=("smm",)),
}


def steps(send: s.Send, id: int) -> tuple[s.Step, ...]:
    """The steps of ``send`` to the vCPU of ``id``. Raises KeyError for a trigger that there is not."""
    return TRIGGERS[send.by].steps(send, id)


def words(condition: s.Condition) -> str:
    """A condition in words."""
    return str(condition)
