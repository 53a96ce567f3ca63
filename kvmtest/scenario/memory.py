# SPDX-License-Identifier: GPL-2.0-only
"""One memory map for all guests: where their images lie, and the addresses and numbers that their sources name."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from importlib import import_module
from types import ModuleType

from kvmtest import guests
from kvmtest.guests import behaviour, l1, planter
from kvmtest.scenario.program import Op, Region, Write

__all__ = (
    "IDENTITY_MAP",
    "PLAIN",
    "RAM_SIZE",
    "SENDER",
    "SIZE_OF_OUT",
    "SMRAM",
    "TSS",
    "address",
    "load",
    "number",
    "page",
    "region",
    "resume",
    "words",
)

#: Above the guests' memory and below their ROM: what kvm_intel needs without unrestricted guest support.
IDENTITY_MAP, TSS = 0xFFFBC000, 0xFFFBD000
#: Up to where a PC's video memory begins.
RAM_SIZE = 0xA0000
#: The guest that lies in SMRAM alone: an SMI handler. In SMM a vCPU of KVM sees another address space, number 1 (KVM API,
#: KVM_SET_USER_MEMORY_REGION).
SMRAM = "smram"
#: Bytes of OUT imm8, EAX in 16-bit code, the first instruction of every guest at the reset vector.
SIZE_OF_OUT = 3
_ROM_SLOT, _RAM_SLOT, _VIDEO_SLOT, _SENDER_SLOT = 0, 1, 9, 7
_SMRAM_SLOT = 1 << 16 | 8
SENDER, _SENDER_SIZE = 0xFFFE0000, 0x1000
#: What a guest's OUT to each of its ports means, where that is the same in all of them.
_WORDS = {
    "RESET": "the first instruction at the reset vector",
    "SIPI": "the first instruction at the SIPI's vector",
    "READY": "READY",
    "VALUE": "VALUE",
    "LEFT": "LEFT",
    "NMI": "the NMI handler",
    "SMI": "the SMI handler",
    "EXIT": "a VM exit to L1, reason",
    "NESTED": "L2",
    "VMFAIL": "VM-instruction error",
    "FAULT": "an exception",
}
#: Words whose value says nothing.
PLAIN = frozenset(("RESET", "READY", "NMI", "SMI", "NESTED"))
#: What the labels of the planter's code end with, by the mode that it leaves the vCPU in.
_SUFFIX = {"guest-long": "64", "guest-protected": "32", "guest-v86": "16"}


@cache
def _module(guest: str) -> ModuleType:
    return import_module(f"kvmtest.guests.{'smm' if guest == SMRAM else guest}")


def number(guest: str, name: str) -> int:
    """The number that the source of ``guest`` calls ``name``; ``other.NAME`` is that of another guest."""
    other, dot, rest = name.partition(".")
    if dot:
        # PORT_sender.SENT: the prefix is that of the name.
        prefix, _, other = other.rpartition("_")
        guest, name = other, f"{prefix}_{rest}" if prefix else rest
    if guest == "sender":
        return int(getattr(guests, name))
    return int(getattr(_module(guest), name))


def words(guest: str) -> Iterator[tuple[str, str]]:
    """The words that ``guest`` says: the end of the port's name, and what it means."""
    module = _module(guest)
    for name, says in _WORDS.items():
        if hasattr(module, f"PORT_{name}"):
            yield name, says


def address(guest: str, word: str) -> tuple[int, int]:
    """Address space and guest-physical address of a word; those of SMRAM begin with SMM."""
    if word.startswith("SMM_"):
        return 1, number(SMRAM, word)
    return 0, number(guest, word)


def region(slot: int, gpa: int, size: int) -> Op:
    """Memory at ``gpa``, once."""
    return Region(slot, gpa, size)


def load(guest: str) -> Iterator[Op]:
    """Put the image of ``guest`` where it belongs."""
    module = _module(guest) if guest != "sender" else None
    if guest == SMRAM:
        assert module
        yield Region(_SMRAM_SLOT, module.SMBASE, module.SMRAM_SIZE)
        yield Write(module.ENTRY, module.handler(), 1)
        return
    if guest == "sender":
        yield Region(_SENDER_SLOT, SENDER, _SENDER_SIZE)
        yield Write(SENDER, guests.load(guest)[:_SENDER_SIZE])
        return
    assert module
    image = guests.load(module.NAME)
    yield Region(_RAM_SLOT, 0, RAM_SIZE)
    yield Region(_ROM_SLOT, guests.ROM_GPA, len(image))
    yield Write(guests.ROM_GPA, image)
    if guest in ("svm", "vmx"):
        yield Write(l1.CODE, l1.pages(module.NAME))
        yield Write(l1.PAGE_TABLES, l1.page_tables())
        return
    yield Write(0, behaviour.vector_table())
    yield Write(module.CODE, module.page())


def page(guest: str, vector: int) -> Iterator[Op]:
    """Put the page of ``guest`` to where the SIPI ``vector`` begins."""
    if vector << 12 >= RAM_SIZE:
        yield Region(_VIDEO_SLOT, RAM_SIZE, (1 << 20) - RAM_SIZE)
    yield Write(vector << 12, _module(guest).page())


def _planted_address(plant: str, end: str) -> int:
    """Where the code of a vCPU planted by ``plant`` does what ``end`` names. Raises ValueError where its mode has none."""
    label, at = end + _SUFFIX[plant], planter.labels()
    if label not in at:
        raise ValueError(f"the planting guest has no end {label!r}")
    # Virtual-8086 mode knows the low copy only.
    return at[label] if plant == "guest-v86" else planter.BASE + at[label]


def resume(plant: str, end: str) -> Op:
    """Write where the planted code goes on."""
    return Write(planter.BASE + planter.labels()["end"], _planted_address(plant, end).to_bytes(8, "little"))
