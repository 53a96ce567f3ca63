# SPDX-License-Identifier: GPL-2.0-only
"""The registers of the local APIC page, as KVM_GET_LAPIC shows it, and values that KVM_SET_LAPIC accepts for them."""

from __future__ import annotations

from collections.abc import MutableSequence, Sequence
from typing import NamedTuple

__all__ = ("LAPIC", "LapicReg", "get", "offset_of", "put")


class LapicReg(NamedTuple):
    """A 32-bit register at ``offset`` of the page; its item is ``lapic.<name>``.

    ``plants`` are two legal values, complementary in the writable bits as far as they may be, or None with the reason in
    ``why``. Where a plant is legal but has a condition, ``why`` says it.
    """

    name: str
    offset: int
    plants: tuple[int, int] | None
    why: str = ""


_ID = "KVM sets the ID from the vCPU's number, ignores or refuses another one in x2APIC mode, and a changed xAPIC ID inhibits APIC virtualization"
_COMPUTED = "KVM computes it from TPR and ISR whenever the state is set"
_CMCI = "exists only with MCG_CAP.CMCI_P, which KVM_X86_SETUP_MCE sets; elsewhere KVM_SET_LAPIC stores bytes that nothing resets"
_TIMER = "first: periodic and unmasked, harmless with a large timer_initial only; second: one-shot and masked, as KVM lets it expire at once"
_XAPIC = "xAPIC mode only"
_ISR = "vector {:#x} upwards in service: delivery of lower classes stays blocked"
_EXTENDED = "KVM has no extended APIC space; it would only store the bytes"

_BITMAPS = (
    # Vectors 0 to 15 can be neither requested nor in service: bank 0 starts at bit 16.
    (0x55550000, 0xAAAA0000),
    *[(0x55555555, 0xAAAAAAAA)] * 7,
)

LAPIC: tuple[LapicReg, ...] = (
    LapicReg("id", 0x020, None, _ID),
    LapicReg("version", 0x030, None, "read-only: KVM sets it again after every KVM_SET_LAPIC"),
    LapicReg("tpr", 0x080, (0x25, 0xDA), "CR8 is its bits 7:4: KVM_SET_SREGS with another CR8 overwrites it"),
    LapicReg("apr", 0x090, None, "KVM does not model arbitration: it computes the value on a guest's read"),
    LapicReg("ppr", 0x0A0, None, _COMPUTED),
    LapicReg("rrd", 0x0C0, None, "read-only; KVM does not model remote reads"),
    LapicReg("ldr", 0x0D0, (0x55000000, 0xAA000000), _XAPIC + "; in x2APIC mode it is derived from the ID"),
    LapicReg("dfr", 0x0E0, (0x0FFFFFFF, 0x0FFFFFFF), _XAPIC + "; the architecture knows the flat (Fh) and the cluster (0h) model only"),
    LapicReg("svr", 0x0F0, (0x1AA, 0x355), "both enable the APIC: RESET leaves it disabled"),
    *(LapicReg(f"isr{i}", 0x100 + 16 * i, _BITMAPS[i], _ISR.format(max(16, 32 * i))) for i in range(8)),
    *(LapicReg(f"tmr{i}", 0x180 + 16 * i, _BITMAPS[i], "a split or in-kernel IOAPIC may recompute it at the next scan") for i in range(8)),
    *(LapicReg(f"irr{i}", 0x200 + 16 * i, _BITMAPS[i], "keep RFLAGS.IF clear or TPR above it, or the vCPU takes the interrupt") for i in range(8)),
    LapicReg("esr", 0x280, (0x65, 0x8A)),
    LapicReg("lvt_cmci", 0x2F0, None, _CMCI),
    LapicReg("icr", 0x300, (0x0C955, 0xC46AA), "setting the register state sends nothing"),
    LapicReg("icr2", 0x310, (0x55000000, 0xAA000000)),
    LapicReg("lvt_timer", 0x320, (0x20055, 0x100AA), _TIMER),
    LapicReg("lvt_thermal", 0x330, (0x00055, 0x104AA), "KVM raises no thermal interrupt"),
    LapicReg("lvt_pmc", 0x340, (0x10055, 0x104AA), "masked, as the counters may overflow"),
    LapicReg("lvt_lint0", 0x350, (0x1A055, 0x104AA), "masked, as the PIC drives it"),
    LapicReg("lvt_lint1", 0x360, (0x1A055, 0x104AA), "masked, as the PIC drives it"),
    LapicReg("lvt_error", 0x370, (0x00055, 0x100AA)),
    LapicReg("timer_initial", 0x380, (0x55555555, 0xAAAAAAAA), "the timer starts at once: plant it with timer_divide and lvt_timer of the same set"),
    LapicReg("timer_current", 0x390, None, "read-only: KVM computes it from the running timer"),
    LapicReg("timer_divide", 0x3E0, (0x0A, 0x01), "divide by 128 and by 4"),
    LapicReg("efeat", 0x400, None, _EXTENDED),
    LapicReg("ecntl", 0x410, None, _EXTENDED),
)

_OFFSETS = {reg.name: reg.offset for reg in LAPIC}


def offset_of(name: str) -> int:
    """Return the offset of register ``name`` in the page."""
    return _OFFSETS[name]


def get(regs: Sequence[int], name: str) -> int:
    """Register ``name`` in the bytes of the page."""
    offset = _OFFSETS[name]
    return int.from_bytes(bytes(regs[offset : offset + 4]), "little")


def put(regs: MutableSequence[int], name: str, value: int) -> None:
    """Write ``value`` (32 bits) to register ``name`` in the bytes of the page."""
    offset = _OFFSETS[name]
    regs[offset : offset + 4] = list(value.to_bytes(4, "little"))
