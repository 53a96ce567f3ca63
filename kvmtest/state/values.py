# SPDX-License-Identifier: GPL-2.0-only
"""Values to plant: two complementary ones for each item, and three CPU modes at the time of the event.

Plant ``a`` is 64-bit mode with paging, ``b`` real mode just after leaving protected mode (its descriptor caches still hold
protected-mode descriptors), ``c`` virtual-8086 mode. Each has one of the three legal CR0.CD/NW pairs. Items that no mode
binds have their first value in ``a`` and ``c`` and the complement in ``b``.
"""

from __future__ import annotations

from functools import cache

from kvmtest.x86 import lapic, msr

__all__ = ("APIC_MODES", "CR4_CANDIDATES", "EFER_CANDIDATES", "NEW", "PLANTS", "SIPI", "values")

PLANTS = ("a", "b", "c")
#: A fourth one, for a vCPU in wait-for-SIPI: what 16-bit code can start from, with nothing pending.
SIPI = "sipi"
#: A new vCPU's state, made able to run: what code that plants by itself starts from.
NEW = "new"

#: IA32_APIC_BASE without the BSP flag, by local APIC mode (SDM vol. 3, Local APIC Status and Location). In xAPIC mode logical
#: destinations follow the cluster model, which is what DFR can be planted with, in `xapic-flat` the flat one.
APIC_MODES = {
    "xapic": 0xFEE00800,
    "xapic-flat": 0xFEE00800,
    "x2apic": 0xFEE00C00,
    "relocated": 0xFE000800,
    "disabled": 0xFEE00000,
}

_M64 = (1 << 64) - 1

#: CR4 bits to try, those the host lets a guest set are kept: a holds all that 64-bit mode allows, b and c the others.
#: VMXE stays out: in VMX operation INIT is blocked.
CR4_CANDIDATES = {
    "a": (3, 4, 5, 6, 7, 9, 10, 11, 16, 17, 18, 20, 21, 22, 23, 24, 25, 28, 32),
    "b": (0, 1, 2, 8, 14),
    "c": (0, 1, 4, 9, 10),
    SIPI: (2, 3, 9, 10),
    NEW: (),
}
#: EFER bits to try: SCE LME LMA NXE, then LMSLE FFXSR TCE AUTOIBRS where the host has them. SVME has cases of its own.
EFER_CANDIDATES = {"a": (0, 8, 10, 11), "b": (0, 13, 14, 15, 21), "c": (11, 14), SIPI: (), NEW: ()}

_CR0 = {
    "a": 0x80050033,  # PG AM WP NE ET MP PE, CD=NW=0
    "b": 0x6000001C,  # CD NW ET TS EM: real mode, caches off
    "c": 0xC0000011,  # PG CD ET PE, NW=0
}
_RFLAGS = {
    "a": 0x00257ED7,  # ID AC RF NT IOPL=3 OF DF IF SF ZF AF PF CF
    "b": 0x00000102,  # TF
    "c": 0x001A0202,  # VIP VIF VM IF
}
_BITS_AR = ("type", "s", "dpl", "present", "avl", "l", "db", "g", "unusable")


def _attributes(text: str) -> dict[str, int]:
    return dict(zip(_BITS_AR, (int(x, 16) for x in text.split()), strict=True))


#: Descriptor caches: selector, base, limit, then _BITS_AR.
_SEGMENTS: dict[str, dict[str, tuple[int, int, int, str]]] = {
    "a": {
        "cs": (0x5A5B, 0x00000000, 0xFFFFFFFF, "b 1 3 1 1 1 0 1 0"),
        "ss": (0xA5A7, 0x00000000, 0xFFFFFFFF, "7 1 3 1 1 0 1 1 0"),
        "ds": (0x5A5F, 0x5A5A1000, 0xA5A5AFFF, "f 1 3 1 1 0 1 1 0"),
        "es": (0xA5A3, 0xA5A52000, 0x5A5A5FFF, "f 1 3 1 1 0 1 1 0"),
        "fs": (0x5A53, 0x00005A5AA5A51234, 0xA5A5AFFF, "f 1 3 1 1 0 1 1 0"),
        "gs": (0xA5AF, 0x000025A55A5A1234, 0x5A5A5FFF, "f 1 3 1 1 0 1 1 0"),
        "tr": (0x5A58, 0x00005A5A12345000, 0x00002087, "b 0 0 1 0 0 0 0 0"),
        "ldt": (0xA5A0, 0x0000123456789000, 0x00000A57, "2 0 0 1 0 0 0 0 0"),
    },
    "b": {
        "cs": (0xA5A4, 0xA5A5E000, 0x00005FFF, "f 1 0 1 0 0 1 0 0"),
        "ss": (0x5A58, 0xA5A50000, 0x0005A5A5, "7 1 0 1 0 0 0 0 0"),
        # Null selectors, loaded before protected mode was left: unusable, with the base and limit of before.
        "ds": (0x0003, 0xA5A5E000, 0x0005A5A0, "0 0 0 0 0 0 0 0 1"),
        "es": (0x0001, 0x5A5AD000, 0x000A5A50, "0 0 0 0 0 0 0 0 1"),
        "fs": (0x0002, 0xFFFFA5A55A5AEDCB, 0x0005A5A0, "0 0 0 0 0 0 0 0 1"),
        "gs": (0x0003, 0xFFFFDA5AA5A5EDCB, 0x000A5A50, "0 0 0 0 0 0 0 0 1"),
        "tr": (0xA5A0, 0xFFFFA5A5EDCBA000, 0x0000DF78, "b 0 0 1 0 0 0 0 0"),
        "ldt": (0x0000, 0x0000000000000000, 0x00005A5A, "0 0 0 0 0 0 0 0 1"),
    },
    "c": {
        "cs": (0x1234, 0x00012340, 0x0000FFFF, "3 1 3 1 0 0 0 0 0"),
        "ss": (0x2345, 0x00023450, 0x0000FFFF, "3 1 3 1 0 0 0 0 0"),
        "ds": (0xA5A0, 0x000A5A00, 0x0000FFFF, "3 1 3 1 0 0 0 0 0"),
        "es": (0x5A5C, 0x0005A5C0, 0x0000FFFF, "3 1 3 1 0 0 0 0 0"),
        "fs": (0xA5AC, 0x000A5AC0, 0x0000FFFF, "3 1 3 1 0 0 0 0 0"),
        "gs": (0x5A50, 0x0005A500, 0x0000FFFF, "3 1 3 1 0 0 0 0 0"),
        "tr": (0x0038, 0x00047000, 0x00002067, "3 0 0 1 0 0 0 0 0"),
        "ldt": (0x0048, 0x00048000, 0x000000FF, "2 0 0 1 0 0 0 0 0"),
    },
}
_TABLES = {
    "a": {"gdt.base": 0x00005A5AA5A59000, "gdt.limit": 0x5A57, "idt.base": 0x0000123443215000, "idt.limit": 0xA5AF},
    "b": {"gdt.base": 0xFFFFA5A55A5A6FFF, "gdt.limit": 0xA5A8, "idt.base": 0xFFFFEDCBBCDEAFFF, "idt.limit": 0x5A50},
    "c": {"gdt.base": 0x00009000, "gdt.limit": 0x003F, "idt.base": 0x00005000, "idt.limit": 0x07FF},
}
#: Outside of 64-bit mode RIP and SSP have 32 bits.
_CR = {
    "a": {"cr2": 0x1122334455667788, "cr3": 0x5A5A5A018, "rip": 0x00005A5AA5A55A5A, "ssp": 0x00005A5AA5A55A58},
    "b": {"cr2": 0xEEDDCCBBAA998877, "cr3": 0xA5A5A5FE0, "rip": 0x00000000A5A5A5A5, "ssp": 0x000000005A5AA5A0},
    "c": {"cr2": 0x00000000A5A5A5A5, "cr3": 0x0005A018, "rip": 0x00001234, "ssp": 0x00000000A5A55A58},
}
#: Nothing can be planted in smi.smm and smi.smm_inside_nmi: INIT is blocked in SMM.
_EVENTS = {
    "a": ("nmi_masked", "nmi_injected", "exception_pending", "exception_has_payload", "interrupt_shadow"),
    "b": ("nmi_pending", "interrupt_injected", "interrupt_soft", "exception_injected", "triple_fault_pending"),
    "c": ("nmi_masked", "exception_injected", "interrupt_shadow"),
}
#: KVM_MP_STATE_HALTED (3) and KVM_MP_STATE_RUNNABLE (0).
_MP_STATE = {"a": 3, "b": 0, "c": 3}

#: The differences of SIPI from b: descriptor caches that real-mode code can fetch, read and write through, no single-stepping,
#: no #NM, KVM_MP_STATE_INIT_RECEIVED.
_FOR_SIPI = {
    **{
        f"{seg}.{part}": v
        for seg in ("cs", "ds", "es", "ss")
        for part, v in (("limit", 0xFFFF), ("type", 3), ("s", 1), ("present", 1), ("db", 0), ("unusable", 0))
    },
    "cs.selector": 0x1234,
    "cs.base": 0x00012340,
    "cr0": 0x40050032,
    "rflags": 0x00044CD7,
    "mp_state": 2,
}

_GPRS = ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rsp", "rbp", *(f"r{i}" for i in range(8, 16)))


def _pattern(number: int, size: int) -> int:
    """Distinct bytes for register ``number``, none zero, alternating high and low nibbles."""
    return int.from_bytes(bytes((0x5A, 0xA5)[i & 1] ^ (number * 5 + i * 3) & 0x1F for i in range(size)), "little")


def _both(first: int, size: int) -> tuple[int, int]:
    return first, first ^ ((1 << 8 * size) - 1)


@cache
def _pairs() -> dict[str, tuple[int, int]]:
    """Items that no mode binds: their two values."""
    pairs: dict[str, tuple[int, int]] = {}
    for i, name in enumerate(_GPRS):
        pairs[name] = _both(_pattern(i, 8), 8)
    for i in range(4):
        pairs[f"dr{i}"] = _both(_pattern(40 + i, 8), 8)
    # BT B2 B0, then BS BD B3 B1. RTM and BLD stay 1: where the CPU lacks the feature that is all they can be.
    pairs["dr6"] = (0xFFFF8FF5, 0xFFFF6FFA)
    pairs["dr7"] = (0x55550755, 0xAAAA04AA)  # LENn, R/Wn and Ln/Gn as 01 and 10, never GD or RTM
    # FSW.ES and B follow from the flags that FCW leaves unmasked: none in the first pair, DE and OE in the second.
    pairs["fcw"] = (0x025F, 0x0D60)
    pairs["fsw"] = (0x3855, 0xC7AA)
    pairs["ftw"] = (0x5A, 0xA5)
    pairs["fop"] = (0x5A5, 0x25A)
    pairs["fip"] = (0x00005A5AA5A55A5A, 0x0000A5A55A5AA5A5 & 0x7FFFFFFFFFFF)
    pairs["fdp"] = (0x00003C3CC3C33C3C, 0x00004343BCBC4343)
    pairs["mxcsr"] = (0x5A55, 0xA5AA)
    for i in range(8):
        pairs[f"st{i}"] = _both(_pattern(50 + i, 10), 10)
        pairs[f"k{i}"] = _both(_pattern(60 + i, 8), 8)
        pairs[f"tile{i}"] = _both(_pattern(70 + i, 1024), 1024)
    for i in range(16):
        pairs[f"xmm{i}"] = _both(_pattern(80 + i, 16), 16)
        pairs[f"ymm{i}_hi128"] = _both(_pattern(96 + i, 16), 16)
        pairs[f"zmm{i}_hi256"] = _both(_pattern(112 + i, 32), 32)
        pairs[f"zmm{16 + i}"] = _both(_pattern(128 + i, 64), 64)
        pairs[f"r{16 + i}"] = _both(_pattern(144 + i, 8), 8)
    for i in range(4):
        pairs[f"bnd{i}"] = _both(_pattern(160 + i, 16), 16)
    pairs["bndcfgu"] = (0x00005A5AA5A55003, 0x000025A55A5AA001)
    pairs["bndstatus"] = (0x00005A5AA5A55001, 0x000025A55A5AA002)
    pairs["pkru"] = (0x55555554, 0xAAAAAAA8)
    # Palette 1, one row of 64 bytes in tile 0; palette 1, tile 7 (SDM vol. 1, Programming with Intel AMX).
    pairs["tilecfg"] = (1 | 64 << 128 | 16 << 384, 1 | 32 << 240 | 8 << 440)
    for reg in lapic.LAPIC:
        if reg.plants:
            pairs[f"lapic.{reg.name}"] = reg.plants
    for known in msr.MSRS:
        if known.plants:
            pairs[f"msr.{known.name}"] = known.plants
    return pairs


def _events(plant: str) -> dict[str, int]:
    """The fields of struct kvm_vcpu_events that some plant sets: 1 in this one, or 0."""
    return {f"events.{name}": int(name in _EVENTS[plant]) for names in _EVENTS.values() for name in names}


def values(plant: str) -> dict[str, int]:
    """Return the values of ``plant`` (one of PLANTS, SIPI or NEW), item by item, before the host's limits are known.

    CR4 and EFER are left to the planter, which tries their bits; XCR0 too, whose legal values the host gives.
    """
    if plant == NEW:
        return {"mp_state": 0}
    if plant == SIPI:
        return values("b") | dict.fromkeys(_events("b"), 0) | _FOR_SIPI
    second = plant == "b"
    asked = {item: pair[second] & _M64 if item.startswith("msr.") else pair[second] for item, pair in _pairs().items()}
    for seg, (selector, base, limit, attributes) in _SEGMENTS[plant].items():
        asked |= {f"{seg}.selector": selector, f"{seg}.base": base, f"{seg}.limit": limit}
        asked |= {f"{seg}.{name}": bit for name, bit in _attributes(attributes).items()}
    asked |= _TABLES[plant]
    asked |= _CR[plant]
    asked |= _events(plant)
    asked |= {"cr0": _CR0[plant], "rflags": _RFLAGS[plant], "mp_state": _MP_STATE[plant]}
    if "lapic.tpr" in asked:
        asked["cr8"] = asked["lapic.tpr"] >> 4
    return asked
