# SPDX-License-Identifier: GPL-2.0-only
"""The observer's plants, as tables that the image holds: registers, MSRs, the local APIC, descriptors, x87 and SSE."""

from __future__ import annotations

import re

from kvmtest.guests import observer, planter
from kvmtest.state import values as planted
from kvmtest.x86 import lapic, msr, xsave

__all__ = ("fill",)

#: MSRs that any CPU can hold another value in without the observer losing its memory, its clock or its local APIC. PAT's fourth
#: entry stays UC, by which the local APIC is mapped; no variable range of the MTRRs is made valid.
_MSRS = re.compile(
    r"star|lstar|cstar|sfmask|kernel_gs_base|sysenter_\w+|tsc_aux|pat|mtrr_fix\w+|mtrr_physbase\d|mtrr_def_type|tsc|mcg_status"
    r"|fs_base|gs_base|misc_features_enables|mc[0-3]_ctl|pmc\d|perfevtsel\d|k7_\w+|fixed_ctr\d|umwait_control|u_cet|pl\d_ssp|int_ssp_tab|vm_hsave_pa|spec_ctrl"
)
_OWN = {"pat": 0x0106010600060106, "mtrr_def_type": 0xC06, "fs_base": 0x5A5A3000, "gs_base": 0x25A55A5A1234}
_LAPIC = (
    "svr",
    "tpr",
    "ldr",
    "dfr",
    *(f"lvt_{n}" for n in ("timer", "thermal", "pmc", "lint0", "lint1", "error")),
    "timer_divide",
)
#: CR0: PG AM WP NE ET MP PE; EFER: SCE LME LMA NXE; RFLAGS: ID AC NT IOPL=3 OF DF and the arithmetic flags, without IF.
_CR0, _EFER, _RFLAGS, _CR3_LOW = 0x80050033, 0xD01, 0x00247CD7, 0x18
_NO_BREAKPOINT = ~0xFF
_SELECTORS = {"ds": 0x33, "es": 0x3B, "fs": 0x43, "gs": 0x4B, "ss": 0x10, "cs": 0x18, "tr": 0x58, "ldt": 0x68}
_GDT_LIMIT, _TSS_LIMIT = 0x77, 0x67


def _descriptor(base: int, limit: int, access: int, flags: int) -> bytes:
    low = base << 16 & 0xFFFFFF0000 | limit & 0xFFFF
    return (low | access << 40 | (limit >> 16 & 0xF) << 48 | flags << 52 | (base >> 24 & 0xFF) << 56).to_bytes(8, "little")


def _quad(value: int) -> bytes:
    return (value & (1 << 64) - 1).to_bytes(8, "little")


def fill(image: bytearray) -> None:
    """Write the tables into an ``image`` of the observer."""
    code = observer.CODE
    values = planted.values("a")
    _block(image, values, code)
    gdt = {
        0x08: _descriptor(0, 0xFFFFF, 0x9B, 0xC),
        0x10: _descriptor(0, 0xFFFFF, 0x93, 0xC),
        0x18: _descriptor(0, 0xFFFFF, 0x9B, 0xA),
        0x58: _descriptor(code + observer.PLANT_TSS, _TSS_LIMIT, 0x89, 0),
        0x68: _descriptor(code + observer.PLANT_TSS, 0xFF, 0x82, 0),
    }
    for i, segment in enumerate(("ds", "es", "fs", "gs")):
        gdt[_SELECTORS[segment] & ~7] = _descriptor(0x5A5A1000 + 0x1000 * i, 0xA5A5A, 0xF3, 0xD)
    for selector, descriptor in gdt.items():
        at = observer.PLANT_GDT + selector
        image[at : at + 8] = descriptor
    gate = code + observer.plant_fault
    entry = gate & 0xFFFF | 0x18 << 16 | 0x8E00 << 32 | (gate >> 16) << 48
    image[observer.PLANT_IDT : observer.PLANT_IDT + 16 * 32] = (_quad(entry) + _quad(0)) * 32
    entries = [(index, _OWN.get(name, values.get(f"msr.{name}"))) for name, index in _named() if _MSRS.fullmatch(name)]
    rows = b"".join(_quad(index) + _quad(value) for index, value in entries if value is not None) + b"\xff" * 4
    image[observer.PLANT_MSRS : observer.PLANT_MSRS + len(rows)] = rows
    registers = [(lapic.offset_of(name), _apic(name)) for name in _LAPIC]
    rows = b"".join((0xFEE00000 + at).to_bytes(4, "little") + value.to_bytes(4, "little") for at, value in registers)
    image[observer.PLANT_APIC : observer.PLANT_APIC + len(rows)] = rows
    image[observer.PLANT_XSAVE : observer.PLANT_XSAVE + 832] = _xsave(values)


def _named() -> list[tuple[str, int]]:
    return [(one.name, one.index) for one in msr.MSRS]


def _apic(name: str) -> int:
    plants = next(reg.plants for reg in lapic.LAPIC if reg.name == name)
    assert plants
    # The masked timer, not the running one.
    return plants[1] if name.startswith("lvt_") else plants[0]


def _block(image: bytearray, values: dict[str, int], code: int) -> None:
    places = planter.words()
    words = {item: values[item] for item in ("dr0", "dr1", "dr2", "dr3", "dr6")}
    words |= {
        "dr7": values["dr7"] & _NO_BREAKPOINT,
        "cr0": _CR0,
        "cr2": values["cr2"],
        "cr3": observer.PAGE_TABLES | _CR3_LOW,
    }
    words |= {"cr8": 9, "efer": _EFER, "rflags": _RFLAGS, "xsave": code + observer.PLANT_XSAVE}
    words |= {"msrs": code + observer.PLANT_MSRS, "apic": code + observer.PLANT_APIC}
    words |= {f"{segment}.selector": selector for segment, selector in _SELECTORS.items()}
    for item, value in words.items():
        at = observer.BLOCK + places[item]
        image[at : at + 8] = _quad(value)
    tables = {"gdt": (_GDT_LIMIT, code + observer.PLANT_GDT), "idt": (0x5A5F, 0x123443215000)}
    for table, (limit, base) in tables.items():
        at = observer.BLOCK + places[table]
        image[at : at + 10] = limit.to_bytes(2, "little") + _quad(base)
    for i, name in enumerate(planter.GPRS):
        at = observer.BLOCK + places["gpr"] + 8 * i
        image[at : at + 8] = _quad(values[name])


def _xsave(values: dict[str, int]) -> bytes:
    """The legacy area, a header, and AVX's component."""
    area = bytearray(832)
    fields = [*(r for component in xsave.LEGACY for r in component.registers), xsave.MXCSR]
    avx = next(component for component in xsave.COMPONENTS if component.bit == 2)
    fields += [r._replace(offset=576 + r.offset) for r in avx.registers]
    for r in fields:
        if r.name in values:
            area[r.offset : r.offset + r.size] = (values[r.name] & (1 << 8 * r.size) - 1).to_bytes(r.size, "little")
    area[xsave.XSTATE_BV_OFFSET] = 0b111
    return bytes(area)
