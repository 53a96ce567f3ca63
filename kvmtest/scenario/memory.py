# SPDX-License-Identifier: GPL-2.0-only
"""One memory map for all guests: where their images lie, and the addresses and numbers that their sources name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from kvmtest import guests
from kvmtest.guests import behaviour, l1, planter, smm, svm
from kvmtest.scenario.program import Op, Region, Write

__all__ = (
    "IDENTITY_MAP",
    "SENDER",
    "SIZE_OF_OUT",
    "SMRAM",
    "TSS",
    "address",
    "image",
    "load",
    "number",
    "page",
    "planted_address",
    "region",
    "resume",
    "said",
    "words",
)

#: Above the guests' memory and below their ROM: what kvm_intel needs without unrestricted guest support.
IDENTITY_MAP, TSS = 0xFFFBC000, 0xFFFBD000
#: Up to where a PC's video memory begins.
_RAM_SIZE = 0xA0000
#: The guest that lies in SMRAM alone: an SMI handler. In SMM a vCPU of KVM sees another address space, number 1 (KVM API,
#: KVM_SET_USER_MEMORY_REGION).
SMRAM = "smram"
#: Bytes of OUT imm8, EAX in 16-bit code, the first instruction of every guest at the reset vector.
SIZE_OF_OUT = 3
_ROM_SLOT, _RAM_SLOT, _VIDEO_SLOT, _SENDER_SLOT = 0, 1, 9, 7
_SMRAM_SLOT = 1 << 16 | 8
SENDER, _SENDER_SIZE = 0xFFFE0000, 0x1000
#: The meaning of an OUT to each port, if it is the same in all guests.
_WORDS = {
    "RESET": "the first instruction at the reset vector",
    "SIPI": "the first instruction at the SIPI's vector",
    "READY": "READY",
    "VALUE": "VALUE",
    "LEFT": "LEFT",
    "NMI": "the NMI handler",
    "AWAKE": "the instruction after HLT",
    "TAKEN": "an interrupt, vector",
    "SMI": "the SMI handler",
    "EXIT": "a VM exit to L1, reason",
    "NESTED": "L2",
    "VMFAIL": "VM-instruction error",
    "FAULT": "an exception",
}
#: The meaning in one guest.
_OWN = {
    ("smm", "VALUE"): "the end of the SMI handler's loop",
    ("smm", "LEFT"): "the code that the SMI interrupted",
    ("svm", "VALUE"): "L1 with GIF clear, turns",
    ("svm", "LEFT"): "L1 after STGI, turns",
    ("vmx", "VALUE"): "L1 in VMX root operation, turns",
    ("vmx", "LEFT"): "L1 after VMXOFF, turns",
}
#: Words whose value says nothing.
_PLAIN = frozenset(("RESET", "spine.RESET", "READY", "AWAKE", "NMI", "SMI", "NESTED"))
#: Guests that begin with guests/l1.inc.
_HYPERVISORS = ("svm", "vmx")
#: The suffix of the planter's labels, by the mode that it leaves the vCPU in.
_SUFFIX = {"guest-long": "64", "guest-protected": "32", "guest-v86": "16"}


def number(guest: str, name: str) -> int:
    """The number that the source of ``guest`` calls ``name``; ``other.NAME`` is that of another guest."""
    other, dot, rest = name.partition(".")
    if dot:
        # PORT_sender.SENT: the prefix is that of the name.
        prefix, _, other = other.rpartition("_")
        guest, name = other, f"{prefix}_{rest}" if prefix else rest
    if guest == "spine" and name == "PORT_RESET":
        # Its first word at the reset vector says more than that.
        name = "PORT_RAX"
    if guest == "planter" and name == "count":
        return planter.BASE + planter.count
    found = guests.symbol("smm" if guest == SMRAM else guest, name)
    return found + SENDER if guest == "sender" and name.islower() else found


def words(guest: str) -> Iterator[tuple[str, str]]:
    """The words of ``guest``: the end of the port's name, and its meaning."""
    if guest in ("", "spine"):
        yield "spine.RESET", _WORDS["RESET"]
        return
    known = guests.symbols("smm" if guest == SMRAM else guest)
    for name, says in _WORDS.items():
        if f"PORT_{name}" in known:
            yield name, _OWN.get((guest, name), says)
    if "PORT_SMI" not in known:
        yield "smram.SMI", _WORDS["SMI"]


def said(guest: str, name: str, says: str, value: int | None) -> str:
    """The word ``name`` of ``guest``, which ``says`` something, with its ``value``."""
    if value is None or name in _PLAIN or guest == "smm":
        return says
    if name != "FAULT":
        return f"{says} {value:#x}"
    if guest in (*_HYPERVISORS, "access"):
        return f"exception {value >> 24}, error code or RIP {value & 0xFFFFFF:#x}"
    return f"{says} at CS:IP {value >> 16:04x}:{value & 0xFFFF:04x}"


def _vmcb(efer: int, cr0: int, cr4: int, *intercepts: int) -> bytes:
    return svm.vmcb(*intercepts, efer=efer, cr0=cr0, cr4=cr4)


def image(name: str, args: tuple[int, ...]) -> bytes:
    """Contents of memory that are no guest's code.

    ``vmcb`` is that of SVM's nested guest; its ``args`` are EFER, CR0, CR4 and bits of the intercepts at 00CH. ``vectors`` is the
    vector table of the guest whose topics are behaviours; ``vectors-ff`` has another handler for vector FFH, ``vectors-nmi`` one
    that counts NMIs.
    """
    return _IMAGES[name](*args)


#: By the names that scenarios give them.
_IMAGES: dict[str, Callable[..., bytes]] = {
    "vmcb": _vmcb,
    "vectors": behaviour.vector_table,
    "vectors-ff": partial(behaviour.vector_table, ff="AT_FF_OTHER"),
    "vectors-nmi": partial(behaviour.vector_table, nmi="AT_NMI_COUNTS"),
}


def address(guest: str, word: str) -> tuple[int, int]:
    """Address space and guest-physical address of a word, or of the sum of some; those of SMRAM begin with SMM."""
    if word.startswith("SMM_"):
        return 1, number(SMRAM, word)
    return 0, sum(number(guest, one) for one in word.split("+"))


def region(slot: int, gpa: int, size: int, logged: bool = False) -> Op:
    """Memory at ``gpa``, once."""
    return Region(slot, gpa, size, logged)


def load(guest: str) -> Iterator[Op]:
    """Put the image of ``guest`` where it belongs."""
    if guest == SMRAM:
        yield Region(_SMRAM_SLOT, smm.SMBASE, smm.SMRAM_SIZE)
        yield Write(smm.ENTRY, smm.handler(), 1)
        return
    if guest == "sender":
        yield Region(_SENDER_SLOT, SENDER, _SENDER_SIZE)
        yield Write(SENDER, guests.load(guest)[:_SENDER_SIZE])
        return
    image = guests.load(guest)
    yield Region(_RAM_SLOT, 0, _RAM_SIZE)
    yield Region(_ROM_SLOT, guests.ROM_GPA, len(image))
    yield Write(guests.ROM_GPA, image)
    if guest in _HYPERVISORS:
        yield Write(l1.CODE, l1.pages(guest))
        yield Write(l1.PAGE_TABLES, l1.page_tables())
        return
    yield Write(0, behaviour.vector_table())
    yield Write(number(guest, "CODE"), image[: guests.PAGE])


def page(guest: str, vector: int) -> Iterator[Op]:
    """Put the page of ``guest`` to where the SIPI ``vector`` begins."""
    if vector << 12 >= _RAM_SIZE:
        yield Region(_VIDEO_SLOT, _RAM_SIZE, (1 << 20) - _RAM_SIZE)
    yield Write(vector << 12, guests.load(guest)[: guests.PAGE])


def planted_address(plant: str, end: str) -> int:
    """Return the address of the code of ``plant`` that does what ``end`` names. Raises ValueError if its mode has none."""
    label, at = end + _SUFFIX[plant], guests.symbols("planter")
    if label not in at:
        raise ValueError(f"the planting guest has no end {label!r}")
    # Virtual-8086 mode knows the low copy only.
    return at[label] if plant == "guest-v86" else planter.BASE + at[label]


def resume(plant: str, end: str) -> Op:
    """Write the address at which the planted code continues."""
    return Write(planter.BASE + planter.end, planted_address(plant, end).to_bytes(8, "little"))
