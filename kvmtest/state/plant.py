# SPDX-License-Identifier: GPL-2.0-only
"""Planting: write legal, non-reset values into every item of a vCPU, and know what KVM refused."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Iterator

from kvmtest.kvm import KvmError, Vcpu
from kvmtest.kvm.ioctl import ioctl
from kvmtest.state.layout import Layout
from kvmtest.state.sections import Snapshot
from kvmtest.state.snapshot import Buffer, msr_buffers, one_reg, refusal, refused_twice
from kvmtest.state.values import APIC_MODES, CR4_CANDIDATES, EFER_CANDIDATES, NEW, SIPI, values
from kvmtest.uapi.kvm import (
    KVM_SET_DEBUGREGS,
    KVM_SET_LAPIC,
    KVM_SET_MP_STATE,
    KVM_SET_MSRS,
    KVM_SET_ONE_REG,
    KVM_SET_REGS,
    KVM_SET_SREGS,
    KVM_SET_VCPU_EVENTS,
    KVM_SET_XCRS,
    KVM_SET_XSAVE,
    KVM_VCPUEVENT_VALID_NMI_PENDING,
    KVM_VCPUEVENT_VALID_PAYLOAD,
    KVM_VCPUEVENT_VALID_SHADOW,
    KVM_VCPUEVENT_VALID_SMM,
    KVM_VCPUEVENT_VALID_TRIPLE_FAULT,
    kvm_vcpu_events,
)
from kvmtest.x86 import cpuid, lapic, msr, xsave

__all__ = ("WHY", "XCR0", "Plant", "PlantRefused", "Planter")

_BSP = 0x100
#: Sections in the order of writing: IA32_APIC_BASE (sregs) decides how the LAPIC page is read, the LVT timer's mode what
#: the MSRs accept; the activity state comes last, as KVM_SET_VCPU_EVENTS can change it.
_SET = (
    ("sregs", KVM_SET_SREGS),
    ("lapic", KVM_SET_LAPIC),
    ("xcrs", KVM_SET_XCRS),
    ("xsave", KVM_SET_XSAVE),
    ("regs", KVM_SET_REGS),
    ("debugregs", KVM_SET_DEBUGREGS),
    ("msrs", KVM_SET_MSRS),
    ("ssp", KVM_SET_ONE_REG),
    ("events", KVM_SET_VCPU_EVENTS),
    ("mp_state", KVM_SET_MP_STATE),
)
#: Sections that every plant needs.
_NEEDED = ("sregs", "regs", "events", "debugregs", "mp_state")
_ID = lapic.offset_of("id")
#: MXCSR_MASK where a CPU reports 0 (SDM vol. 1, Guidelines for Writing to the MXCSR Register).
_MXCSR_MASK = 0xFFBF
#: XCR0 where a plant has not all that KVM supports: x87 state, which is always on, and SSE.
XCR0 = {"b": 3, "c": 1, SIPI: 3, NEW: 1}
#: The reasons why the tables have no value for an item.
WHY = {f"msr.{known.name}": known.why for known in msr.MSRS} | {f"lapic.{reg.name}": reg.why for reg in lapic.LAPIC}


class PlantRefused(RuntimeError):
    """This KVM does not read, or does not accept, what every plant needs."""


class Plant:
    """One plant for one vCPU, ready to be written: buffers in order, the values that they write, and those that KVM refused."""

    def __init__(self, buffers: list[Buffer], asked: dict[str, int], refused: dict[str, str], id_shift: int = 24) -> None:
        self.buffers = buffers
        self.asked = asked
        self.refused = refused
        self._id_shift = id_shift
        self._writes: dict[int, tuple[tuple[str, int, bytes], ...]] = {}

    def reason(self, item: str) -> str:
        """Return the reason for having no value for ``item``."""
        why = WHY.get(item, "")
        return f"cannot be planted: {why}" if why else "this plant has no value for it"

    def writes(self, id: int) -> tuple[tuple[str, int, bytes], ...]:
        """Section, request and contents of each ioctl that writes it to the vCPU of ``id``, in order.

        Those of the section ``ssp`` are struct kvm_one_reg and, after it, the register's value.
        """
        if id not in self._writes:
            self._writes[id] = tuple(self._made(id))
        return self._writes[id]

    def _made(self, id: int) -> Iterator[tuple[str, int, bytes]]:
        for buf in self.buffers:
            contents = bytearray(buf.data.raw)
            if buf.section == "lapic":
                contents[_ID : _ID + 4] = (id << self._id_shift & 0xFFFFFFFF).to_bytes(4, "little")
            elif buf.section == "ssp":
                contents[8:16] = bytes(8)
            yield buf.section, buf.request, bytes(contents)

    def before(self) -> tuple[tuple[int, int, int, bytes], ...]:
        """Memory that it needs: slot, guest-physical address, size, contents."""
        return ()

    def entry(self) -> tuple[bytes, bytes, int] | None:
        """struct kvm_sregs and kvm_regs with which guest code begins, and the port of its end; None where ioctls write it all."""
        return None

    def write(self, vcpu: Vcpu) -> None:
        """Write all sections to ``vcpu``: the one that the plant was made for, or another AP that differs in its id alone.

        Raises KvmError: sections that KVM refuses as a whole were left out when the plant was made.
        """
        fd = vcpu.fd
        for buf in self.buffers:
            if buf.section == "lapic":
                ctypes.c_uint32.from_address(buf.address + _ID).value = vcpu.id << self._id_shift
            ioctl(fd, buf.request, buf.address)


class Planter:
    """Makes the plants of one vCPU.

    ``baseline`` is the vCPU's state right after its creation: what no plant names keeps that. ``xcr0`` is the mask of
    components that the host supports (KVM_GET_SUPPORTED_CPUID leaf 0DH). ``x2apic_ids`` is whether the VM has
    KVM_X2APIC_API_USE_32BIT_IDS, which decides how KVM_SET_LAPIC reads the ID (KVM API, KVM_GET_LAPIC).
    """

    def __init__(self, vcpu: Vcpu, layout: Layout, baseline: Snapshot, xcr0: int, *, x2apic_ids: bool = False) -> None:
        self.vcpu = vcpu
        self.x2apic_ids = x2apic_ids
        self.layout = layout
        self.baseline = baseline
        self.xcr0 = xcr0
        self._msr_errors: dict[tuple[int, int], str] = {}

    def make(self, plant: str, apic_mode: str) -> Plant:
        """The plant named ``plant`` with the local APIC in ``apic_mode``; KVM's refusals are found by trying.

        Raises PlantRefused where this KVM does not show what a plant is made from, or refuses the mode; KvmError.
        """
        for section in _NEEDED:
            if section in self.layout.missing_sections:
                raise PlantRefused(f"nothing can be planted: {self.layout.missing_sections[section]}")
        asked = values(plant)
        if plant == NEW:
            asked |= self._found("msr.", values("a"))
        refused: dict[str, str] = {}
        base = self.baseline.get(self.layout, "apic_base") or 0
        asked["apic_base"] = APIC_MODES[apic_mode] | base & _BSP
        asked["xcr0"] = XCR0.get(plant, self.xcr0)
        self._keep_reserved(asked, apic_mode)
        self._keep_enabled(asked)
        # Needed by 64-bit mode with paging: CR4.PAE, EFER.LME and LMA.
        asked["cr4"], asked["efer"] = (1 << 5, 0x500) if plant == "a" else (0, 0)
        for item, candidates in (("efer", EFER_CANDIDATES), ("cr4", CR4_CANDIDATES)):
            asked[item] = self._bits(asked, item, candidates[plant])
        id_shift = 0 if self.x2apic_ids and apic_mode == "x2apic" else 24
        buffers = self._accepted(asked, refused, id_shift)
        if (why := refused.get("apic_base")) and asked["apic_base"] != base:
            raise PlantRefused(f"the local APIC cannot be in {apic_mode} mode: {why}")
        return Plant(buffers, {k: v for k, v in asked.items() if k in self.layout.fields}, refused, id_shift)

    def _found(self, prefix: str, items: Iterable[str]) -> dict[str, int]:
        """Return the values at creation of those of ``items`` that begin with ``prefix``."""
        found = {item: self.baseline.get(self.layout, item) for item in items if item.startswith(prefix)}
        return {item: value for item, value in found.items() if value is not None and item != "msr.tsc"}

    def _accepted(self, asked: dict[str, int], refused: dict[str, str], id_shift: int) -> list[Buffer]:
        """The buffers that KVM accepts, in the order of writing; the reasons of refusals go into ``refused``."""
        buffers = []
        for section, request in _SET:
            if section not in self.layout.by_section:
                continue
            if section == "msrs":
                buffers += self._msrs(asked, refused)
                continue
            if section == "ssp":
                buf = one_reg(request, asked.get("ssp", 0).to_bytes(8, "little"))
            else:
                buf = Buffer(section, request, self._events(asked) if section == "events" else self._packed(section, asked))
            if section == "lapic":
                ctypes.c_uint32.from_address(buf.address + _ID).value = self.vcpu.id << id_shift
            try:
                ioctl(self.vcpu.fd, buf.request, buf.address)
            except KvmError as error:
                why = refusal(error)
                follow = [item for item, followed in cpuid.FOLLOWS.items() if followed == section]
                if section == "sregs":
                    follow += msr.IN_SREGS
                for item in (*self.layout.by_section[section], *follow):
                    refused.setdefault(item, why)
                continue
            buffers.append(buf)
        return buffers

    def _packed(self, section: str, asked: dict[str, int]) -> bytes:
        """The section's baseline with the plant's values."""
        out = bytearray(self.baseline.sections[section])
        for item in self.layout.by_section[section]:
            if item in asked:
                self.layout.fields[item].put(out, asked[item])
        if section == "xsave":
            out[xsave.XSTATE_BV_OFFSET : xsave.XSTATE_BV_OFFSET + 8] = self.xcr0.to_bytes(8, "little")
        return bytes(out)

    def _keep_reserved(self, asked: dict[str, int], apic_mode: str) -> None:
        """Take out what this CPU or mode reserves: MXCSR bits outside MXCSR_MASK, LAPIC registers that x2APIC mode lacks."""
        start = xsave.MXCSR_MASK_OFFSET
        mask = int.from_bytes(self.baseline.sections.get("xsave", b"")[start : start + 4], "little") or _MXCSR_MASK
        if "mxcsr" in asked:
            asked["mxcsr"] &= mask
        if apic_mode == "x2apic":
            # The ID is read-only there and LDR follows it; DFR does not exist.
            for item in ("lapic.id", "lapic.ldr", "lapic.dfr"):
                asked.pop(item, None)
        if apic_mode == "xapic-flat":
            # RESET leaves the flat model.
            asked.pop("lapic.dfr", None)

    def _keep_enabled(self, asked: dict[str, int]) -> None:
        """Remove events whose fields KVM accepts only with a capability enabled."""
        flags = kvm_vcpu_events.from_buffer_copy(self.baseline.sections["events"]).flags
        if not flags & KVM_VCPUEVENT_VALID_TRIPLE_FAULT:
            asked.pop("events.triple_fault_pending", None)
        if not flags & KVM_VCPUEVENT_VALID_PAYLOAD:
            for item in ("events.exception_pending", "events.exception_has_payload"):
                asked.pop(item, None)

    def _bits(self, asked: dict[str, int], item: str, bits: tuple[int, ...]) -> int:
        """The bits of ``item`` that KVM_SET_SREGS accepts in addition to those in ``asked``; tried one by one."""
        good = asked[item]
        packed, field = bytearray(self._packed("sregs", asked)), self.layout.fields[item]
        for bit in bits:
            field.put(packed, good | 1 << bit)
            # The value is not asked for then, and why is said nowhere.
            if not refused_twice(self.vcpu, Buffer("sregs", KVM_SET_SREGS, bytes(packed))):
                good |= 1 << bit
        return good

    def _msrs(self, asked: dict[str, int], refused: dict[str, str]) -> list[Buffer]:
        """The MSRs that KVM lets the host write."""
        named = [
            (item, (index, asked[item]))
            for item, index in zip(self.layout.by_section["msrs"], self.layout.msrs, strict=True)
            if item in asked
        ]
        self._try_msrs([entry for _, entry in named if entry not in self._msr_errors])
        refused.update((item, self._msr_errors[entry]) for item, entry in named if self._msr_errors[entry])
        return msr_buffers(KVM_SET_MSRS, [entry for _, entry in named if not self._msr_errors[entry]])

    def _try_msrs(self, entries: list[tuple[int, int]]) -> None:
        """Write each once, in order: KVM_SET_MSRS stops at one that KVM refuses, and continues after it when called again."""
        while entries:
            buf = msr_buffers(KVM_SET_MSRS, entries)[0]
            most = (buf.size - 8) // 16
            try:
                taken = ioctl(self.vcpu.fd, buf.request, buf.address)
                error = ""
            except KvmError as failed:
                taken, error = 0, refusal(failed)
            self._msr_errors.update(dict.fromkeys(entries[:taken], ""))
            if taken < most:
                index, data = entries[taken]
                self._msr_errors[index, data] = error or f"KVM_SET_MSRS refused {data:#x} for MSR {index:#x}"
                taken += 1
            entries = entries[taken:]

    def _events(self, asked: dict[str, int]) -> bytes:
        events = kvm_vcpu_events.from_buffer_copy(self._packed("events", asked))
        # Vectors that go with what is injected: a device interrupt, #GP(0).
        events.interrupt.nr = 0x51
        events.exception.nr = 13
        events.exception.has_error_code = 1
        flags = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW | KVM_VCPUEVENT_VALID_SMM
        # The baseline has these where the capability is enabled.
        flags |= events.flags & (KVM_VCPUEVENT_VALID_PAYLOAD | KVM_VCPUEVENT_VALID_TRIPLE_FAULT)
        if events.exception.pending:
            # A single-step trap, whose payload goes to DR6.BS.
            events.exception.nr, events.exception.has_error_code, events.exception_payload = 1, 0, 1 << 14
        events.flags = flags
        return bytes(events)
