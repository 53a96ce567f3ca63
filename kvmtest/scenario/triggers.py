# SPDX-License-Identifier: GPL-2.0-only
"""Triggers as facts: how each event is sent, to which local APICs, and what that needs."""

from __future__ import annotations

from collections.abc import Callable
from ctypes import sizeof
from typing import NamedTuple

from kvmtest.scenario import step as s
from kvmtest.state.values import values
from kvmtest.uapi.irq import kvm_irq_level, kvm_irq_routing, kvm_irq_routing_entry, kvm_msi
from kvmtest.uapi.kvm import (
    KVM_EXIT_SHUTDOWN,
    KVM_IRQ_LINE,
    KVM_IRQ_ROUTING_IRQCHIP,
    KVM_IRQ_ROUTING_MSI,
    KVM_IRQCHIP_IOAPIC,
    KVM_MP_STATE_INIT_RECEIVED,
    KVM_MP_STATE_RUNNABLE,
    KVM_MP_STATE_SIPI_RECEIVED,
    KVM_NMI,
    KVM_SET_GSI_ROUTING,
    KVM_SIGNAL_MSI,
    KVM_SMI,
)

__all__ = (
    *("DATA", "MASKED", "MSG_ADDR", "PIN", "TRIGGERS", "Steps", "To", "Trigger"),
    *("arrival", "broadcast_icr", "events", "message", "raised", "sender", "signal", "split"),
)

#: Message data: delivery modes (SDM vol. 3, Message Data Register Format).
#: A level-triggered INIT without the assert level is a de-assertion.
DATA = {"interrupt": 0x000, "smi": 0x200, "nmi": 0x400, "init": 0x500, "deassert": 0x8500, "sipi": 0x600}
#: The ICR's bits: assert, logical destination, and the one shorthand that is valid with INIT (SDM vol. 3 and APM vol. 2,
#: Interrupt Command Register).
_ASSERT, _LOGICAL = 1 << 14, 1 << 11
_ALL_EXCLUDING_SELF = 3 << 18
MSG_ADDR = 0xFEE00000
#: Destination mode (SDM vol. 3, Message Address Register Format).
_MSI_LOGICAL = 1 << 2
#: GSIs above the IOAPIC's 24 pins, and a pin.
_GSI, _GSI_IRQFD, PIN = 32, 33, 10
MASKED = 1 << 16
_ANY, _EVERY = ("xapic", "x2apic"), ("xapic", "x2apic", "relocated", "disabled")

Steps = tuple[s.Step, ...]


class To(NamedTuple):
    """The vCPU that an event is sent to: its ``id``, that of an ``other`` one, True for the BSP, and its plant.

    ``running`` is whether it is in KVM_RUN, where it accepts the event at once, and every ioctl waits until it is out.
    """

    id: int
    other: int
    bsp: bool
    mode: str = "xapic"
    plant: str = ""
    running: bool = False


def _arrives(send: s.Send, to: To, by: str) -> Steps:
    """An INIT is pending on the vCPU: KVM may deliver a device's interrupt from a worker thread."""
    if to.running or send.event != "init":
        return ()
    return (s.Until(s.Is("events.smi_latched_init", 1), to.id, f"{by}: no INIT is pending on vcpu {to.id}", run=False),)


def signal(id: int, data: int, *, logical: bool = False) -> s.Step:
    """KVM_SIGNAL_MSI with ``data`` to APIC id ``id``, in physical or ``logical`` destination mode, whomever it reaches."""
    # Bits 31:8 of the id count with KVM_X2APIC_API_USE_32BIT_IDS (KVM API, KVM_SET_GSI_ROUTING).
    msi = kvm_msi(MSG_ADDR | (id & 0xFF) << 12 | (_MSI_LOGICAL if logical else 0), id & ~0xFF, data)
    return s.Call(KVM_SIGNAL_MSI, bytes(msi), "vm", keep=True, kind="kvm_msi")


def message(id: int, data: int) -> Steps:
    """A message as `signal` sends it, which has to reach a vCPU."""
    return (
        signal(id, data),
        s.Require(s.Answer(1), f"KVM_SIGNAL_MSI with data {data:#x} reached no vCPU with APIC id {id}"),
    )


def _msi(send: s.Send, to: To) -> Steps:
    return message(to.id, DATA[send.event] | send.vector)


def _latched(send: s.Send, to: To) -> Steps:
    return (s.Set((("events.smi_latched_init", 1),), to.id),)


def _mp_state(send: s.Send, to: To) -> Steps:
    if send.event == "none":
        return (s.Set((("mp_state", KVM_MP_STATE_INIT_RECEIVED),), to.id),)
    # The vector comes first (KVM API); neither reads back as it was written.
    vector = s.Set((("events.sipi_vector", send.vector),), to.id, check=False)
    return (vector, s.Set((("mp_state", KVM_MP_STATE_SIPI_RECEIVED),), to.id, check=False))


def _ioctl(request: int) -> Callable[[s.Send, To], Steps]:
    return lambda send, to: (s.Call(request, 0, to.id),)


# Devices


def _routing(*entries: kvm_irq_routing_entry) -> s.Step:
    """KVM_SET_GSI_ROUTING: replaces the VM's table."""
    table = len(entries).to_bytes(sizeof(kvm_irq_routing), "little") + b"".join(map(bytes, entries))
    return s.Call(KVM_SET_GSI_ROUTING, table, "vm", kind="kvm_irq_routing")


def _line(gsi: int, level: int, request: int = KVM_IRQ_LINE) -> s.Step:
    return s.Call(request, bytes(kvm_irq_level(irq=gsi, level=level)), "vm", kind="kvm_irq_level")


def _to_msi(gsi: int, id: int, data: int = DATA["init"]) -> s.Step:
    """Route ``gsi`` to an MSI, by default one that is an INIT."""
    entry = kvm_irq_routing_entry(gsi, KVM_IRQ_ROUTING_MSI)
    entry.u.msi.address_lo, entry.u.msi.data = MSG_ADDR | (id & 0xFF) << 12, data
    return _routing(entry)


def split(id: int, data: int) -> Steps:
    """An edge at a pin of the VMM's IOAPIC on a split irqchip, that is routed to an MSI with ``data``."""
    return (_to_msi(PIN, id, data), _line(PIN, 1))


def _gsi(gsi: int, by: str) -> Callable[[s.Send, To], Steps]:
    return lambda send, to: (_to_msi(gsi, to.id), _line(gsi, 1), *_arrives(send, to, by))


def _irqfd(send: s.Send, to: To) -> Steps:
    return (_to_msi(_GSI_IRQFD, to.id), s.Irqfd(_GSI_IRQFD), *_arrives(send, to, "KVM_IRQFD"))


def _redirect(value: int, pin: int = PIN) -> s.Step:
    return s.Set(((f"ioapic.redirtbl{pin}", value),), "vm", check=False)


def raised(redirection: int, pin: int = PIN, request: int = KVM_IRQ_LINE) -> Steps:
    """An edge at the IOAPIC's ``pin`` that has this ``redirection`` entry, which no other interrupt controller gets."""
    entry = kvm_irq_routing_entry(pin, KVM_IRQ_ROUTING_IRQCHIP)
    entry.u.irqchip.irqchip, entry.u.irqchip.pin = KVM_IRQCHIP_IOAPIC, pin
    return (_routing(entry), _redirect(redirection, pin), _line(pin, 1, request), _line(pin, 0, request))


def _ioapic(send: s.Send, to: To) -> Steps:
    return (*raised(to.id << 56 | DATA["init"]), *_arrives(send, to, "the IOAPIC"), _redirect(MASKED))


# Interprocessor interrupts


def broadcast_icr() -> int:
    """Bits 31:0 of the ICR for INIT to all but the sender."""
    return _ALL_EXCLUDING_SELF | DATA["init"] | _ASSERT


def sender(who: s.Who, bsp: bool, icr: int, destination: int, mode: str) -> Steps:
    """Make vCPU ``who`` ready to write ``icr`` and ``destination`` (8 or 32 bits) to its ICR by guests/sender.S.

    Flat 32-bit protected mode without paging, nothing pending, its local APIC in ``mode`` and software-enabled, without a logical
    id. What else it holds stays.
    """
    x2apic = mode == "x2apic"
    items: dict[str, int | str] = {"cr0": 0x11, "cr3": 0, "cr4": 0, "efer": 0, "apic_base": 0xFEE00C00 if x2apic else 0xFEE00800}
    items["apic_base"] = 0xFEE00800 | (0x400 if x2apic else 0) | (0x100 if bsp else 0)
    for name, selector, kind in (("cs", 8, 0xB), *((name, 16, 3) for name in ("ds", "es", "fs", "gs", "ss"))):
        flat = {"base": 0, "limit": 0xFFFFFFFF, "present": 1, "s": 1, "db": 1, "g": 1, "l": 0, "dpl": 0, "avl": 0, "unusable": 0}
        items |= {f"{name}.{part}": value for part, value in {"selector": selector, "type": kind, **flat}.items()}
    # VM entry checks TR, and refuses a selector of the LDT (SDM vol. 3, Checks on Guest Segment Registers).
    tss = {"selector": 0, "base": 0, "limit": 0x67, "type": 0xB, "present": 1, "s": 0, "g": 0, "unusable": 0}
    items |= {f"tr.{part}": value for part, value in tss.items()}
    # No breakpoint armed: QEMU's TCG crashes when VMRUN loads one.
    items |= {"dr7": 0x400}
    items |= {"ldt.unusable": 1, "ldt.present": 0}
    gprs = ("rbx", "rsi", "rdi", "rbp", "rsp", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15")
    regs: dict[str, int | str] = {name: 0x5A5A5A00 + i for i, name in enumerate(gprs)}
    entry = "sender.x2apic" if x2apic else "sender.xapic"
    regs |= {"rax": icr, "rcx": 0x830, "rdx": destination if x2apic else destination << 24, "rip": entry, "rflags": 2}
    nothing = {f"events.{name}": 0 for name in _PENDING}
    # KVM_SET_LAPIC also makes KVM look at the APIC ids again.
    apic = s.Set((("lapic.ldr", 0),), who) if not x2apic else s.Set((("lapic.svr", 0x1FF),), who)
    return (
        s.Load("sender"),
        s.Set(tuple(items.items()), who, check=False),
        apic,
        s.Set(tuple(nothing.items()), who, check=False),
        s.Set((("mp_state", KVM_MP_STATE_RUNNABLE),), who, check=False),
        s.Set(tuple(regs.items()), who, check=False),
    )


#: Items that an earlier case may have left pending on the sender.
_PENDING = (
    *("exception_injected", "exception_pending", "exception_has_payload", "triple_fault_pending", "interrupt_injected"),
    *("interrupt_soft", "interrupt_shadow", "nmi_injected", "nmi_pending", "nmi_masked", "smi_smm", "smi_pending"),
    *("smi_inside_nmi", "smi_latched_init"),
)


def _send(send: s.Send, to: To, icr: int, destination: int, mode: str) -> Steps:
    sent = (s.Until(s.Word("sender.SENT"), to.other, "the sending guest did not write its ICR"), s.Complete(to.other))
    return (*sender(to.other, not to.bsp, icr, destination, mode), *sent, *_arrives(send, to, "the guest's ICR"))


def _icr(mode: str) -> Callable[[s.Send, To], Steps]:
    return lambda send, to: _send(send, to, DATA[send.event] | (_ASSERT if send.event == "init" else 0), to.id, mode)


def _logical(mode: str) -> Callable[[s.Send, To], Steps]:
    return lambda send, to: _send(send, to, DATA["init"] | _ASSERT | _LOGICAL, _logical_id(to), mode)


def _logical_id(to: To) -> int:
    """The logical destination that names a vCPU by the lowest bit of its logical id.

    SDM vol. 3, Logical Destination Mode, and Deriving Logical x2APIC ID from the Local x2APIC ID.
    """
    if to.mode == "x2apic":
        return to.id >> 4 << 16 | 1 << (to.id & 0xF)
    planted = values(to.plant)["lapic.ldr"] >> 24
    if to.mode == "xapic-flat":
        return planted & -planted
    return planted & 0xF0 | planted & 0xF & -(planted & 0xF)


def _broadcast(send: s.Send, to: To) -> Steps:
    """From one vCPU to all others: the destination shorthand all-excluding-self."""
    return _send(send, to, broadcast_icr(), 0, to.mode)


def _self(send: s.Send, to: To) -> Steps:
    """A vCPU planted by guest code in 64-bit mode writes its own APIC id to its ICR."""
    x2apic = to.mode == "x2apic"
    registers = (("rax", DATA["init"] | _ASSERT), ("rdx", to.id if x2apic else to.id << 24))
    return (s.Resume("x2icr" if x2apic else "icr", to.id), s.Set(registers, to.id), *arrival(to.bsp))


def arrival(bsp: bool) -> Steps:
    """A running vCPU accepts INIT: a BSP restarts by itself, an AP waits for a SIPI, which only INIT causes."""
    if bsp:
        return (s.Until(s.Word("spine.RESET"), note="the boot processor did not restart"),)
    return (s.Until(s.Is("mp_state", KVM_MP_STATE_INIT_RECEIVED), note="the vCPU does not wait for a SIPI"),)


def _triple_fault(send: s.Send, to: To) -> Steps:
    return (s.Until(s.Exit(KVM_EXIT_SHUTDOWN), note="the guest does not shut down"),)


class Trigger(NamedTuple):
    """One way to send ``events``.

    ``steps`` are those of one event to a vCPU. ``modes`` are the modes of the local APIC in which it hears the event,
    ``irqchip`` the interrupt controllers that it needs, ``needs`` what else (`kvmtest.scenario.needs`). ``states`` and ``plants``
    are the only ones in which it can be sent, where that is not any. ``runs`` is whether the target's own code sends it, ``many``
    whether it reaches several vCPUs, ``outside`` whether it is an ioctl of the target, which has to be out of KVM_RUN,
    ``message`` whether it is a message that can have any of DATA.
    """

    events: tuple[str, ...]
    steps: Callable[[s.Send, To], Steps]
    modes: tuple[str, ...] = _ANY
    irqchip: str = "full"
    needs: tuple[str, ...] = ()
    states: tuple[str, ...] = ()
    runs: bool = False
    plants: tuple[str, ...] = ()
    many: bool = False
    outside: bool = False
    message: bool = False


TRIGGERS: dict[str, Trigger] = {
    "latched": Trigger(("init",), _latched, _EVERY, outside=True),
    "msi": Trigger(("init", "sipi", "nmi", "interrupt", "smi"), _msi, message=True),
    "gsi-msi": Trigger(("init",), _gsi(_GSI, f"KVM_IRQ_LINE of GSI {_GSI}")),
    "irqfd": Trigger(("init",), _irqfd),
    "ioapic": Trigger(("init",), _ioapic),
    "split": Trigger(("init",), _gsi(PIN, f"KVM_IRQ_LINE of GSI {PIN}"), irqchip="split"),
    "icr-xapic": Trigger(("init",), _icr("xapic"), ("xapic",), message=True),
    "icr-x2apic": Trigger(("init",), _icr("x2apic"), ("x2apic",), message=True),
    "icr-xapic/logical": Trigger(("init",), _logical("xapic"), ("xapic", "xapic-flat"), plants=("a",)),
    "icr-x2apic/logical": Trigger(("init",), _logical("x2apic"), ("x2apic",), plants=("a",)),
    "broadcast": Trigger(("init",), _broadcast, many=True),
    "self": Trigger(("init",), _self, states=("",), runs=True, plants=("guest-long",)),
    "triple-fault": Trigger(("shutdown",), _triple_fault, states=("at-triple-fault",), plants=("guest-long",)),
    "mp-state": Trigger(("sipi", "none"), _mp_state, _EVERY),
    "ioctl-nmi": Trigger(("nmi",), _ioctl(KVM_NMI)),
    "ioctl-smi": Trigger(("smi",), _ioctl(KVM_SMI), needs=("smm",)),
}


def events(trigger: str) -> tuple[str, ...]:
    """All that ``trigger`` can send, which for a message is more than what item cases are made of."""
    return tuple(DATA) if TRIGGERS[trigger].message else TRIGGERS[trigger].events
