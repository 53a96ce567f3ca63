# SPDX-License-Identifier: GPL-2.0-only
"""The variables of a reproducer in C: what buffers are called, how they are declared, and what single fields are."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator

from kvmtest.emit.fields import LAPIC_REGS, member, members
from kvmtest.emit.helpers import NEEDS
from kvmtest.emit.repro import Leaf, Repro, buffers_of
from kvmtest.scenario import program as p
from kvmtest.uapi import kvm as uapi
from kvmtest.uapi.names import CAPS, MP_STATES
from kvmtest.x86 import lapic, msr

__all__ = ("Variables", "changed", "memory", "number", "on", "quoted", "words")

_TYPES = {1: "__u8", 2: "__u16", 4: "__u32", 8: "__u64"}
_OFFSETS = {LAPIC_REGS[reg.name]: reg.offset for reg in lapic.LAPIC}
_CPUID_ROOM = 256
#: Structures that end with what has no type: the name of the structure in the union with the room for all of it.
_UNIONS = {"kvm_nested_state": "state", "kvm_xsave": "area"}


def number(value: int) -> str:
    """A number: small ones in decimal."""
    return str(value) if -10 < value < 10 else f"{value:#x}"


def words(place: p.Place) -> Iterator[tuple[int, p.Place]]:
    """The parts of ``place`` that C has a type for, each with the bit at which it begins."""
    for at in range(0, place.size, 8):
        yield 8 * at, place._replace(offset=place.offset + at, size=min(8, place.size - at))


def memory(region: p.Region) -> str:
    """The variable with the address of a region."""
    return f"smram{region.slot & 0xFFFF}" if region.slot >> 16 else f"mem{region.slot}"


def changed(register: str, mask: int, value: int) -> str:
    """The statement that writes the bits of ``mask`` of a leaf's register."""
    if mask == 0xFFFFFFFF:
        return f"entry->{register} = {number(value)};"
    if value == mask:
        return f"entry->{register} |= {number(value)};"
    kept = f"(entry->{register} & {~mask & 0xFFFFFFFF:#x})"
    return f"entry->{register} = {kept} | {number(value)};" if value else f"entry->{register} &= {~mask & 0xFFFFFFFF:#x};"


def quoted(text: str) -> str:
    """``text`` within a format string of printf()."""
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")


def on(op: p.Op, vcpu: int) -> bool:
    """Return True if an op is an op of that vCPU."""
    if isinstance(op, p.Ioctl):
        return op.on == vcpu
    if isinstance(op, p.Poll):
        return op.vcpu == vcpu or any(on(one, vcpu) for one in op.read)
    return getattr(op, "vcpu", None) == vcpu


class Variables:
    """The names and declarations in a program's main(); `say` appends a line."""

    def __init__(self, repro: Repro) -> None:
        self.repro = repro
        self.buffers = repro.vm.buffers | repro.body.buffers
        self.ops = [op for program in (repro.vm, repro.body) for _, op in program.ops]
        self.used: set[str] = {"kvm_ioctl", "need"}
        self.defines: dict[str, str] = {}
        self.declared: dict[str, str] = {}
        self.arrays: list[str] = []
        self.lines: list[str] = []
        self.regions: list[p.Region] = []
        #: True once the structure for CPUID no longer has room for all leaves.
        self.shortened = False
        self.runs = {op.vcpu for op in self.ops if isinstance(op, (p.Enter, p.Start, p.Join, p.Finish, p.Window, p.Reply))}
        self.runs |= {op.vcpu for op in self.ops if isinstance(op, p.Poll) and op.vcpu is not None}
        self.names: dict[str, str] = {}
        #: vCPUs that run on threads.
        self.started: set[int] = set()
        self._name()

    def _name(self) -> None:
        """Name the variable of each buffer: without the vCPU's id where no other has that name."""
        taken: dict[str, set[str]] = {}
        for name, buffer in self.buffers.items():
            short = msr.name_of(int.from_bytes(buffer.contents[8:12], "little")) if buffer.kind == "kvm_msrs" else ""
            short = re.sub(r"[^a-z0-9_]", "_", short or re.sub(r"-?\d+$", "", name) or name)
            short = f"msr_{short}" if short[0].isdigit() else short
            short = f"saved_{short}" if name.startswith("saved_") and not short.startswith("saved_") else short
            short = f"new_{short}" if name.startswith("new_") and not short.startswith("new_") else short
            taken.setdefault(short, set()).add(name)
            self.names[name] = short
        for names in taken.values():
            if len(names) > 1 and any(self.buffers[name].kind != "kvm_msrs" or name.startswith("saved_") for name in names):
                self.names.update((name, re.sub(r"[^a-z0-9_]", "_", name)) for name in names)

    def use(self, name: str) -> str:
        """Have a helper in the file."""
        if name not in self.used:
            self.used.add(name)
            for other in NEEDS.get(name, ()):
                self.use(other)
        return name

    def filled(self, op: p.Ioctl) -> bool:
        """Return True if any op writes the buffer of ``op``."""
        writers = (one for one in self.ops if isinstance(one, p.Put) or isinstance(one, p.Ioctl) and one.request >> 31)
        return any(op.arg in p.buffers_of(one) for one in writers)

    def looked_at(self, buffer: str) -> bool:
        """Return True if data that is read into ``buffer`` is compared or written."""
        if any(buffer in buffers_of(check) for check in self.repro.checks):
            return True
        reads = (one for one in self.ops if not isinstance(one, p.Ioctl) or one.request == uapi.KVM_SET_MSRS)
        return any(buffer in p.buffers_of(one) for one in reads)

    def say(self, *lines: str) -> None:
        """Append statements to main()."""
        self.lines += [line for text in lines for line in text.split("\n")]

    # Names

    def fd(self, on: int) -> str:
        """The variable with the descriptor of a vCPU, of the VM, or of the one beside it."""
        if on == p.NEW_VM:
            self.declared.setdefault("new_vm", "int new_vm")
            if "new_vm = kvm_ioctl(kvm, KVM_CREATE_VM, 0);" not in self.lines:
                self.say("new_vm = kvm_ioctl(kvm, KVM_CREATE_VM, 0);")
            return "new_vm"
        return "vm" if on == p.VM else f"vcpu{on}"

    def run(self, vcpu: int) -> str:
        """The variable with a vCPU's struct kvm_run."""
        return f"run{vcpu}"

    def leaf(self, name: str, leaf: Leaf) -> str:
        """A register of a CPUID leaf."""
        return f"{self.use('leaf')}({name}.entries, {number(leaf.function)}, {leaf.index})->{leaf.register}"

    def value(self, place: p.Place | Leaf) -> str:
        """Return the C expression for ``place``."""
        buffer = self.buffers[place.buffer]
        name, kind, size = self.names[place.buffer], buffer.kind, len(buffer.contents)
        self.declare(place.buffer)
        if isinstance(place, Leaf):
            return self.leaf(name, place)
        if kind in ("s64", "u32", "u64", "kvm_msrs"):
            return name
        if kind == "ssp":
            return "ssp"
        found = member(kind, size, place.offset, place.size)
        if kind == "kvm_lapic_state" and found:
            base = found.path.partition(" ")[0]
            self.defines[base] = f"{_OFFSETS[base]:#x}"
            return f"*{self.use('lapic_reg')}(&{name}, {found.path})"
        inner = f"{name}.{_UNIONS[kind]}" if self.large(kind, size) else name
        if found:
            return f"{inner}.{found.path}"
        return f"{self.use('field')}(&{name}, {place.offset}, {place.size})"

    def address(self, var: str, kind: str, size: int) -> str:
        """The address of a structure, for an ioctl."""
        return f"&{var}_reg" if kind == "ssp" else f"&{var}"

    def large(self, kind: str, size: int) -> bool:
        """Return True if a structure needs more room than its type."""
        return kind in _UNIONS and (kind != "kvm_xsave" or size > 4096)

    def at(self, gpa: int, space: int = 0) -> str:
        """The address of guest memory."""
        one = next(one for one in self.regions if one.slot >> 16 == space and one.gpa <= gpa < one.gpa + one.size)
        return f"{memory(one)} + {gpa - one.gpa:#x}" if gpa != one.gpa else memory(one)

    def touched(self, region: p.Region) -> bool:
        """Return True if the program itself accesses the memory of ``region``, or gives it to another VM."""
        if any(isinstance(op, p.Rebuild) for op in self.ops):
            return True
        ops = [one for op in self.ops for one in ((op, *op.read) if isinstance(op, p.Poll) else (op,))]
        places = [(op.gpa, op.space) for op in ops if isinstance(op, (p.Write, p.Peek))]
        places += [(op.gpa, 0) for op in ops if isinstance(op, p.Match)]
        places += [(op.resume, 0) for op in ops if isinstance(op, p.Enter) and isinstance(op.resume, int) and op.resume]
        return any(region.gpa <= gpa < region.gpa + region.size and space == region.slot >> 16 for gpa, space in places)

    def literal(self, place: p.Place, value: int) -> str:
        """A value of ``place``, by its name where it has one."""
        kind = self.buffers[place.buffer].kind
        if kind == "kvm_mp_state" and value in MP_STATES:
            return MP_STATES[value]
        if kind == "kvm_vcpu_events" and place.offset == uapi.kvm_vcpu_events.flags.offset:
            return _flags(value)
        if kind == "s64" and value < 0:
            return f"-{errno.errorcode.get(-value, str(-value))}"
        return number(value)

    def declare(self, name: str) -> str:
        """Declare the variable of buffer ``name``; returns what C calls it."""
        buffer = self.buffers[name]
        var, kind, size = self.names[name], buffer.kind, len(buffer.contents)
        if kind == "s64":
            self.declared.setdefault(var, f"int {var}")
        elif kind in ("u32", "u64"):
            start = int.from_bytes(buffer.contents, "little")
            self.declared.setdefault(var, f"__{kind} {var}" + (f" = {number(start)}" if start else ""))
        elif kind == "kvm_msrs":
            start = int.from_bytes(buffer.contents[16:24], "little")
            self.declared.setdefault(var, f"__u64 {var}" + (f" = {number(start)}" if start else ""))
        elif kind == "ssp":
            self.declared.setdefault("ssp", "__u64 ssp = " + number(int.from_bytes(buffer.contents[16:24], "little")))
            id = int.from_bytes(buffer.contents[:8], "little")
            fields = f"\n\t\t.id = {id:#x},\n\t\t.addr = (unsigned long)&ssp,\n\t"
            self.declared.setdefault(f"{var}_reg", f"struct kvm_one_reg {var}_reg = {{{fields}}}")
        elif kind == p.DENIED:
            self._denied(var, buffer.contents)
        elif kind == "kvm_cpuid2":
            self._cpuid(var)
        elif kind == "kvm_irq_routing":
            count = (size - 8) // 48
            inner = f"struct {{\n\t\tstruct kvm_irq_routing head;\n\t\tstruct kvm_irq_routing_entry entries[{count}];\n\t}}"
            self.declared.setdefault(var, f"{inner} {var} = {self.initial(buffer, True)}")
        elif self.large(kind, size):
            inner = f"static union {{\n\t\tstruct {kind} {_UNIONS[kind]};\n\t\tchar room[{size}];\n\t}}"
            self.declared.setdefault(var, f"{inner} {var}{self.initializer(buffer, _UNIONS[kind])}")
        else:
            self.declared.setdefault(var, f"struct {kind} {var}{self.initializer(buffer)}")
        return var

    def _cpuid(self, var: str) -> None:
        inner = f"static struct {{\n\t\tstruct kvm_cpuid2 head;\n\t\tstruct kvm_cpuid_entry2 entries[{_CPUID_ROOM}];\n\t}}"
        self.declared.setdefault(var, f"{inner} {var} = {{ .head.nent = {_CPUID_ROOM} }}")

    def _denied(self, var: str, contents: bytes) -> None:
        accesses, ranges = "KVM_MSR_FILTER_READ | KVM_MSR_FILTER_WRITE", []
        for at in range(0, len(contents), 4):
            base = int.from_bytes(contents[at : at + 4], "little")
            fields = f".flags = {accesses},\n\t\t\t.nmsrs = 1,\n\t\t\t.base = {base:#x},\n\t\t\t.bitmap = (__u8[]){{ 0 }},"
            ranges.append(f"\t\t.ranges[{at // 4}] = {{\n\t\t\t{fields}\n\t\t}},\n")
        self.declared.setdefault(var, f"struct kvm_msr_filter {var} = {{\n{''.join(ranges)}\t}}")

    def initializer(self, buffer: p.Buffer, inner: str = "") -> str:
        """Return the initializer of a variable; "" if it begins as 0, or need not begin as anything."""
        if not any(buffer.contents) and buffer.kind not in _SELECTS:
            return ""
        text = self.initial(buffer)
        return f" = {{ .{inner} = {text} }}" if inner else f" = {text}"

    def initial(self, buffer: p.Buffer, routing: bool = False) -> str:
        """The fields of a structure that are not 0."""
        parts: list[str] = []
        done = 0
        for one in members(buffer.kind, len(buffer.contents)):
            value = int.from_bytes(buffer.contents[one.offset : one.offset + one.size], "little")
            if not value and one.path != _SELECTS.get(buffer.kind) or one.offset < done or not self._of_entry(buffer, one.path):
                continue
            done = one.offset + one.size
            if buffer.kind == "kvm_lapic_state":
                parts += self._bytes(one.path, value)
                continue
            path = ("head." if "[" not in one.path else "") + one.path if routing else one.path
            parts.append(f".{path} = {_constant(buffer.kind, one.path, value)}")
        line = f"{{ {', '.join(parts)} }}"
        return line if len(line) < 48 else "{\n\t\t" + ",\n\t\t".join(parts) + ",\n\t}"

    def _bytes(self, register: str, value: int) -> Iterator[str]:
        """A register of the local APIC's page, which C has as chars."""
        base = register.partition(" ")[0]
        self.defines[base] = f"{_OFFSETS[base]:#x}"
        for at, byte in enumerate(value.to_bytes(4, "little")):
            if byte:
                place = f"{register} + {at}" if at else register
                yield f".regs[{place}] = {'(char)' if byte >> 7 else ''}{number(byte)}"

    @staticmethod
    def _of_entry(buffer: p.Buffer, path: str) -> bool:
        """Return True if a field of a routing entry belongs to the entry's type."""
        if buffer.kind != "kvm_irq_routing" or ".u." not in path:
            return True
        kind = int.from_bytes(buffer.contents[8 + 4 : 8 + 8], "little")
        return path.split(".u.")[1].startswith("irqchip" if kind == uapi.KVM_IRQ_ROUTING_IRQCHIP else "msi")


def _constant(kind: str, path: str, value: int) -> str:
    """A value in an initializer, by its name where it has one."""
    if kind == "kvm_enable_cap" and path == "cap":
        return CAPS.get(value, str(value))
    if kind == "kvm_irq_routing" and path.endswith(".type"):
        return {uapi.KVM_IRQ_ROUTING_IRQCHIP: "KVM_IRQ_ROUTING_IRQCHIP", uapi.KVM_IRQ_ROUTING_MSI: "KVM_IRQ_ROUTING_MSI"}[value]
    if kind == "kvm_mp_state":
        return MP_STATES.get(value, str(value))
    if kind == "kvm_irqchip" and path == "chip_id":
        return _CHIPS[value]
    return number(value)


#: The fields of structures that say what KVM_GET_* is to read; 0 names one, too.
_SELECTS = {"kvm_irqchip": "chip_id"}
_CHIPS = ("KVM_IRQCHIP_PIC_MASTER", "KVM_IRQCHIP_PIC_SLAVE", "KVM_IRQCHIP_IOAPIC")
#: struct kvm_vcpu_events.flags.
_EVENT_FLAGS = {value: name for name, value in vars(uapi).items() if name.startswith("KVM_VCPUEVENT_VALID_")}


def _flags(value: int) -> str:
    return " | ".join(name for bit, name in _EVENT_FLAGS.items() if value & bit) or "0"
