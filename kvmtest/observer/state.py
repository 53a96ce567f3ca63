# SPDX-License-Identifier: GPL-2.0-only
"""Items of what an observer printed, as the guest's view of a vCPU has them."""

from __future__ import annotations

from typing import NamedTuple

from kvmtest import spec
from kvmtest.guests import spine
from kvmtest.observer.log import Look
from kvmtest.state.guest_view import ITEMS, LIMITS
from kvmtest.state.layout import Layout
from kvmtest.x86 import cpuid, lapic, msr, xsave

__all__ = ("NO_MSR", "State", "state")

#: No CPU has it: left to software (SDM vol. 4, MSRs in the range 40000000H to 4FFFFFFFH), which uses the beginning of the range.
NO_MSR = 0x4FFFFFFE

_ALIASES = {0xC0000080: "efer", 0x1B: "apic_base"}
_LAPIC = {reg.offset: f"lapic.{reg.name}" for reg in lapic.LAPIC}
_BASES = frozenset(f"{seg}.base" for seg in ("ds", "es", "ss", "fs", "gs"))
_LOW, _DONE, _GP, _SS = (1 << 32) - 1, 1, 13, 12
#: Registers that FXSAVE stores outside 64-bit mode.
_FXSAVE_16 = 160 + 8 * 16
_GS = "the observer loads GS before it has any memory to keep what GS.base was"
_STASH = "this machine has no DMA page registers, in which the observer keeps it while it has no memory"
_ROM = "neither of the breakpoints at the two places where the ROM is seen was hit"
_NO_XSAVE = "the image was made to do without XSAVE, or the CPU has none"


class State(NamedTuple):
    """``values`` by item, and ``missing`` with the reason why an item was not reported. ``narrow`` is as a guest's report has it.

    ``blind`` is whether an MSR that is not there reads as if it were.
    """

    values: dict[str, int]
    missing: dict[str, str]
    narrow: frozenset[str]
    leaves: list[cpuid.CpuidEntry]
    blind: bool

    @property
    def vendor(self) -> str:
        """ "intel", "amd" or "" for another."""
        for leaf in self.leaves:
            if leaf.function == 0:
                name = b"".join(register.to_bytes(4, "little") for register in (leaf.ebx, leaf.edx, leaf.ecx))
                return next((vendor for vendor, known in cpuid.VENDORS.items() if known == name), "")
        return ""


def _item(name: str) -> str:
    return name.lower().replace("_", ".")


def _failed(step: str, status: int) -> str:
    """Return why a step did not end; "" if it did."""
    if status == _DONE:
        return ""
    if step.endswith("_LIMIT") and status & _DONE and status >> 8 in (_SS, _GP):
        return ""
    return f"exception {status >> 8} in the observer" if status else f"the observer did not come to step {step}"


def state(look: Look) -> State:
    """The items of ``look``."""
    leaves = look.leaves
    values: dict[str, int] = {}
    missing: dict[str, str] = {}
    for item in spine.PORT_ITEMS:
        name = item.upper().replace(".", "_")
        if name in look.named:
            values[item] = _value(item, look.named[name])
        else:
            missing[item] = _ROM if item == "cs.base" else _STASH
    planted = look.kind in ("plant", "kept")
    for step, names in spine.STEP_ITEMS.items():
        why = _failed(step, look.steps[step])
        for item in names:
            if why:
                missing[item] = why
            else:
                values[item] = _value(item, look.named[item.upper().replace(".", "_")])
    if planted:
        # The selectors are those of descriptors: what bases and limits they have is not read back.
        for item in ("cs.base", "ss.base", "rip"):
            values.pop(item, None)
    values.pop("msw", None)
    missing.pop("msw", None)
    _listed(look, values, missing)
    limitless = look.steps["LIMITLESS"]
    if not planted and limitless >> 8 != _GP:
        for item in LIMITS & values.keys():
            del values[item]
            missing[item] = "limits are not enforced here: a read beyond one raised no exception"
    values.pop("gs.base", None)
    missing["gs.base"] = _GS
    _vectors(look, leaves, values, missing)
    for item in [item for item in values if item.startswith("cpuid.")]:
        function = int(item.split(".")[1].removesuffix("1") if item == "cpuid.d1.ebx" else item.split(".")[1], 16)
        if all(leaf.function != function for leaf in leaves):
            del values[item]
            missing[item] = "the CPU has no such leaf"
    narrow = frozenset() if look.steps["WIDE"] == _DONE else frozenset(spine.WIDE)
    blind = values.pop(f"msr.{NO_MSR:#x}", None) is not None
    missing.pop(f"msr.{NO_MSR:#x}", None)
    return State(values, {item: why for item, why in missing.items() if item not in values}, narrow, leaves, blind)


def _value(item: str, value: int) -> int:
    return value - spine.PROBE & _LOW if item in _BASES else value


def _listed(look: Look, values: dict[str, int], missing: dict[str, str]) -> None:
    for kind in ("msr", "lapic"):
        for index, value, *status in look.lists[kind]:
            items = [f"msr.{msr.name_of(index)}"] if kind == "msr" else [_LAPIC.get(index, "")]
            if kind == "msr" and index in _ALIASES:
                items.append(_ALIASES[index])
            for item in filter(None, items):
                if status:
                    what = "RDMSR: " if kind == "msr" else ""
                    missing[item] = (
                        f"{what}exception {status[0] >> 8} in the observer" if status[0] else f"{what}it was not reached"
                    )
                else:
                    values[item] = value
    for item in ITEMS:
        if item.startswith("lapic.") and item not in values:
            missing.setdefault(item, "the local APIC was not in xAPIC mode, or is not there")
        if item.startswith("msr.") and item not in values and item not in spec.SYNTHETIC:
            missing.setdefault(item, "the observer does not read it")


def _area(rows: list[tuple[int, ...]], size: int) -> bytes:
    out = bytearray(size)
    for offset, high, low in rows:
        if offset + 16 <= size:
            out[offset : offset + 16] = low.to_bytes(8, "little") + high.to_bytes(8, "little")
    return bytes(out)


def _vectors(look: Look, leaves: list[cpuid.CpuidEntry], values: dict[str, int], missing: dict[str, str]) -> None:
    """Add what XSAVE, or else FXSAVE, has stored."""
    placed = tuple((leaf.function, leaf.index) for leaf in leaves)
    layout = Layout((), cpuid.xsave_components(leaves), {}, placed)
    area = _area(look.lists["xsave"], spine.XSAVE_ROOM)
    legacy = _area(look.lists["fxsave"], 512) + b"\3".ljust(64, b"\0")
    wanted, used = look.lists["xcr0"][0]
    xsaved, fxsaved = (look.steps[step] == _DONE for step in ("XSAVE", "FXSAVE"))
    for item in layout.by_section.get("xsave", ()):
        field = layout.fields[item]
        component = xsave.SSE if field.component is None else field.component
        value = None
        if xsaved and used >> component & 1 and field.offset + field.size <= len(area):
            value = field.get(area)
        elif fxsaved and field.offset + field.size <= _FXSAVE_16 and item not in ("fip", "fdp"):
            value = field.get(legacy)
        if value is not None:
            values[item] = value
        elif item not in values:
            missing[item] = _NO_XSAVE if not xsaved else "the CPU does not have the component"
    for item, why in layout.missing.items():
        if item in ITEMS and item not in values and not item.startswith(("msr.", "lapic.")):
            missing.setdefault(item, why.replace("this host", "this CPU"))
