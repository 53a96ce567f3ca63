# SPDX-License-Identifier: GPL-2.0-only
"""The guest's own view: let the spine guest run from where the event left the vCPU, and collect what it reports."""

from __future__ import annotations

from typing import NamedTuple

from kvmtest import guests
from kvmtest.engine.machine import Machine
from kvmtest.kvm import Exit, KvmError, RunTimeout, Vcpu
from kvmtest.uapi.kvm import KVM_EXIT_IO

__all__ = ("ITEMS", "WIDTH_MASK", "Report", "load", "report")

#: Items that the guest reports, in the order of their ports. It reads 32 bits of each: 16-bit code has no more.
ITEMS = tuple(guests.PORTS.values())
WIDTH_MASK = (1 << 32) - 1

_RAM_SIZE = 0xA0000
#: Slots from _CODE_SLOT on are for SIPI vectors outside of the RAM.
_ROM_SLOT, _RAM_SLOT, _CODE_SLOT = 0, 1, 0x100
_PAGE = 4096


class Report(NamedTuple):
    """What the guest said: 32-bit values by item, and why it said no more ("" where it came to its end)."""

    values: dict[str, int]
    problem: str


def load(machine: Machine, vector: int | None) -> None:
    """RAM, the ROM below 4 GiB, and for a SIPI the guest's code where the vector points; all that an earlier guest changed."""
    vm, image = machine.vm, guests.load("spine")
    ram = vm.memory_at(0) or vm.add_memory(_RAM_SLOT, 0, _RAM_SIZE)
    ram.write(0, guests.vector_table())
    rom = vm.memory_at(guests.ROM_GPA) or vm.add_memory(_ROM_SLOT, guests.ROM_GPA, len(image))
    rom.write(guests.ROM_GPA, image)
    if vector is None:
        return
    gpa = vector << 12
    code = vm.memory_at(gpa) or vm.add_memory(_CODE_SLOT + vector, gpa, _PAGE)
    code.write(gpa, guests.sipi_page(gpa))


def report(vcpu: Vcpu, vector: int | None, timeout_s: float, first: Exit | None = None) -> Report:
    """Run ``vcpu``, whose VM was prepared by load(), until the guest is done or stops by another way than its last port.

    ``vector`` is the SIPI's, None for the reset vector. ``timeout_s`` bounds each KVM_RUN, in seconds. ``first`` is the exit
    of a guest that runs already.
    """
    seen: dict[str, int] = {}
    try:
        for _ in range(2 * len(guests.PORTS) + 4):
            exit_, first = first or vcpu.run(timeout_s), None
            if exit_.reason != KVM_EXIT_IO:
                return Report(seen, f"the guest stopped after {len(seen)} of {len(ITEMS)} values: {exit_}")
            value = int.from_bytes(exit_.data[:4], "little")
            if exit_.port == guests.PORT_DONE:
                return Report(seen, "")
            if exit_.port == guests.PORT_FAULT:
                where = f"{value >> 16:04x}:{value & 0xFFFF:04x}"
                return Report(seen, f"an exception at CS:IP {where} after {len(seen)} of {len(ITEMS)} values")
            if exit_.port == guests.PORT_ENTRY:
                if value != (guests.ENTRY_RESET if vector is None else guests.ENTRY_SIPI):
                    return Report({}, f"the guest came in by entry {value}, not by the one of this event")
            elif exit_.port in guests.PORTS:
                seen[guests.PORTS[exit_.port]] = value
            else:
                return Report(seen, f"unexpected {exit_}")
    except (KvmError, RunTimeout) as error:
        return Report(seen, f"after {len(seen)} of {len(ITEMS)} values: {error}")
    return Report(seen, "the guest reports without end")
