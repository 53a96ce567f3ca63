# SPDX-License-Identifier: GPL-2.0-only
"""Planting from inside: guest code writes the state by instructions, so that what KVM and the CPU cache of it is dirty too.

Three plants, by the mode that the code leaves the vCPU in: ``guest-long`` (64-bit mode, 4-level paging, PCID where there is
one), ``guest-protected`` (32-bit protected mode, PAE paging), ``guest-v86`` (virtual-8086 mode). The code then waits at
KVM_EXIT_IO, so that the host decides what it does next.
"""

from __future__ import annotations

from array import array

from kvmtest import guests
from kvmtest.guests import planter
from kvmtest.kvm import Exit, GuestMemory, RunTimeout, Vcpu
from kvmtest.state.layout import SEGMENTS, Layout
from kvmtest.state.plant import Plant, PlantRefused
from kvmtest.uapi.kvm import (
    KVM_EXIT_INTERNAL_ERROR,
    KVM_EXIT_IO,
    KVM_INTERNAL_ERROR_EMULATION,
    KVM_MP_STATE_RUNNABLE,
    kvm_regs,
    kvm_segment,
    kvm_sregs,
)
from kvmtest.x86 import lapic, msr

__all__ = ("GUEST_PLANTS", "GuestPlant", "GuestStopped", "PlantRefused")

GUEST_PLANTS = ("guest-long", "guest-protected", "guest-v86")

_SLOT = 6
# Offsets in the guest's memory, after its code and its block.
_GDT, _LDT, _IDT32, _IDT64 = 0x2000, 0x2400, 0x2800, 0x3000
_PML4, _PDPT, _PD, _PDPT_PAE, _PT = 0x4000, 0x5000, 0x6000, 0xA000, 0xB000
_XSAVE, _MSRS, _APIC, _TSS = 0xC000, 0x10000, 0x18000, 0x1A000
#: A TSS with an I/O bitmap that allows every port: what a virtual-8086 task needs for its OUT.
_TSS_LIMIT, _TSS_BITMAP = 0x2087, 0x68
#: Descriptors that the code begins with: 64-bit code, flat data, 32-bit code.
_CODE64, _DATA, _CODE32 = 0x08, 0x10, 0x18
_GDT_LIMIT = 0xA7
_P, _RW, _US, _A, _D, _PS = 1, 2, 4, 1 << 5, 1 << 6, 1 << 7
_PAE, _OSFXSR, _OSXSAVE, _PCIDE, _SMEP, _SMAP = (1 << bit for bit in (5, 9, 18, 17, 20, 21))
#: CET, PKS, UINTR, LAM_SUP, FRED: with them the planting code itself would have other rules to obey.
_NOT_INSIDE = 1 << 23 | 1 << 24 | 1 << 25 | 1 << 28 | 1 << 32
_LMA_LME = 0x500
_CR0 = {"guest-long": 0x80050033, "guest-protected": 0xC0050033, "guest-v86": 0x80050033}
#: CR3 bits 3 and 4: PWT and PCD, or a PCID.
_CR3_LOW = 0x18
#: ID AC NT IOPL=3 OF DF IF and the arithmetic flags; in virtual-8086 mode without AC, NT and IOPL.
_RFLAGS = {"guest-long": 0x00247ED7, "guest-protected": 0x00247ED7, "guest-v86": 0x00220ED7}
_XSAVE_ROOM = _MSRS - _XSAVE
#: Local APIC registers that a guest writes; SVR first, since a software-disabled local APIC masks its LVT.
_WRITABLE = ("svr", "tpr", "ldr", "dfr", *(f"lvt_{n}" for n in ("timer", "thermal", "pmc", "lint0", "lint1", "error")))
_WRITABLE_TIMER = ("timer_divide", "timer_initial")
#: MSRs that are written in another way, or that would move the local APIC under the code.
_LEFT_OUT = ("efer", "apic_base", "tsc_deadline", "smbase")
#: Items with the value of the ioctls' plant.
_AS_BASE = (*planter.GPRS, "cr2", "xcr0", "apic_base", "dr0", "dr1", "dr2", "dr3", "dr6")
_MAX_SKIPPED = 512
#: Seconds: a kernel that logs every MSR it does not know to a slow serial console takes its time.
_TIMEOUT_S = 5.0


class GuestStopped(RuntimeError):
    """The planting code did not finish; the message says where it stopped and why."""


def _descriptor(base: int, limit: int, access: int, flags: int) -> int:
    """A segment descriptor: ``limit`` as in the descriptor, ``access`` is bits 47:40, ``flags`` bits 55:52."""
    low = base << 16 & 0xFFFFFF0000 | limit & 0xFFFF
    return low | access << 40 | (limit >> 16 & 0xF) << 48 | flags << 52 | (base >> 24 & 0xFF) << 56


#: selector, base, limit, access, flags of the planted segments. In 64-bit mode only FS and GS have a base that matters.
_SEGMENTS = {
    "guest-long": {
        "cs": (0x28, 0, 0xFFFFF, 0x9B, 0xB),
        "ss": (0x30, 0x00120000, 0xA5A57, 0x93, 0xD),
        "ds": (0x3B, 0x5A5A1000, 0xA5A5A, 0xF3, 0xD),
        "es": (0x43, 0xA5A52000, 0x5A5A5, 0xF3, 0xD),
        "fs": (0x4B, 0x5A5A3000, 0xA5A5A, 0xF3, 0xD),
        "gs": (0x53, 0xA5A54000, 0x5A5A5, 0xF3, 0xD),
    },
    # CS, SS and DS are those that the code itself needs.
    "guest-protected": {
        "cs": (0x28, 0, 0xFFFFF, 0x9B, 0xD),
        "ss": (0x30, 0, 0xFFFFF, 0x93, 0xD),
        "ds": (0x3B, 0, 0xFFFFF, 0xF3, 0xD),
        "es": (0x43, 0xA5A52000, 0x5A5A5, 0xF3, 0xD),
        "fs": (0x4B, 0x5A5A3000, 0xA5A5A, 0xF3, 0xD),
        "gs": (0x53, 0xA5A54000, 0x0A5A5, 0xF3, 0x5),
    },
}
_V86 = {"cs": 0, "ss": 0x2345, "ds": 0xA5A0, "es": 0x5A5C, "fs": 0xA5AC, "gs": 0x5A50}
_TR, _LDTR = 0x58, 0x68


class GuestPlant(Plant):
    """A plant that guest code writes. ``base`` is the ioctls' plant ``a``, whose values it uses if it can, ``new`` the one
    that gives the vCPU the state of its creation to start from. Raises PlantRefused if KVM refuses that, or a part of it that
    ``base`` has written.
    """

    def __init__(self, name: str, layout: Layout, base: Plant, new: Plant, apic_mode: str) -> None:
        for section in ("sregs", "regs"):
            if not any(buf.section == section for buf in new.buffers):
                raise PlantRefused(f"the planting guest cannot begin: {new.refused[layout.by_section[section][0]]}")
        # Both were tried on a vCPU that a case may run on.
        if left := [item for item in new.refused if item in base.asked and item not in base.refused]:
            raise PlantRefused(f"the planting guest cannot begin: {left[0]}: {new.refused[left[0]]}")
        self.name = name
        self._new = new
        self._long = name == "guest-long"
        vectors = layout.by_section.get("xsave", ())
        # The code loads the image that KVM_SET_XSAVE has accepted.
        refused = {item: base.refused[item] for item in vectors if item in base.refused}
        asked = self._asked(base.asked, tuple(item for item in vectors if item not in refused), apic_mode)
        super().__init__(new.buffers, {k: v for k, v in asked.items() if k in layout.fields}, refused)
        xsave = next((bytes(buf.data.raw) for buf in base.buffers if buf.section == "xsave"), bytes(576))
        self._image = self._memory(asked, xsave if len(xsave) <= _XSAVE_ROOM else bytes(576), layout, apic_mode)

    def write(self, vcpu: Vcpu) -> None:
        """Let the code run on ``vcpu``, up to where it has written everything. Raises KvmError, GuestStopped."""
        memory = _memory(vcpu)
        memory.write(planter.BASE, self._image)
        self._new.write(vcpu)
        self._enter(vcpu)
        for _ in range(_MAX_SKIPPED):
            try:
                seen = vcpu.run(_TIMEOUT_S)
            except RunTimeout as error:
                raise GuestStopped(f"the planting guest: {error}") from error
            if seen.reason == KVM_EXIT_IO and seen.port == planter.PORT_READY:
                vcpu.complete_io()
                return
            self._skip(vcpu, seen)
        raise GuestStopped(f"the planting guest cannot be emulated: {seen}")

    def reason(self, item: str) -> str:
        """Return the reason for having no value for ``item``."""
        return "the planting guest has no instruction that writes it, or needs a value of its own"

    def _skip(self, vcpu: Vcpu, seen: Exit) -> None:
        """Continue after an instruction that KVM cannot emulate. Raises GuestStopped for everything else."""
        if seen.reason != KVM_EXIT_INTERNAL_ERROR or seen.suberror != KVM_INTERNAL_ERROR_EMULATION:
            raise GuestStopped(f"the planting guest stopped: {seen}")
        regs = vcpu.get_regs()
        if regs.rip == regs.rbp or not planter.BASE <= regs.rbp < planter.BLOCK:
            raise GuestStopped(f"the planting guest stopped at {regs.rip:#x}: {seen}")
        regs.rip = regs.rbp
        vcpu.set_regs(regs)

    def _asked(self, base: dict[str, int], vectors: tuple[str, ...], apic_mode: str) -> dict[str, int]:
        """Return the values that the code must write, as ioctls show them; ``vectors`` are the items of the XSAVE image."""
        asked = {item: base[item] for item in (*_AS_BASE, *vectors) if item in base}
        asked |= {k: v for k, v in base.items() if k.startswith("msr.") and k.removeprefix("msr.") not in _LEFT_OUT}
        # AMD CPUs have 32 bits of these, and KVM shows that many; an emulated one may keep 64.
        asked |= {item: asked[item] & 0xFFFFFFFF for item in ("msr.sysenter_esp", "msr.sysenter_eip") if item in asked}
        writable = _WRITABLE if apic_mode == "xapic" else tuple(n for n in _WRITABLE if n not in ("ldr", "dfr"))
        asked |= {f"lapic.{n}": base[f"lapic.{n}"] for n in (*writable, *_WRITABLE_TIMER) if f"lapic.{n}" in base}
        cr4, efer = base["cr4"] & ~_NOT_INSIDE | _PAE | _OSFXSR, base["efer"]
        if not self._long:
            cr4, efer = cr4 & ~_PCIDE, efer & ~_LMA_LME
        if self.name == "guest-v86":
            cr4 &= ~(_SMEP | _SMAP)
        asked |= {"cr0": _CR0[self.name], "cr4": cr4, "efer": efer, "rflags": _RFLAGS[self.name]}
        asked["cr3"] = planter.BASE + (_PML4 if self._long else _PDPT_PAE) | _CR3_LOW
        asked |= {"gdt.base": planter.BASE + _GDT, "gdt.limit": _GDT_LIMIT, "idt.base": base["idt.base"], "idt.limit": 0xA5AF}
        # No breakpoint is armed while the code runs on; QEMU's TCG crashes when VMRUN loads an armed one.
        asked["dr7"] = base["dr7"] & ~0xFF
        asked |= {"mp_state": KVM_MP_STATE_RUNNABLE, "tr.selector": _TR, "ldt.selector": _LDTR}
        if self._long:
            asked["cr8"] = 0x9
            asked["lapic.tpr"] = 0x90
        else:
            # 32-bit code has the low halves only.
            for item in (*planter.GPRS, "idt.base", "cr2", *(f"dr{i}" for i in range(4))):
                asked[item] = asked[item] & 0xFFFFFFFF
            for i in range(8, 16):
                del asked[f"r{i}"]
        return asked | self._selectors()

    def _selectors(self) -> dict[str, int]:
        if self.name == "guest-v86":
            return {f"{seg}.{part}": v for seg, sel in _V86.items() for part, v in (("selector", sel), ("base", sel << 4))}
        return {f"{seg}.selector": row[0] for seg, row in _SEGMENTS[self.name].items()}

    def _memory(self, asked: dict[str, int], xsave: bytes, layout: Layout, apic_mode: str) -> bytes:
        """The guest's memory: code, block, tables."""
        out = bytearray(planter.SIZE)
        code = guests.load("planter")[: guests.PAGE]
        out[: len(code)] = code
        self._put_tables(out)
        self._put_descriptors(out)
        self._put_block(out, asked)
        out[_XSAVE : _XSAVE + len(xsave)] = xsave
        msrs = [(index, asked.get(f"msr.{msr.name_of(index)}")) for index in layout.msrs]
        entries = [(index, value) for index, value in msrs if value is not None]
        registers = [(lapic.offset_of(n), asked[f"lapic.{n}"]) for n in (*_WRITABLE, *_WRITABLE_TIMER) if f"lapic.{n}" in asked]
        if apic_mode == "x2apic":
            entries += [(0x800 + (offset >> 4), value) for offset, value in registers]
            registers = []
        end = _MSRS + 16 * len(entries)
        out[_MSRS:end] = b"".join(i.to_bytes(8, "little") + v.to_bytes(8, "little") for i, v in entries)
        out[end : end + 4] = b"\xff" * 4
        where = 0xFEE00000
        apic = b"".join((where + offset).to_bytes(4, "little") + v.to_bytes(4, "little") for offset, v in registers)
        out[_APIC : _APIC + len(apic)] = apic
        return bytes(out)

    def _put_tables(self, out: bytearray) -> None:
        """4 GiB mapped to themselves by 2 MiB pages, except the first 2 MiB, where the guest's memory comes first."""

        def put(offset: int, value: int) -> None:
            out[offset : offset + 8] = value.to_bytes(8, "little")

        bits = _P | _RW | _A | (_US if self.name == "guest-v86" else 0)
        put(_PML4, planter.BASE + _PDPT | bits)
        for i in range(4):
            put(_PDPT + 8 * i, planter.BASE + _PD + 0x1000 * i | bits)
            put(_PDPT_PAE + 8 * i, planter.BASE + _PD + 0x1000 * i | _P)
        large, small = bits | _D | _PS, bits | _D
        _put_words(out, _PD, range(large, large + (1 << 32), 1 << 21))
        put(_PD, planter.BASE + _PT | bits)
        _put_words(out, _PT, range(small, small + (1 << 21), 1 << 12))
        ours = planter.BASE | small
        _put_words(out, _PT, range(ours, ours + planter.SIZE, 1 << 12))

    def _put_descriptors(self, out: bytearray) -> None:
        gdt = {_CODE64: _descriptor(0, 0xFFFFF, 0x9B, 0xA), _DATA: _descriptor(0, 0xFFFFF, 0x93, 0xC)}
        gdt[_CODE32] = _descriptor(0, 0xFFFFF, 0x9B, 0xC)
        for selector, base, limit, access, flags in _SEGMENTS.get(self.name, _SEGMENTS["guest-protected"]).values():
            gdt[selector & ~7] = _descriptor(base, limit, access, flags)
        # In 64-bit mode these two have 16 bytes; the upper half of both bases is 0.
        gdt[_TR] = _descriptor(planter.BASE + _TSS, _TSS_LIMIT, 0x89, 0)
        gdt[_LDTR] = _descriptor(planter.BASE + _LDT, 0xFF, 0x82, 0)
        for selector, descriptor in gdt.items():
            out[_GDT + selector : _GDT + selector + 8] = descriptor.to_bytes(8, "little")
        out[_TSS + 0x66 : _TSS + 0x68] = _TSS_BITMAP.to_bytes(2, "little")
        out[_TSS + _TSS_LIMIT] = 0xFF
        fault64, fault32 = (planter.BASE + at for at in (planter.fault64, planter.fault32))
        out[_IDT64 : _IDT64 + 16 * 256] = _gate(fault64, _CODE64) * 256
        out[_IDT32 : _IDT32 + 8 * 256] = _gate(fault32, _CODE32)[:8] * 256

    def _put_block(self, out: bytearray, asked: dict[str, int]) -> None:
        places = planter.words()
        words = {item: value for item, value in asked.items() if item in places}
        words |= {"xsave": planter.BASE + _XSAVE, "msrs": planter.BASE + _MSRS, "apic": planter.BASE + _APIC}
        words["tail"] = planter.BASE + (planter.v86_tail if self.name == "guest-v86" else planter.protected_tail)
        block = planter.BLOCK - planter.BASE
        for item, value in words.items():
            at = block + places[item]
            out[at : at + 8] = value.to_bytes(8, "little")
        for table in ("gdt", "idt"):
            at = block + places[table]
            limit = asked[f"{table}.limit"].to_bytes(2, "little")
            out[at : at + 10] = limit + asked[f"{table}.base"].to_bytes(8, "little")
        for i, name in enumerate(planter.GPRS):
            at = block + places["gpr"] + 8 * i
            out[at : at + 8] = asked.get(name, 0).to_bytes(8, "little")

    def before(self) -> tuple[tuple[int, int, int, bytes], ...]:
        """The guest's memory."""
        return ((_SLOT, planter.BASE, planter.SIZE, self._image),)

    def entry(self) -> tuple[bytes, bytes, int]:
        """struct kvm_sregs and kvm_regs with which the code begins, and the port of its end."""
        sregs = kvm_sregs.from_buffer_copy(next(buf.data.raw for buf in self.buffers if buf.section == "sregs"))
        self._flat(sregs)
        sregs.gdt.base, sregs.gdt.limit = planter.BASE + _GDT, _GDT_LIMIT
        sregs.idt.base, sregs.idt.limit = planter.BASE + (_IDT64 if self._long else _IDT32), 0xFFF if self._long else 0x7FF
        sregs.cr0, sregs.cr4 = 0x80000033, _PAE | _OSFXSR | self.asked["cr4"] & _OSXSAVE
        sregs.cr3 = planter.BASE + (_PML4 if self._long else _PDPT_PAE)
        sregs.efer = _LMA_LME if self._long else 0
        at = planter.BASE + (planter.long if self._long else planter.protected)
        return bytes(sregs), bytes(kvm_regs(rip=at, rbx=planter.BLOCK, rsp=planter.STACK, rflags=2)), planter.PORT_READY

    def _enter(self, vcpu: Vcpu) -> None:
        entry = self.entry()
        sregs, regs = kvm_sregs.from_buffer_copy(entry[0]), kvm_regs.from_buffer_copy(entry[1])
        vcpu.set_sregs(sregs)
        if (kept := vcpu.get_sregs().cr0) != sregs.cr0:
            raise PlantRefused(f"KVM_SET_SREGS turned CR0 {sregs.cr0:#x} into {kept:#x}, in 32-bit protected mode")
        vcpu.set_regs(regs)

    def _flat(self, sregs: kvm_sregs) -> None:
        flat = {"base": 0, "limit": 0xFFFFFFFF, "present": 1, "s": 1, "g": 1}
        code = {"selector": _CODE64, "l": 1} if self._long else {"selector": _CODE32, "db": 1}
        sregs.cs = kvm_segment(type=0xB, **code, **flat)
        for name in SEGMENTS[1:6]:
            setattr(sregs, name, kvm_segment(selector=_DATA, type=3, db=1, **flat))
        sregs.tr = kvm_segment(base=planter.BASE + _TSS, limit=0x67, type=0xB, present=1)
        sregs.ldt = kvm_segment(unusable=1)


def _put_words(out: bytearray, at: int, words: range) -> None:
    out[at : at + 8 * len(words)] = array("Q", words).tobytes()


def _gate(offset: int, selector: int) -> bytes:
    """An interrupt gate, 16 bytes; its first 8 are one for 32-bit mode."""
    low = offset & 0xFFFF | selector << 16 | 0x8E00 << 32 | (offset >> 16 & 0xFFFF) << 48
    return low.to_bytes(8, "little") + (offset >> 32).to_bytes(8, "little")


def _memory(vcpu: Vcpu) -> GuestMemory:
    return vcpu.vm.memory_at(planter.BASE) or vcpu.vm.add_memory(_SLOT, planter.BASE, planter.SIZE)
