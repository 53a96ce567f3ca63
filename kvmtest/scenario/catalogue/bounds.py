# SPDX-License-Identifier: GPL-2.0-only
"""Boundary values of state that is written back: each field at 0, at 1, at its maximum, read back as written."""

from __future__ import annotations

from typing import NamedTuple

from kvmtest.scenario import step as s
from kvmtest.scenario.catalogue.common import FINDS, LISTENS, boot, reported, turn
from kvmtest.scenario.step import Scenario
from kvmtest.spec.cite import KVM_API, LINUX_NMIS, LINUX_X2APIC_ID, S_EFLAGS, S_LVT, S_X2APIC, S_X2APIC_LDR
from kvmtest.state.layout import SEGMENTS
from kvmtest.state.values import NEW
from kvmtest.uapi.kvm import KVM_IOAPIC_NUM_PINS, KVM_NMI

__all__ = ("FIELDS", "SCENARIOS", "Bounds", "timer")

_GPRS = ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rsp", "rbp", *(f"r{i}" for i in range(8, 16)), "rip")


class Bounds(NamedTuple):
    """Fields that one ioctl writes: of each item its ``values``, at 0, 1 and the largest; over ``plant``.

    ``ones`` are bits of items that are 1 whatever is written; ``who`` is the vCPU that has them, or ``vm``.
    """

    trigger: str
    name: str
    values: dict[str, tuple[int, int, int]]
    plant: str = "a"
    apic_mode: str = "xapic"
    ones: tuple[tuple[str, int], ...] = ()
    who: s.Who = "target"


def _of(bits: int, *items: str) -> dict[str, tuple[int, int, int]]:
    return dict.fromkeys(items, (0, 1, (1 << bits) - 1))


def _parts(part: str, segments: tuple[str, ...] = SEGMENTS) -> tuple[str, ...]:
    return tuple(f"{segment}.{part}" for segment in segments)


#: A redirection entry that is masked, and one with all bits that software writes (82093AA, I/O Redirection Table Registers).
_REDIRECTION = 1 << 16
_WRITTEN = 0xFF << 56 | _REDIRECTION | 0xAFFF
#: Reserved bits are in none of the values. What is requested of a PIC is masked as well.
FIELDS = (
    Bounds("set-regs", "registers", _of(64, *_GPRS) | {"rflags": (0, 1, 0x3D7FD7)}, "b", ones=(("rflags", 2),)),
    Bounds(
        "set-sregs", "registers",
        _of(16, *_parts("selector"), "gdt.limit", "idt.limit") | _of(64, *_parts("base", ("fs", "gs", "tr", "ldt")), "cr2")
        | _of(32, *_parts("base", ("cs", "ds", "es", "ss"))) | _of(47, "gdt.base", "idt.base")
        | {item: (0xFFF, 0x1FFF, 0xFFFFFFFF) for item in _parts("limit", SEGMENTS[:6])} | _of(4, "cr8"),
    ),
    Bounds("set-debugregs", "registers", _of(64, "dr0", "dr1", "dr2", "dr3") | {"dr7": (0x400, 0x401, 0xFFFF07FF)}),
    Bounds(
        "set-lapic", "registers",
        _of(8, "lapic.tpr") | {"lapic.svr": (0xF, 0x1F, 0x1FF), "lapic.ldr": (0, 1 << 24, 0xFF << 24)}
        | {"lapic.timer_initial": (0, 1, 0xFFFFFFFF), "lapic.timer_divide": (0, 1, 0xB)}
        | {f"lapic.lvt_{name}": (0x10000, 0x10001, 0x100FF) for name in ("lint1", "error", "timer")}
        | {f"lapic.{name}{i}": (0, 1, 0xFFFFFFFF) for name in ("irr", "tmr") for i in range(1, 8)},
    ),
    Bounds("set-xcrs", "registers", {"xcr0": (1, 1, 3)}),
    Bounds("mp-state", "states", {"mp_state": (0, 1, 3)}),
    Bounds(
        "set-irqchip", "pics",
        _of(8, *(f"{pic}.{name}" for pic in ("pic_master", "pic_slave") for name in ("last_irr", "irr", "isr", "imr")))
        | _of(3, "pic_master.priority_add", "pic_slave.priority_add")
        | {"pic_master.irq_base": (0, 8, 0xF8), "pic_slave.irq_base": (0, 8, 0xF8)}
        # Of the lines 0 to 2, 8 and 13 none can be level-triggered.
        | {"pic_master.elcr": (0, 8, 0xF8), "pic_slave.elcr": (0, 2, 0xDE)},
        who="vm",
    ),
    Bounds(
        "set-irqchip", "ioapic",
        {f"ioapic.redirtbl{pin}": (_REDIRECTION, _REDIRECTION | 1, _WRITTEN) for pin in range(KVM_IOAPIC_NUM_PINS)},
        who="vm",
    ),
)  # fmt: skip
_NAMES = ("smallest", "one", "largest")


def _field(of: Bounds, number: int) -> Scenario:
    written = tuple((item, values[number]) for item, values in of.values.items())
    ones = dict(of.ones)
    # Nothing writes the state of a VM's interrupt controllers anew.
    fresh = of.who == "vm"
    steps: tuple[s.Step, ...] = (
        *(() if fresh else (s.Plant(of.plant, of.apic_mode),)), s.Set(written, of.who, check=False),
        *(s.Expect(s.Is(item, value | ones.get(item, 0)), who=of.who, ends=False) for item, value in written),
    )  # fmt: skip
    cite = (KVM_API, S_EFLAGS) if ones else (KVM_API,)
    return Scenario("none", of.trigger, f"{of.name}-{_NAMES[number]}", steps, cite, vendors=("intel",), fresh=fresh)


#: The vCPU's id, which KVM_GET_LAPIC shows in the upper byte; the target is the vCPU 1.
_ID, _LDR, _OTHER = 1 << 24, 1 << 1, 0x55 << 24


def _id(sequence: str, value: int) -> Scenario:
    """An id that is not the vCPU's: in x2APIC mode it cannot be written, and LDR follows from it."""
    steps = (
        s.Plant("a", "x2apic"), FINDS, s.Set((("lapic.id", value),), check=False), s.Expect(s.Is("lapic.id", _ID), ends=False),
        s.Expect(s.Is("lapic.ldr", _LDR), ends=False), s.Expect(s.Same()),
    )  # fmt: skip
    cite = (S_X2APIC, S_X2APIC_LDR, KVM_API, LINUX_X2APIC_ID)
    return Scenario("none", "set-lapic", sequence, steps, cite, vendors=("intel",), fresh=False)


def _nmis(count: int, pending: int) -> Scenario:
    """Several NMIs to a vCPU outside KVM_RUN and outside an NMI handler: one is injected, and one stays pending."""
    sent = tuple(s.Call(KVM_NMI) for _ in range(count))
    steps: tuple[s.Step, ...] = (s.Plant(NEW), FINDS, *sent, s.Expect(s.Is("events.nmi_pending", pending)))
    return Scenario("none", "ioctl-nmi", f"nmis-{count}", steps, (KVM_API, LINUX_NMIS), vendors=("amd",), fresh=False)


def _saved(count: int) -> Scenario:
    """So many pending NMIs are written back."""
    steps = (s.Plant(NEW), s.Set((("events.nmi_pending", count),), check=False), s.Expect(s.Is("events.nmi_pending", count)))
    return Scenario("none", "vcpu-events", f"nmis-{count}", steps, (KVM_API, LINUX_NMIS), vendors=("amd",), fresh=False)


_VECTOR, _MASKED, _PERIODIC = 0x60, 1 << 16, 1 << 17
_UNDIVIDED = 0xB
_PERIOD, _WAIT, _LIMIT = 500_000, 0xFFFFFFFF, (1 << 25) + (1 << 22)


def timer(name: str, lvt: int, initial: int, left: int, came: int, divide: int = _UNDIVIDED) -> Scenario:
    """A timer that is restored with so much ``left``, in a guest that listens: an interrupt ``came``."""
    counts = (("lapic.timer_initial", initial), ("lapic.timer_current", left))
    written = (("lapic.timer_divide", divide), ("lapic.lvt_timer", lvt), *counts)
    steps = (LISTENS, *boot("bsp"), *turn(0), s.Set(written, check=False), s.Poke("ARG_LIMIT", _LIMIT), *reported(came))
    return Scenario("none", "set-lapic", f"timer-{name}", steps, (KVM_API, S_LVT), "bsp", "guest", vendors=("intel",))


SCENARIOS = (
    *(_field(of, number) for of in FIELDS for number in range(3)),
    *(_id(f"id-{name}-in-x2apic-mode", value) for name, value in (("0", 0), ("other", _OTHER), ("largest", 0xFF << 24))),
    *(_nmis(count, min(count, 2)) for count in (1, 2, 3)),
    *map(_saved, (0, 1, 2)),
    # One-shot: with nothing left it has fired already; nothing is armed by an initial count of 0.
    timer("one-shot-0-left", _VECTOR, _PERIOD, 0, 0),
    timer("one-shot-all-left", _VECTOR, _PERIOD, _PERIOD, 1),
    timer("one-shot-largest-left", _VECTOR, _WAIT, _WAIT, 0),
    timer("one-shot-count-1", _VECTOR, 1, 1, 1),
    timer("one-shot-count-0", _VECTOR, 0, 0, 0),
    timer("periodic-0-left", _PERIODIC | _VECTOR, _PERIOD, 0, 1),
    timer("periodic-1-left", _PERIODIC | _VECTOR, _PERIOD, 1, 1),
    timer("periodic-count-0", _PERIODIC | _VECTOR, 0, 0, 0),
    timer("periodic-count-0-with-1-left", _PERIODIC | _VECTOR, 0, 1, 0),
    timer("masked-1-left", _MASKED | _VECTOR, _PERIOD, 1, 0),
)  # fmt: skip
