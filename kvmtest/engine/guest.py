# SPDX-License-Identifier: GPL-2.0-only
"""The guest's view: run the spine guest from where the event left the vCPU, and collect its report."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from kvmtest import spec
from kvmtest.engine.disassemble import internal_error
from kvmtest.guests import spine
from kvmtest.kvm import Exit, KvmError, Vcpu
from kvmtest.kvm.clock import Limit
from kvmtest.model.record import OUT_OF_TIME
from kvmtest.state.guest_view import LAPIC_UNREAD, LIMITS, Report
from kvmtest.state.layout import Layout
from kvmtest.uapi.kvm import KVM_EXIT_INTERNAL_ERROR, KVM_EXIT_IO, KVM_EXIT_IO_OUT, KVM_EXIT_MMIO
from kvmtest.x86 import cpuid, lapic, xsave

if TYPE_CHECKING:
    from kvmtest.engine.machine import Machine

__all__ = ("Reporter",)

#: Items that the guest finds by what it reads at PROBE.
_BASES = frozenset(f"{seg}.base" for seg in ("ds", "es", "ss", "fs", "gs"))
_ALIASES = {"efer": 0xC0000080, "apic_base": 0x1B}
_X2APIC_FIRST = 0x800
_LOW = (1 << 32) - 1
_LIST_ROOM = 0x4000
_RAM_SLOT = 1
#: The size of FXSAVE's data outside 64-bit mode: eight XMM registers, and 32 bits of the x87 pointers.
_FXSAVE_16 = 160 + 8 * 16
#: The step that precedes the code that a step is in.
_PRECEDING = {
    **dict.fromkeys(("TR", "LDT", "LIMITLESS", "LONG"), "PROTECTED"),
    **dict.fromkeys(("R8", "CR8", "WIDE", "XCR0", "XSETBV"), "LONG"),
    "XSAVE": "XSETBV",
}
_DONE, _GP = 1, 13
#: More exits than a guest makes that fails in each step and at each MSR; and how many time-outs all of them may take.
_EXITS, _PATIENCE = 1200, 10


def _base(word: int) -> int:
    """The base of a segment in which ``word`` lies at PROBE."""
    return word - spine.PROBE & _LOW


@cache
def _steps() -> dict[int, str]:
    """Offset of a status -> its step."""
    return {spine.status(step): step for step in spine.STEP_ITEMS}


def _quad(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 8], "little")


@cache
def _addresses() -> bytes:
    return spine.pattern(0, spine.RAM_SIZE)


class Reporter:
    """The spine guest in the memory of a VM, ready to report on ``vcpu``.

    ``vector`` is the SIPI's by which it begins, None for the reset vector; ``layout`` is the vCPU's, ``apic_mode`` what its
    local APIC is in. All RAM below 640 KiB, the ROM and the SIPI's page are written. Raises GuestMissing, KvmError where memory
    cannot be had, ValueError for a vector from 20H to 53H.
    """

    #: The memory that the guest wrote, while it is being read.
    _words: memoryview | None = None
    #: Offset of the status of the step or list entry in which the guest was stopped before its end: it may be half done.
    _cut: int | None = None

    def __init__(
        self, machine: Machine, vcpu: Vcpu, layout: Layout, vector: int | None = None, apic_mode: str = "xapic"
    ) -> None:
        self.vcpu = vcpu
        self.layout = layout
        self.vector = vector
        self.seen: dict[str, int] = {}
        #: Offset of a status -> what KVM could not do there.
        self.failures: dict[int, str] = {}
        self.disabled = apic_mode == "disabled"
        # Without an in-kernel local APIC there is nothing at its address.
        there = "lapic" in layout.by_section and not self.disabled
        self.x2apic = there and apic_mode == "x2apic"
        self.x2apic_ids = machine.setup.x2apic_ids
        self.msrs = self._msrs()
        self.lapic = self._lapic() if there and not self.x2apic else ()
        self._load(machine)

    def move(self, machine: Machine) -> None:
        """Go on in ``machine``, which has a copy of the vCPU and its memory."""
        self.vcpu = next(target.vcpu for target in machine.targets if target.vcpu.id == self.vcpu.id)
        ram = machine.vm.memory_at(0)
        assert ram
        self.ram = ram

    def _msrs(self) -> tuple[tuple[str, int], ...]:
        listed = zip(self.layout.by_section.get("msrs", ()), self.layout.msrs, strict=True)
        named = [(item, index) for item, index in listed if item not in spec.SYNTHETIC]
        named += _ALIASES.items()
        if self.x2apic:
            there = (reg for reg in self._lapic() if reg[0] not in ("lapic.dfr", "lapic.icr2"))
            named += [(item, _X2APIC_FIRST + (offset >> 4)) for item, offset in there]
        return tuple(named[: _LIST_ROOM // spine.LIST_ENTRY])

    def _lapic(self) -> tuple[tuple[str, int], ...]:
        return tuple((f"lapic.{reg.name}", reg.offset) for reg in lapic.LAPIC if reg.name not in LAPIC_UNREAD)

    def _load(self, machine: Machine) -> None:
        """Write the guest's memory, and to the rest of RAM the pattern."""
        vm = machine.vm
        base = self.vcpu.get_sregs().apic_base & ~0xFFF if self.lapic else 0
        addresses = (base + offset for _, offset in self.lapic)
        self.ram = vm.memory_at(0) or vm.add_memory(_RAM_SLOT, 0, spine.RAM_SIZE)
        self.ram.write(0, _addresses())
        for one in spine.memory(self.vector, (index for _, index in self.msrs), addresses, cpuid.xcr0_mask(machine.leaves)):
            memory = vm.memory_at(one.gpa) or vm.add_memory(one.slot, one.gpa, one.size)
            for gpa, data in one.writes:
                memory.write(gpa, data)

    def _word(self, offset: int) -> int:
        if self._words is not None:
            return self._words[offset >> 2]
        return self.ram.read_int(spine.DATA + offset, 4)

    def _skip(self, exit_: Exit) -> bool:
        """Note that KVM could not do the current step, and let the guest continue after it."""
        resume, status = self._word(spine.RESUME), self._word(spine.STATUS)
        if not resume or status in self.failures:
            return False
        regs = self.vcpu.get_regs()
        sregs = self.vcpu.get_sregs()
        at = sregs.cs.base + regs.rip
        insn = exit_.insn or (self.ram.read(at, 15) if spine.CODE <= at < spine.DATA else b"")
        self.failures[status] = internal_error(exit_, insn, 16 if resume < spine.CODE else 64 if sregs.cs.l else 32)
        if resume < spine.CODE and sregs.cs.base != spine.CODE:
            # From the first page, as an exception would.
            sregs.cs.base, sregs.cs.selector = spine.CODE, spine.CODE >> 4
            self.vcpu.set_sregs(sregs)
        regs.rip = resume
        self.vcpu.set_regs(regs)
        return True

    def report(self, timeout_s: float, first: Exit | None = None) -> Report:
        """Run the vCPU until the guest is done or stops by another way than its last port.

        ``timeout_s`` bounds each KVM_RUN, in seconds. ``first`` is the exit of a guest that runs already.
        """
        late = False
        try:
            problem = self._run(timeout_s, first)
        except TimeoutError as error:
            late, problem = True, f"{OUT_OF_TIME}: {self._where()}: {error}"
        except KvmError as error:
            problem = f"{self._where()}: {error}"
        self._cut = self._word(spine.STATUS) if problem else None
        values, missing = self.collect()
        msw = values.pop("msw", None)
        missing.pop("msw", None)
        if msw is not None and not problem and values.get("cr0", msw) & 0xFFFF != msw:
            problem = f"SMSW read {msw:#x}, MOV from CR0 {values.pop('cr0'):#x}"
        if self.vector is None and not problem:
            # After RESET and INIT every segment can be read through; a vCPU that waits for a SIPI may have unusable ones.
            for item in sorted((_BASES | LIMITS) & missing.keys()):
                if missing[item].startswith("exception"):
                    problem = f"{item}: {missing.pop(item)}"
        return Report(values, missing, problem, frozenset() if self.reached("WIDE") else frozenset(spine.WIDE), late)

    def _run(self, timeout_s: float, first: Exit | None) -> str:
        """Run until the guest is done; return why it stopped earlier, or ""."""
        limit, ports = Limit(_PATIENCE * timeout_s), spine.ports()
        for _ in range(_EXITS):
            if limit.left() <= 0:
                raise TimeoutError(f"the guest takes longer than {_PATIENCE * timeout_s:g} s")
            exit_, first = first or self.vcpu.run(timeout_s), None
            if exit_.reason == KVM_EXIT_INTERNAL_ERROR and self._skip(exit_):
                continue
            if exit_.reason == KVM_EXIT_MMIO and not exit_.is_write:
                # Memory that is not there, in a segment whose base or limit is not what the guest thinks.
                self.vcpu.reply(spine.pattern(exit_.phys_addr, exit_.len))
                continue
            if exit_.reason != KVM_EXIT_IO or exit_.direction != KVM_EXIT_IO_OUT:
                return f"the guest stopped {self._where()}: {exit_}"
            value = int.from_bytes(exit_.data[:4], "little")
            if exit_.port == spine.PORT_DONE:
                return ""
            if exit_.port == spine.PORT_FAULT:
                return f"an exception at CS:IP {value >> 16:04x}:{value & 0xFFFF:04x} {self._where()}"
            if exit_.port == spine.PORT_ENTRY:
                if value != (spine.ENTRY_RESET if self.vector is None else spine.ENTRY_SIPI):
                    self.seen.clear()
                    return f"the guest started at entry {value}, not at the one for this event"
            elif item := ports.get(exit_.port):
                self.seen[item] = _base(value) if item in _BASES else value
            else:
                return f"unexpected {exit_}"
        return "the guest does not stop reporting"

    def _where(self) -> str:
        if len(self.seen) < len(spine.PORT_ITEMS):
            return f"after {len(self.seen)} of {len(spine.PORT_ITEMS)} port writes"
        offset = self._word(spine.STATUS)
        if offset < spine.SLOTS:
            return f"in step {_steps().get(offset, 'TABLES')}"
        start, entries = (spine.LAPIC, self.lapic) if offset >= spine.LAPIC else (spine.MSRS, self.msrs)
        return f"at {entries[(offset - start) // spine.LIST_ENTRY][0]}"

    def _failed(self, offset: int) -> str:
        """Return why the step or list entry with its status at ``offset`` failed; "" if it succeeded, or was not reached."""
        if offset in self.failures:
            return self.failures[offset]
        status = self._word(offset)
        # A limit shows by the exception after the last good read: #SS or #GP.
        if status in (0, _DONE):
            return ""
        if _steps().get(offset, "").endswith("_LIMIT") and status & _DONE and status >> 8 in (12, _GP):
            return ""
        return f"exception {status >> 8} in the guest"

    def _step(self, name: str) -> tuple[bool, str]:
        """Return whether a step was completed, and if not, why."""
        offset = spine.status(name)
        # Of a loop of steps a later one may be done, from the turn before.
        if self._cut is not None and self._cut <= offset:
            return False, ""
        if failed := self._failed(offset):
            return False, failed
        if self._word(offset) & _DONE:
            return True, ""
        before = _PRECEDING.get(name)
        if before:
            reached, reason = self._step(before)
            if not reached and reason:
                return False, reason if reason.startswith("not reached") else f"not reached: step {before}: {reason}"
        return False, ""

    def reached(self, name: str) -> bool:
        """Return True if a step was completed."""
        return self._step(name)[0]

    def collect(self) -> tuple[dict[str, int], dict[str, str]]:
        """Return values, and missing items with reasons, from RAM and from the ports."""
        data = self.ram.read(spine.DATA, spine.LAPIC + _LIST_ROOM)
        self._words = memoryview(data).cast("I")
        try:
            return self._collected(data)
        finally:
            self._words = None

    def _collected(self, data: bytes) -> tuple[dict[str, int], dict[str, str]]:
        values, missing, slots = dict(self.seen), dict[str, str](), spine.slots()
        for step, names in spine.STEP_ITEMS.items():
            done, reason = self._step(step)
            for item in names:
                if done:
                    value = _quad(data, slots[item])
                    values[item] = _base(value) if item in _BASES else value
                elif reason:
                    missing[item] = reason
        for start, entries in ((spine.MSRS, self.msrs), (spine.LAPIC, self.lapic)):
            for i, (item, _) in enumerate(entries):
                at = start + spine.LIST_ENTRY * i
                if at + 4 == self._cut:
                    continue
                if failed := self._failed(at + 4):
                    missing[item] = f"RDMSR: {failed}" if start == spine.MSRS else failed
                elif self._word(at + 4) == _DONE:
                    values[item] = _quad(data, at + 8)
        if self.disabled:
            missing.update((item, "with IA32_APIC_BASE.EN clear there is no local APIC") for item, _ in self._lapic())
        if self.x2apic:
            self._x2apic(values, missing)
        self._vectors(values, missing)
        self._limits(values, missing)
        if not self.reached("WIDE"):
            values.update((item, values[item] & _LOW) for item in spine.WIDE if item in values)
        for item, why in self.layout.missing.items():
            if item.startswith("cpuid."):
                values.pop(item, None)  # what the guest reads of a leaf that is not there says nothing
            if item not in values:
                missing.setdefault(item, why)
        return values, missing

    def _limits(self, values: dict[str, int], missing: dict[str, str]) -> None:
        """Drop the limits, which the guest finds by an exception, unless the step LIMITLESS showed that they are enforced."""
        offset = spine.status("LIMITLESS")
        if self._cut is None or self._cut > offset:
            if self._word(offset) >> 8 == _GP:
                return
            done, reason = self._step("LIMITLESS")
            if done:
                reason = "limits are not enforced here: a read beyond one raised no exception"
            elif reason:
                reason = f"whether limits are enforced here is not known: {reason}"
            missing.update((item, reason) for item in LIMITS & values.keys() if reason)
        for item in LIMITS & values.keys():
            del values[item]

    def _x2apic(self, values: dict[str, int], missing: dict[str, str]) -> None:
        """x2APIC registers in the form of the page that KVM_GET_LAPIC shows."""
        missing["lapic.dfr"] = "there is no DFR in x2APIC mode"
        if "lapic.id" in values and not self.x2apic_ids:
            values["lapic.id"] = values["lapic.id"] << 24 & _LOW
        if "lapic.icr" in values:
            values["lapic.icr2"] = values["lapic.icr"] >> 32
            values["lapic.icr"] &= 0xFFFFFFFF
        elif "lapic.icr" in missing:
            missing["lapic.icr2"] = missing["lapic.icr"]

    def _vectors(self, values: dict[str, int], missing: dict[str, str]) -> None:
        """Add the items that XSAVE, or else FXSAVE, has stored."""
        xsaved, why = self._step("XSAVE")
        fxsaved, why_not = self._step("FXSAVE")
        area = self.ram.read(spine.XSAVE, spine.XSAVE_ROOM)
        wanted, used = (self.ram.read_int(spine.DATA + at) for at in (spine.XCR0_WANTED, spine.XCR0_USED))
        legacy = self.ram.read(spine.DATA + spine.FXSAVE, 512) + b"\3".ljust(64, b"\0")
        for item in self.layout.by_section.get("xsave", ()):
            field = self.layout.fields[item]
            # MXCSR is SSE's, though no XSTATE_BV bit speaks of it.
            component = xsave.SSE if field.component is None else field.component
            if xsaved and used >> component & 1 and field.offset + field.size <= len(area):
                value = field.get(area)
            elif fxsaved and field.offset + field.size <= _FXSAVE_16 and item not in ("fip", "fdp"):
                value = field.get(legacy)
            else:
                value = None
            if value is not None:
                values[item] = value
            elif item in values:
                continue
            elif not xsaved and (why or why_not):
                missing[item] = why or why_not
            elif not wanted >> component & 1:
                missing[item] = "the vCPU's CPUID does not have the component"
            elif xsaved:
                missing[item] = f"XSETBV did not last: XCR0 was {used:#x} when XSAVE ran"
