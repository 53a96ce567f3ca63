# SPDX-License-Identifier: GPL-2.0-only
"""Random legal values for a vCPU's items, independent of the plant."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from random import Random

from kvmtest.scenario.places import fields
from kvmtest.state.values import values

__all__ = ("PENDING", "items", "names")

#: Written with what belongs to it alone.
PENDING = "events.exception_pending"

Value = Callable[[Random], int]

_GPRS = ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rsp", "rbp", *(f"r{i}" for i in range(8, 16)))
#: Values at which things change: 0, 1, the ends of each width, both ends of what is canonical.
_EDGES = (0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x7FFFFFFFFFFF, 0xFFFF800000000000, (1 << 63) - 1, (1 << 64) - 1)
#: DR6 and DR7: the bits that are not fixed, without DR7.GD, which no plant has (SDM vol. 3, Debug Registers).
_DR6_FIXED, _DR6_FREE = 0xFFFF0FF0, 0xE00F
_DR7_FIXED, _DR7_FREE = 0x400, 0xFFFF03FF
#: Of lapic.* what counts, names the vCPU, or follows from other registers.
_LAPIC_LEFT_OUT = ("id", "lvt_timer", "timer_initial", "timer_divide", "timer_current", "ldr", "dfr", "ppr", "icr", "icr2")
#: Of msr.* what counts, has a register of its own, or moves what the steps themselves need.
_MSR_LEFT_OUT = ("tsc", "tsc_deadline", "efer", "apic_base", "smbase", "kvm_clock", "kvm_clock_new")
#: MSRs of which each byte is a field of its own.
_BYTES = ("pat", "mtrr_fix")


def _word(random: Random) -> int:
    return random.choice(_EDGES) if random.random() < 0.25 else random.getrandbits(64)


def _address(random: Random) -> int:
    """A canonical linear address."""
    low = random.getrandbits(47)
    return low if random.random() < 0.5 else low | 0xFFFF800000000000


def _either(item: str) -> Value:
    """One of the values that plants have."""
    pair = (values("a")[item], values("b")[item])
    return lambda random: random.choice(pair)


def _mixed(item: str, unit: int) -> Value:
    """The values that plants have, mixed by fields of ``unit`` bits: each field has one of its two legal values."""
    one, other = values("a")[item], values("b")[item]

    def made(random: Random) -> int:
        mask = sum(((1 << unit) - 1) << at for at in range(0, 64, unit) if random.getrandbits(1))
        return one & mask | other & ~mask & (1 << 64) - 1

    return made


@cache
def _items() -> dict[str, Value]:
    found: dict[str, Value] = dict.fromkeys((*_GPRS, "cr2", "dr0", "dr1", "dr2", "dr3"), _word)
    found["dr6"] = lambda random: _DR6_FIXED | random.getrandbits(32) & _DR6_FREE
    found["dr7"] = lambda random: _DR7_FIXED | random.getrandbits(32) & _DR7_FREE
    found["rip"] = _address
    found["cr8"] = lambda random: random.getrandbits(4)
    found["cr3"] = lambda random: random.getrandbits(24) << 12
    for name in ("gdt", "idt"):
        found[f"{name}.base"] = _address
        found[f"{name}.limit"] = lambda random: random.getrandbits(16)
    planted = values("a")
    for item in planted:
        section, _, name = item.partition(".")
        if section == "lapic" and name not in _LAPIC_LEFT_OUT and item in fields():
            # Each bit that a plant sets is one that software may set alone.
            found[item] = _either(item) if name == "svr" else _mixed(item, 1)
        elif section == "msr" and name not in _MSR_LEFT_OUT and not name.startswith(("hv_", "mc", "vmx", "kvm_")):
            found[item] = _mixed(item, 8) if name.startswith(_BYTES) else _either(item)
    return found


def names() -> tuple[str, ...]:
    """All items that get random values."""
    return tuple(_items())


def items(random: Random, without: frozenset[str] = frozenset(), most: int = 6) -> tuple[tuple[str, int], ...]:
    """Some items, each with a random value; none of those ``without``, which this host does not accept."""
    known = _items()
    chosen = random.sample([item for item in known if item not in without], random.randint(1, most))
    return tuple((name, known[name](random)) for name in chosen)
