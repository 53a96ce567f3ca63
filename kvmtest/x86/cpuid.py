# SPDX-License-Identifier: GPL-2.0-only
"""CPUID leaves that the state of a vCPU depends on (SDM vol. 2, CPUID; APM vol. 3, CPUID)."""

from __future__ import annotations

from typing import NamedTuple

__all__ = (
    "ALL",
    "FOLLOWS",
    "MIRRORS",
    "VENDORS",
    "Change",
    "CpuidEntry",
    "Mirror",
    "changed",
    "changes",
    "extended_apic",
    "for_guest",
    "gp_counters",
    "xcr0_mask",
    "xsave_components",
)

#: All bits of a register.
ALL = 0xFFFFFFFF
#: EBX, EDX, ECX of leaf 0 spell the vendor.
VENDORS = {"intel": b"GenuineIntel", "amd": b"AuthenticAMD"}
#: CPUID.1:EAX given to guests: neither KVM's fallback of 600H nor, as far as can be, the host's own.
_SIGNATURES = {"intel": (0x000506E3, 0x000306C3), "amd": (0x00870F10, 0x00810F81)}


class CpuidEntry(NamedTuple):
    """One CPUID leaf: struct kvm_cpuid_entry2. `flags` are KVM_CPUID_FLAG_*."""

    function: int
    index: int = 0  # type: ignore[assignment]
    flags: int = 0
    eax: int = 0
    ebx: int = 0
    ecx: int = 0
    edx: int = 0


class Mirror(NamedTuple):
    """A register of a CPUID leaf in which ``bits`` follow the vCPU's state, that of ``section``; its item is ``item``.

    ``cr4`` is the bit of CR4 that they follow, 0 if it is something else.
    """

    item: str
    function: int
    index: int  # type: ignore[assignment]  # tuple has a method of this name
    register: str
    bits: int
    section: str = "sregs"
    cr4: int = 0


#: OSXSAVE follows CR4, APIC IA32_APIC_BASE.EN, OSPKE CR4.PKE; the sizes of the XSAVE area follow XCR0, and XCR0 | IA32_XSS.
MIRRORS = (
    Mirror("cpuid.1.ecx", 0x1, 0, "ecx", 1 << 27, cr4=1 << 18),
    Mirror("cpuid.1.edx", 0x1, 0, "edx", 1 << 9),
    Mirror("cpuid.7.ecx", 0x7, 0, "ecx", 1 << 4, cr4=1 << 22),
    Mirror("cpuid.d.ebx", 0xD, 0, "ebx", 0xFFFFFFFF, "xcrs"),
    Mirror("cpuid.d1.ebx", 0xD, 1, "ebx", 0xFFFFFFFF, "xcrs"),
)
#: The section whose state an item of CPUID follows.
FOLLOWS = {mirror.item: mirror.section for mirror in MIRRORS}


#: Of a leaf: its function, the register, the bits that change, and their value.
Change = tuple[int, str, int, int]


def changes(supported: list[CpuidEntry], vendor: str, apic_id: int) -> tuple[Change, ...]:
    """Return the changes that make ``supported`` (KVM_GET_SUPPORTED_CPUID) CPUID of ``vendor``, with another signature."""
    name = VENDORS[vendor]
    host = next((leaf.eax for leaf in supported if leaf.function == 1), 0)
    signature = next(s for s in _SIGNATURES[vendor] if s != host)
    spelled = [(register, int.from_bytes(name[i : i + 4], "little")) for register, i in (("ebx", 0), ("edx", 4), ("ecx", 8))]
    return (
        *((function, register, ALL, part) for function in (0, 0x80000000) for register, part in spelled),
        (1, "eax", ALL, signature),
        (1, "ebx", 0xFF000000, (apic_id & 0xFF) << 24),
        *((function, "edx", ALL, apic_id) for function in (0xB, 0x1F)),
    )


def changed(leaves: list[CpuidEntry], changes: tuple[Change, ...]) -> list[CpuidEntry]:
    """``leaves`` with ``changes``, in every index of their function."""
    wanted = {function for function, _, _, _ in changes}
    found = []
    for leaf in leaves:
        for function, register, mask, value in changes if leaf.function in wanted else ():
            if leaf.function == function:
                leaf = leaf._replace(**{register: getattr(leaf, register) & ~mask | value})
        found.append(leaf)
    return found


def for_guest(supported: list[CpuidEntry], vendor: str, apic_id: int) -> list[CpuidEntry]:
    """``supported`` (KVM_GET_SUPPORTED_CPUID) made a guest of ``vendor`` with a signature that is not the host's."""
    return changed(supported, changes(supported, vendor, apic_id))


def gp_counters(leaves: list[CpuidEntry]) -> int:
    """CPUID.0AH:EAX[15:8], the number of general-purpose performance counters."""
    return next((leaf.eax >> 8 & 0xFF for leaf in leaves if leaf.function == 0xA), 0)


def extended_apic(leaves: list[CpuidEntry]) -> bool | None:
    """CPUID.80000001H:ECX.ExtApicSpace[3] of AMD; None where there is no such leaf."""
    return next((bool(leaf.ecx >> 3 & 1) for leaf in leaves if leaf.function == 0x80000001), None)


def xcr0_mask(leaves: list[CpuidEntry]) -> int:
    """The XCR0 bits that may be set: CPUID.(EAX=0DH,ECX=0):EDX:EAX; 1 where there is no such leaf."""
    for leaf in leaves:
        if leaf.function == 0xD and leaf.index == 0:
            return leaf.edx << 32 | leaf.eax
    return 1


def xsave_components(leaves: list[CpuidEntry]) -> dict[int, int]:
    """Offset in bytes of each extended component in the standard format: CPUID.(EAX=0DH,ECX=bit):EBX."""
    mask = xcr0_mask(leaves)
    return {
        leaf.index: leaf.ebx for leaf in leaves if leaf.function == 0xD and leaf.index > 1 and mask >> leaf.index & 1
    }
