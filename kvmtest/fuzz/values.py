# SPDX-License-Identifier: GPL-2.0-only
"""Random legal values for a vCPU's items, independent of the plant."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from random import Random

from kvmtest.scenario.places import fields
from kvmtest.spec.alone import follows
from kvmtest.state.layout import SEGMENTS
from kvmtest.state.values import values
from kvmtest.x86.msr import SAME

__all__ = ("BITS", "PARAVIRT", "PENDING", "TRIPLE", "follow", "items", "names", "section_of")

#: Written with what belongs to it alone.
PENDING = "events.exception_pending"
TRIPLE = "events.triple_fault_pending"

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
#: KVM's own: an address that is not enabled, so that nothing is written there.
PARAVIRT = ("msr.kvm_steal_time", "msr.kvm_async_pf_en", "msr.kvm_pv_eoi_en")
#: MSRs of which each byte is a field of its own.
_BYTES = ("pat", "mtrr_fix")
#: RFLAGS: the bits that are not reserved, without VM, and the one that is 1 (SDM vol. 1, EFLAGS Register).
_RFLAGS, _RFLAGS_ONE = 0x3D7FD7, 2
#: Bits that each mode allows to set: CR0 MP NE WP AM; CR4 TSD DE MCE PCE OSFXSR OSXMMEXCPT; EFER SCE NXE.
BITS = {"cr0": (1, 5, 16, 18), "cr4": (2, 3, 6, 8, 9, 10), "efer": (0, 11)}
#: Relative frequencies of the sections that are written.
_SECTIONS = {"regs": 2.0, "sregs": 3.0, "debugregs": 1.0, "xcrs": 0.2, "lapic": 3.0, "msrs": 3.0}
#: MSRs that KVM_GET_SREGS shows as another item.
_SHOWN_AS = {"msr.fs_base": "fs.base", "msr.gs_base": "gs.base"}
#: A limit is in bytes, or ends with 12 bits that are 1.
_PAGE_LIMIT = 0xFFF


def _word(random: Random) -> int:
    return random.choice(_EDGES) if random.random() < 0.25 else random.getrandbits(64)


def _address(random: Random) -> int:
    """A canonical linear address."""
    low = random.getrandbits(47)
    return low if random.random() < 0.5 else low | 0xFFFF800000000000


def _limit(random: Random) -> int:
    """A segment's limit, which fits its bit G only by chance: KVM checks none."""
    return random.getrandbits(20) if random.getrandbits(1) else random.getrandbits(32) | _PAGE_LIMIT


def _either(item: str) -> Value:
    """One of the values that plants have."""
    pair = (values("a")[item], values("b")[item])
    return lambda random: random.choice(pair)


def _mixed(item: str, unit: int) -> Value:
    """The values that plants have, mixed by fields of ``unit`` bits: each field has one of its two legal values."""
    one, other = values("a")[item], values("b")[item]

    every, units = (1 << unit) - 1, 64 // unit

    def made(random: Random) -> int:
        bits = random.getrandbits(units)
        mask = bits if unit == 1 else sum(every << unit * at for at in range(units) if bits >> at & 1)
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
    found["rflags"] = lambda random: random.getrandbits(22) & _RFLAGS | _RFLAGS_ONE
    found["xcr0"] = lambda random: random.choice((1, 3))
    for name in ("gdt", "idt"):
        found[f"{name}.base"] = _address
        found[f"{name}.limit"] = lambda random: random.getrandbits(16)
    for name in SEGMENTS:
        found[f"{name}.selector"] = lambda random: random.getrandbits(16)
        found[f"{name}.base"] = _address if name in ("fs", "gs", "tr", "ldt") else lambda random: random.getrandbits(32)
        found[f"{name}.limit"] = _limit
    found |= dict.fromkeys(PARAVIRT, lambda random: random.getrandbits(20) << 12)
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


def section_of(item: str) -> str:
    """The section that ``item`` is written with."""
    return "msrs" if item.startswith("msr.") else fields()[item][0]


@cache
def _by_section(without: frozenset[str]) -> tuple[tuple[tuple[str, ...], ...], tuple[float, ...]]:
    """The items of each section that some are left of, and its relative frequency."""
    found: dict[str, list[str]] = {}
    for item in _items():
        if item not in without:
            found.setdefault(section_of(item), []).append(item)
    return tuple(map(tuple, found.values())), tuple(_SECTIONS[section] for section in found)


def items(random: Random, without: frozenset[str] = frozenset(), most: int = 6) -> tuple[tuple[str, int], ...]:
    """Some items of a section or two, each with a random value; none of those ``without``, which this host does not accept."""
    known, chosen = _items(), dict[str, None]()
    for names in random.choices(*_by_section(without), k=random.choice((1, 1, 2))):
        chosen |= dict.fromkeys(random.sample(names, random.randint(1, min(most, len(names)))))
    return tuple((name, known[name](random)) for name in chosen)


def follow(written: tuple[str, ...]) -> tuple[str, ...]:
    """Return ``written`` items, and those that change with them."""
    found = dict.fromkeys(written)
    for section in dict.fromkeys(map(section_of, written)):
        found |= dict.fromkeys(one.item for one in follows(section))
    for item in written:
        # KVM on SVM shows G as the limit has it (svm_get_segment()).
        segment, _, part = item.partition(".")
        found |= {f"{segment}.g": None} if part == "limit" and segment in SEGMENTS else {}
        kind, _, name = item.partition(".")
        if kind == "msr":
            found |= dict.fromkeys((*(f"msr.{same}" for same in SAME.get(name, ())), _SHOWN_AS.get(item, item)))
    return tuple(found)
