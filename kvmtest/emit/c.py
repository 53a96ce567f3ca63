# SPDX-License-Identifier: GPL-2.0-only
"""A reproducer as one C file: <linux/kvm.h> and libc only, KTAP for output, exit status 0, 1 or 4 as kselftest has it."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from functools import singledispatchmethod

from kvmtest.emit import code
from kvmtest.emit.fields import LAPIC_REGS, member, members
from kvmtest.emit.helpers import HELPERS, INCLUDES, NEEDS
from kvmtest.emit.msr_names import macro
from kvmtest.emit.repro import MAY_FAIL, Check, Leaf, Repro
from kvmtest.scenario import program as p
from kvmtest.uapi import kvm as uapi
from kvmtest.uapi.names import CAPS, EXITS, IOCTLS, MP_STATES
from kvmtest.x86 import lapic, msr, xsave

__all__ = ("source",)

_TYPES = {1: "__u8", 2: "__u16", 4: "__u32", 8: "__u64"}
_OFFSETS = {LAPIC_REGS[reg.name]: reg.offset for reg in lapic.LAPIC}
#: Milliseconds that an exit is waited for, and that a vCPU is given to show that none comes.
_LIMIT, _SILENT, _SLICE = 1000, 100, 20
_CPUID_ROOM = 256
#: More ports than are named one by one.
_MANY = 3
_WIDTH = 80


def source(repro: Repro, head: list[str]) -> str:
    """The C file of ``repro``; ``head`` are the lines of its first comment."""
    return _Writer(repro).file(head)


def number(value: int) -> str:
    """A number: small ones in decimal."""
    return str(value) if -10 < value < 10 else f"{value:#x}"


class _Writer:
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
        self.runs = {op.vcpu for op in self.ops if isinstance(op, (p.Enter, p.Start, p.Join, p.Finish, p.Reply))}
        self.runs |= {op.vcpu for op in self.ops if isinstance(op, p.Poll) and op.vcpu is not None}
        self.names: dict[str, str] = {}
        self._name()

    def _name(self) -> None:
        """Name the variable of each buffer: without the vCPU's id where no other has that name."""
        taken: dict[str, set[str]] = {}
        for name, buffer in self.buffers.items():
            short = msr.name_of(int.from_bytes(buffer.contents[8:12], "little")) if buffer.kind == "kvm_msrs" else ""
            short = re.sub(r"[^a-z0-9_]", "_", short or re.sub(r"\d+$", "", name) or name)
            short = f"msr_{short}" if short[0].isdigit() else short
            short = f"new_{short}" if name.startswith("new_") and not short.startswith("new_") else short
            taken.setdefault(short, set()).add(name)
            self.names[name] = short
        for short, names in taken.items():
            if len(names) > 1 and any(self.buffers[name].kind != "kvm_msrs" for name in names):
                self.names.update((name, re.sub(r"[^a-z0-9_]", "_", name)) for name in names)

    def use(self, name: str) -> str:
        """Have a helper in the file."""
        if name not in self.used:
            self.used.add(name)
            for other in NEEDS.get(name, ()):
                self.use(other)
        return name

    def say(self, *lines: str) -> None:
        """Append statements to main()."""
        self.lines += [line for text in lines for line in text.split("\n")]

    # Names

    def fd(self, on: int) -> str:
        """The variable with the descriptor of a vCPU, or of the VM."""
        return "vm" if on == p.VM else f"vcpu{on}"

    def run(self, vcpu: int) -> str:
        """The variable with a vCPU's struct kvm_run."""
        return f"run{vcpu}"

    def value(self, place: p.Place | Leaf) -> str:
        """What ``place`` is called."""
        buffer = self.buffers[place.buffer]
        name, kind, size = self.names[place.buffer], buffer.kind, len(buffer.contents)
        self.declare(place.buffer)
        if isinstance(place, Leaf):
            return f"{self.use('leaf')}({name}.entries, {number(place.function)}, {place.index})->{place.register}"
        if kind in ("s64", "u32", "u64", "kvm_msrs"):
            return name
        if kind == "ssp":
            return "ssp"
        found = member(kind, size, place.offset, place.size)
        if kind == "kvm_lapic_state" and found:
            self.defines[found.path.split(" ")[0]] = f"{_OFFSETS[found.path] & ~0x70 if '+' in found.path else _OFFSETS[found.path]:#x}"
            return f"*{self.use('lapic_reg')}(&{name}, {found.path})"
        inner = f"{name}.{_UNIONS[kind]}" if self.large(kind, size) else name
        if found:
            return f"{inner}.{found.path}"
        return f"{self.use('field')}(&{name}, {place.offset}, {place.size})"

    def large(self, kind: str, size: int) -> bool:
        """Whether a structure has more room than its type."""
        return kind in _UNIONS and (kind != "kvm_xsave" or size > 4096)

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
            self.declared.setdefault(var + "_reg", f"struct kvm_one_reg {var}_reg = {{\n\t\t.id = {int.from_bytes(buffer.contents[:8], 'little'):#x},\n\t\t.addr = (unsigned long)&ssp,\n\t}}")
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

    def initializer(self, buffer: p.Buffer, inner: str = "") -> str:
        """What follows a variable in its declaration, where it does not begin as 0."""
        if not any(buffer.contents):
            return ""
        text = self.initial(buffer)
        return f" = {{ .{inner} = {text} }}" if inner else f" = {text}"

    def initial(self, buffer: p.Buffer, routing: bool = False) -> str:
        """The fields of a structure that are not 0."""
        parts, done = [], 0
        for one in members(buffer.kind, len(buffer.contents)):
            value = int.from_bytes(buffer.contents[one.offset : one.offset + one.size], "little")
            if not value or one.offset < done or not self._of_entry(buffer, one.path):
                continue
            done = one.offset + one.size
            path = ("head." if "[" not in one.path else "") + one.path if routing else one.path
            parts.append(f".{path} = {_constant(buffer.kind, one.path, value)}")
        line = f"{{ {', '.join(parts)} }}"
        return line if len(line) < 48 else "{\n\t\t" + ",\n\t\t".join(parts) + ",\n\t}"

    @staticmethod
    def _of_entry(buffer: p.Buffer, path: str) -> bool:
        """Whether a field of a routing entry is one of its type's."""
        if buffer.kind != "kvm_irq_routing" or ".u." not in path:
            return True
        kind = int.from_bytes(buffer.contents[8 + 4 : 8 + 8], "little")
        return path.split(".u.")[1].startswith("irqchip" if kind == uapi.KVM_IRQ_ROUTING_IRQCHIP else "msi")

    # Ops

    @singledispatchmethod
    def op(self, op: object, last: bool) -> None:
        """Append what one op does."""
        raise TypeError(f"no op: {op}")

    @op.register
    def _(self, op: p.Create, last: bool) -> None:
        if not any(_on(one, op.vcpu) for one in self.ops if one is not op):
            self.say(f"kvm_ioctl(vm, KVM_CREATE_VCPU, {op.vcpu});")
            return
        self.declared.setdefault(f"vcpu{op.vcpu}", f"int vcpu{op.vcpu}")
        self.say(f"vcpu{op.vcpu} = kvm_ioctl(vm, KVM_CREATE_VCPU, {op.vcpu});")
        if op.vcpu in self.runs:
            self.declared.setdefault(self.run(op.vcpu), f"struct kvm_run *{self.run(op.vcpu)}")
            self.say(f"{self.run(op.vcpu)} = {self.use('map_run')}(kvm, vcpu{op.vcpu});")

    @op.register
    def _(self, op: p.Cpuid, last: bool) -> None:
        self._cpuid("cpuid")
        self.say("kvm_ioctl(kvm, KVM_GET_SUPPORTED_CPUID, &cpuid);")
        if op.changes or op.only:
            self.declared.setdefault("i", "__u32 i")
            body = []
            functions = dict.fromkeys(change[0] for change in op.changes)
            for function in functions:
                changes = [change for change in op.changes if change[0] == function]
                sets = [f"\t\t{_changed(*change[1:])}" for change in changes]
                brace = len(sets) > 1
                body.append(f"\tif (entry->function == {number(function)}){' {' if brace else ''}")
                body += sets
                body += ["\t}"] if brace else []
            self.say("for (i = 0; i < cpuid.head.nent; i++) {", "\tstruct kvm_cpuid_entry2 *entry = &cpuid.entries[i];", "", *body, "}")
        if op.only:
            self.say("/* The leaf that comes first is the only one. */", f"cpuid.head.nent = {len(op.only)};")
        self.say(f"kvm_ioctl(vcpu{op.vcpu}, KVM_SET_CPUID2, &cpuid);")

    @op.register
    def _(self, op: p.Ioctl, last: bool) -> None:
        name, fd = IOCTLS.get(op.request, f"{op.request:#x}"), self.fd(op.on)
        judged = op.result and self._answered(op)
        if isinstance(op.arg, int):
            arg, typed = number(op.arg), f"(void *){op.arg:#x}" if op.arg else "NULL"
        else:
            kind = self.buffers[op.arg].kind
            if kind == "kvm_msrs":
                self._msr(op, fd, name, judged)
                return
            var = self.declare(op.arg)
            arg = typed = f"&{var}_reg" if kind == "ssp" else f"&{var}"
        if judged:
            self.declare(op.result)
            self.say(f"{self.names[op.result]} = {self.use('try_ioctl')}({fd}, {name}, {typed});")
        else:
            self.say(f"kvm_ioctl({fd}, {name}, {arg});")

    def _msr(self, op: p.Ioctl, fd: str, name: str, judged: object) -> None:
        assert isinstance(op.arg, str)
        contents = self.buffers[op.arg].contents
        index = int.from_bytes(contents[8:12], "little")
        self.defines[macro(index)] = f"{index:#x}"
        plain = op.request == uapi.KVM_SET_MSRS and not self._filled(op)
        if judged:
            var = self.declare(op.arg)
            self.declare(op.result)
            self.say(f"{self.names[op.result]} = {self.use('msr_ioctl')}({fd}, {name}, {macro(index)}, &{var});")
        elif op.result == MAY_FAIL:
            self.say(f"{self.use('msr_ioctl')}({fd}, {name}, {macro(index)}, &{self.declare(op.arg)});")
        elif op.request == uapi.KVM_GET_MSRS:
            self.say(f"{self.declare(op.arg)} = {self.use('get_msr')}({fd}, {macro(index)});")
        else:
            value = number(int.from_bytes(contents[16:24], "little")) if plain else self.declare(op.arg)
            self.say(f"{self.use('set_msr')}({fd}, {macro(index)}, {value});")

    def _filled(self, op: p.Ioctl) -> bool:
        """Whether something writes the buffer of ``op`` at all."""
        return any(one is not op and op.arg in p.buffers_of(one) for one in self.ops if isinstance(one, (p.Put, p.Ioctl)))

    def _answered(self, op: p.Ioctl) -> bool:
        """Whether what KVM answered is looked at: that of MSRs only where it has to be something else than 1."""
        at = next(i for i, one in enumerate(self.ops) if one is op)
        for one in self.ops[at + 1 :]:
            if isinstance(one, p.Compare) and one.place.buffer == op.result:
                return not (one.values == (1,) and self._of_msrs(op) and one.otherwise.verdict in ("skip", "error"))
            if isinstance(one, p.Ioctl) and one.result == op.result:
                return False
        return False

    def _of_msrs(self, op: p.Ioctl) -> bool:
        return op.request in (uapi.KVM_GET_MSRS, uapi.KVM_SET_MSRS)

    @op.register
    def _(self, op: p.Put, last: bool) -> None:
        full = op.mask & (1 << 8 * op.place.size) - 1 == (1 << 8 * op.place.size) - 1
        value = self.literal(op.place, op.value & (1 << 8 * op.place.size) - 1)
        name = self.value(op.place)
        if name.startswith("field("):
            self.say(f"{self.use('set_field')}({name[6:-1]}, {value});")
            return
        if full:
            self.say(f"{name} = {value};")
        elif op.value & op.mask == op.mask:
            self.say(f"{name} |= {value};")
        else:
            self.say(f"{name} = ({name} & ~{number(op.mask)}) | {value};")

    def holds(self, name: str, op: p.Compare) -> str:
        """The condition under which a comparison holds."""
        size = op.place.size
        mask = op.mask & (1 << 8 * size) - 1
        seen = name if mask == (1 << 8 * size) - 1 else f"({name} & {number(mask)})"
        tests = [f"{seen} {'!=' if op.unlike else '=='} {self.literal(op.place, value)}" for value in op.values]
        return (" && " if op.unlike else " || ").join(tests)

    @op.register
    def _(self, op: p.Compare, last: bool) -> None:
        if op.place.buffer == "result" and not self._kept(op):
            return
        name = self.value(op.place)
        if last:
            self._last_compare(name, op)
        elif op.otherwise.verdict:
            self.skip(self.holds(name, op), op.otherwise.why)

    def _kept(self, op: p.Compare) -> bool:
        """Whether the answer that ``op`` compares is in a variable."""
        at = next(i for i, one in enumerate(self.ops) if one is op)
        before = [one for one in self.ops[:at] if isinstance(one, p.Ioctl) and one.result == op.place.buffer]
        return bool(before) and self._answered(before[-1])

    def skip(self, holds: str, why: str) -> None:
        """End main() unless a condition ``holds``: there is nothing to show."""
        self.say(f'{self.use("require")}({holds}, "{_quoted(why)}");')

    def _last_compare(self, name: str, op: p.Compare) -> None:
        size = op.place.size
        mask = op.mask & (1 << 8 * size) - 1
        seen = name if mask == (1 << 8 * size) - 1 else f"{name} & {number(mask)}"
        if len(op.values) == 1 and not op.unlike:
            form = "%d" if op.place.buffer == "result" else "%#llx" if size == 8 else "%#x"
            self.end(op.place.name or name, seen, self.literal(op.place, op.values[0]), form)
        else:
            self.end(op.place.name or name, self.holds(name, op), "1", "%d")

    def end(self, item: str, observed: str, expected: str, form: str) -> None:
        """End main() with the status of a comparison; ``form`` is printf()'s of both."""
        shown = observed
        if not re.fullmatch(r"[\w.\[\]>-]+", observed):
            kind = "__u64" if "ll" in form else "__u32" if "x" in form else "int"
            self.declared.setdefault("observed", f"{kind} observed")
            self.say(f"observed = {observed};")
            shown = "observed"
        differs = f"{shown} != {expected}"
        cast = f"(__u64){shown}" if "ll" in form and shown == observed else shown
        said = f'"%sok 1 {item}: expected {expected}, observed {form}\\n"'
        self.say("", f'printf({said}, {differs} ? "not " : "", {cast});', f"return {differs};")

    @op.register
    def _(self, op: p.Region, last: bool) -> None:
        if not any(one.gpa == op.gpa and one.slot == op.slot for one in self.regions):
            self.regions.append(op)
            var = _memory(op)
            self.declared.setdefault(var, f"char *{var}")
            slot = f"1 << 16 | {op.slot & 0xFFFF}" if op.slot >> 16 else str(op.slot)
            self.say(f"{var} = {self.use('add_memory')}(vm, {slot}, {op.gpa:#x}, {op.size:#x});")

    def at(self, gpa: int, space: int = 0) -> str:
        """The address of guest memory."""
        one = next(one for one in self.regions if one.slot >> 16 == space and one.gpa <= gpa < one.gpa + one.size)
        return f"{_memory(one)} + {gpa - one.gpa:#x}" if gpa != one.gpa else _memory(one)

    @op.register
    def _(self, op: p.Write, last: bool) -> None:
        where = self.at(op.gpa, op.space)
        if len(op.data) in _TYPES:
            where = where if "+" not in where else f"({where})"
            self.say(f"*({_TYPES[len(op.data)]} *){where} = {number(int.from_bytes(op.data, 'little'))};")
            return
        if len(set(op.data)) == 1:
            self.say(f"memset({where}, {op.data[0]:#x}, {len(op.data):#x});")
            return
        if steps := code.progression(op.data):
            first, step, count = steps
            self.declared |= {"i": "__u32 i"}
            where = where if "+" not in where else f"({where})"
            self.say(f"for (i = 0; i < {count}; i++)", f"\t((__u64 *){where})[i] = {first:#x} + i * {step:#x}ULL;")
            return
        name = f"code_{len(self.arrays)}"
        self.arrays.append(code.array(name, op.data))
        self.say(f"memcpy({where}, {name}, sizeof({name}));")

    @op.register
    def _(self, op: p.Peek, last: bool) -> None:
        self.say(f"{self.value(op.to)} = *({_TYPES[op.to.size]} *)({self.at(op.gpa, op.space)});")

    @op.register
    def _(self, op: p.Match, last: bool) -> None:
        if len(set(op.data)) == 1:
            self.declared |= {"differ": "int differ = 0", "i": "__u32 i"}
            self.say(f"for (i = 0; i < {len(op.data):#x}; i++)", f"\tdiffer += ({self.at(op.gpa)})[i] != {op.data[0]:#x};")
            self.end("memory", "differ", "0", "%d")
            return
        name = f"data_{len(self.arrays)}"
        self.arrays.append(code.array(name, op.data))
        self.end("memory", f"!!memcmp({self.at(op.gpa)}, {name}, sizeof({name}))", "0", "%d")

    # Running

    def came(self, vcpu: int, came: p.Came) -> str:
        """The condition under which the last exit of a vCPU is one."""
        run = self.run(vcpu)
        if came.kind == "out":
            value = f" && {self.use('said')}({run}) == {number(came.value)}" if came.value is not None else ""
            return f"{self.use('is_out')}({run}, reason, {came.number:#x}){value}"
        if came.kind == "in":
            return f"{self.use('is_in')}({run}, reason, {came.number:#x})"
        if came.kind == "mmio":
            return f"reason == KVM_EXIT_MMIO && {run}->mmio.phys_addr == {came.number:#x}"
        if came.kind == "exit":
            return f"reason == {EXITS.get(came.number, str(came.number))}"
        return "reason == -EINTR" if came.kind == "quiet" else f"reason == -{errno.errorcode[came.number]}"

    def met(self, vcpu: int, came: p.Came, otherwise: p.Otherwise, last: bool) -> None:
        """What follows an exit that has to be ``came``."""
        holds = self.came(vcpu, came)
        if last:
            self.end("KVM_RUN as expected", holds, "1", "%d")
        elif otherwise.verdict:
            self.skip(holds, otherwise.why or "the vCPU did something else")

    @op.register
    def _(self, op: p.Enter, last: bool) -> None:
        self.declared.setdefault("reason", "int reason")
        run, fd = self.run(op.vcpu), self.fd(op.vcpu)
        limit = _SILENT if op.came.kind == "quiet" else _LIMIT
        call = f"reason = {self.use('enter')}({fd}, {run}, {limit});"
        again = [f"{self.use('is_out')}({run}, reason, {port:#x})" for port in op.came.past]
        if len(again) > _MANY:
            again = [f"(reason == KVM_EXIT_IO && {run}->io.port != {op.came.number:#x})"]
        if op.blind:
            again.append("reason == KVM_EXIT_MMIO")
        if op.resume:
            self.declared |= {"regs": "struct kvm_regs regs"}
            where = f"regs.{op.resume}" if isinstance(op.resume, str) else f"*(__u32 *)({self.at(op.resume)})"
            again.append(f"{self.use('emulation')}({run}, reason)")
            self.say(
                "do {", f"\t{call}", f"\tif ({again[-1]}) {{", f"\t\tkvm_ioctl({fd}, KVM_GET_REGS, &regs);",
                f"\t\tregs.rip = {where};", f"\t\tkvm_ioctl({fd}, KVM_SET_REGS, &regs);", "\t}",
                f"}} while ({' || '.join(again)});",
            )
        elif again:
            self.say("do {", f"\t{call}", f"}} while ({' || '.join(again)});")
        else:
            self.say(call)
        self.met(op.vcpu, op.came, op.otherwise, last)

    @op.register
    def _(self, op: p.Said, last: bool) -> None:
        self.say(f"{self.value(op.to)} = {self.use('said')}({self.run(op.vcpu)});")

    @op.register
    def _(self, op: p.Start, last: bool) -> None:
        self.declared.setdefault(f"thread{op.vcpu}", f"struct thread thread{op.vcpu}")
        self.say(f"{self.use('start')}(&thread{op.vcpu}, {self.fd(op.vcpu)}, {self.run(op.vcpu)});")

    @op.register
    def _(self, op: p.Join, last: bool) -> None:
        self.declared.setdefault("reason", "int reason")
        limit = _SILENT if op.came.kind == "quiet" else _LIMIT
        self.say(f"reason = {self.use('join')}(&thread{op.vcpu}, {limit});")
        self.met(op.vcpu, op.came, op.otherwise, last)

    @op.register
    def _(self, op: p.Poll, last: bool) -> None:
        self.declared.setdefault("tries", "int tries")
        before, self.lines = self.lines, []
        for one in op.read:
            self.op(one, False)
        name = self.value(op.test.place)
        inner, self.lines = self.lines, before
        if op.changed:
            self.declared.setdefault("first", "__u64 first = 0")
            holds = f"tries && {name} != first"
            inner += ["if (!tries)", f"\tfirst = {name};"]
        else:
            holds = self.holds(name, op.test)
        self.say(f"for (tries = 0; tries < {_LIMIT // _SLICE}; tries++) {{", *(f"\t{line}" for line in inner), f"\tif ({holds})", "\t\tbreak;")
        if op.vcpu is None:
            self.say(f"\tusleep({_SLICE * 1000});", "}")
        else:
            self.use("enter")
            self.say(f"\tif (enter({self.fd(op.vcpu)}, {self.run(op.vcpu)}, {_SLICE}) != -EINTR)", "\t\tbreak;", "}")
        if last:
            self._last_compare(name, op.test)
        else:
            self.skip(f"{name} != first" if op.changed else holds, op.test.otherwise.why)

    @op.register
    def _(self, op: p.Finish, last: bool) -> None:
        self.say(f"{self.use('finish')}({self.fd(op.vcpu)}, {self.run(op.vcpu)});")

    @op.register
    def _(self, op: p.Reply, last: bool) -> None:
        run, value = self.run(op.vcpu), number(int.from_bytes(op.data, "little"))
        self.say(f"*(__u32 *)((char *){run} + {run}->io.data_offset) = {value};")

    @op.register
    def _(self, op: p.Irqfd, last: bool) -> None:
        self.say(f"{self.use('irqfd')}(vm, {op.gsi});")

    # The file

    def checks(self) -> None:
        """Compare what was read last with what is expected."""
        if len(self.repro.checks) == 1:
            (check,) = self.repro.checks
            size = check.place.size if isinstance(check.place, p.Place) else 4
            self.end(check.item, self.observed(check), self.expected(check), "%#llx" if size == 8 else "%#x")
            return
        self.declared.setdefault("failed", "int failed = 0")
        self.say("")
        for i, check in enumerate(self.repro.checks, 1):
            self.say(f'failed |= {self.use("report")}({i}, "{check.item}", {self.observed(check)}, {self.expected(check)});')
        self.say("return failed;")

    def observed(self, check: Check) -> str:
        """What a check looks at."""
        name = self.value(check.place)
        if check.ahead:
            name = f"{name} - {check.ahead}"
        if check.component is not None:
            area = self.names[check.place.buffer]
            there = f"{self.use('field')}(&{area}, {xsave.XSTATE_BV_OFFSET}, 8)"
            name = f"{there} >> {check.component} & 1 ? {name} : {number(check.init)}"
        size = check.place.size if isinstance(check.place, p.Place) else 4
        if check.mask & (1 << 8 * size) - 1 == (1 << 8 * size) - 1:
            return name
        return f"({name}) & {number(check.mask)}" if " " in name else f"{name} & {number(check.mask)}"

    def expected(self, check: Check) -> str:
        """What a check asks for."""
        values = [self.literal(check.place, value & check.mask) if isinstance(check.place, p.Place) else number(value & check.mask) for value in check.values]
        if len(values) == 1:
            return values[0]
        seen = self.observed(check)
        return f"({seen}) == {values[0]} ? {values[0]} : {values[1]}"

    def file(self, head: list[str]) -> str:
        """The whole file."""
        count = max(1, len(self.repro.checks))
        self.say(
            f'printf("KTAP version 1\\n1..{count}\\n");',
            'kvm = need(open("/dev/kvm", O_RDWR), "/dev/kvm");',
            "vm = kvm_ioctl(kvm, KVM_CREATE_VM, 0);",
        )
        self.declared |= {"kvm": "int kvm", "vm": "int vm"}
        begin, self.lines = self.lines, []
        vm, body = ([op for _, op in program.ops] for program in (self.repro.vm, self.repro.body))
        for op in vm:
            self.op(op, False)
        first = True
        for group, ops in _groups(self.repro):
            if first:
                self.say("")
            first = False
            for op in ops:
                self.op(op, not self.repro.checks and op is body[-1])
        if self.repro.checks:
            self.checks()
        main = [*_declarations(self.declared), "", *begin, *self.lines]
        includes = {"fcntl.h", "linux/kvm.h", *(one for name in self.used for one in INCLUDES.get(name, ()))}
        text = "\n".join(main)
        includes |= {"string.h"} if re.search(r"\bmem(cpy|set|cmp)\b", text) else set()
        includes |= {"unistd.h"} if "usleep(" in text else set()
        includes |= {"stddef.h"} if "offsetof(" in text else set()
        includes |= {"errno.h"} if re.search(r"-E[A-Z]+\b", text) else set()
        libc = sorted(includes - {"linux/kvm.h"})
        parts = ["// SPDX-License-Identifier: GPL-2.0-only", "/*", *(f" * {line}".rstrip() for line in head), " */"]
        parts += ["#define _GNU_SOURCE"] if "join" in self.used else []
        parts += [f"#include <{name}>" for name in libc] + ["#include <linux/kvm.h>", ""]
        parts += [f"#define {name}\t{value}" for name, value in self.defines.items()] + ([""] if self.defines else [])
        parts += [f"{text}" for text in self.arrays]
        parts += [HELPERS[name] for name in HELPERS if name in self.used and _called(name, text)]
        parts += ["int main(void)", "{", *(_wrapped(f"\t{line}" if line else "") for line in main), "}", ""]
        return "\n".join(parts)


def _called(name: str, text: str) -> bool:
    """Whether main(), of this ``text``, calls a helper, or another one that it calls does."""
    if re.search(rf"\b{name}\(", text) or name == "need":
        return True
    return any(other != name and re.search(rf"\b{name}\(", HELPERS[other]) and _called(other, text) for other in HELPERS)


#: Structures that end with what has no type: the name of the structure in the union with the room for all of it.
_UNIONS = {"kvm_nested_state": "state", "kvm_xsave": "area"}


def _on(op: p.Op, vcpu: int) -> bool:
    """Whether an op is one of that vCPU."""
    if isinstance(op, p.Ioctl):
        return op.on == vcpu
    if isinstance(op, p.Poll):
        return op.vcpu == vcpu or any(_on(one, vcpu) for one in op.read)
    return getattr(op, "vcpu", None) == vcpu


def _groups(repro: Repro) -> Iterator[tuple[int, list[p.Op]]]:
    """The body's ops by their steps; a section that is read begins another group."""
    group: list[p.Op] = []
    step = -1
    for number_, op in repro.body.ops:
        if group and number_ != step:
            yield step, group
            group = []
        step = number_
        group.append(op)
    if group:
        yield step, group


def _declarations(declared: dict[str, str]) -> list[str]:
    """Long ones first, as the kernel has them."""
    texts = sorted((text for text in declared.values()), key=lambda text: (not text.startswith("static"), "\n" not in text, -len(text)))
    ints = [text.removeprefix("int ") for text in texts if re.fullmatch(r"int \w+", text)]
    rest = [text for text in texts if not re.fullmatch(r"int \w+", text)]
    lines = [line for text in rest for line in f"{text};".split("\n")]
    return [_undo(line) for line in lines] + ([f"int {', '.join(ints)};"] if ints else [])


def _undo(line: str) -> str:
    """A line of a declaration without the tab that main() gives it."""
    return line.removeprefix("\t")


def _constant(kind: str, path: str, value: int) -> str:
    """A value in an initializer, by its name where it has one."""
    if kind == "kvm_enable_cap" and path == "cap":
        return CAPS.get(value, str(value))
    if kind == "kvm_irq_routing" and path.endswith(".type"):
        return {uapi.KVM_IRQ_ROUTING_IRQCHIP: "KVM_IRQ_ROUTING_IRQCHIP", uapi.KVM_IRQ_ROUTING_MSI: "KVM_IRQ_ROUTING_MSI"}[value]
    if kind == "kvm_mp_state":
        return MP_STATES.get(value, str(value))
    if kind == "kvm_irqchip" and path == "chip_id" and value == uapi.KVM_IRQCHIP_IOAPIC:
        return "KVM_IRQCHIP_IOAPIC"
    return number(value)


#: struct kvm_vcpu_events.flags.
_EVENT_FLAGS = {value: name for name, value in vars(uapi).items() if name.startswith("KVM_VCPUEVENT_VALID_")}


def _flags(value: int) -> str:
    return " | ".join(name for bit, name in _EVENT_FLAGS.items() if value & bit) or "0"


def _changed(register: str, mask: int, value: int) -> str:
    if mask == 0xFFFFFFFF:
        return f"entry->{register} = {number(value)};"
    if value == mask:
        return f"entry->{register} |= {number(value)};"
    kept = f"(entry->{register} & {~mask & 0xFFFFFFFF:#x})"
    return f"entry->{register} = {kept} | {number(value)};" if value else f"entry->{register} &= {~mask & 0xFFFFFFFF:#x};"


def _memory(region: p.Region) -> str:
    return f"smram{region.slot & 0xFFFF}" if region.slot >> 16 else f"mem{region.slot}"


def _not(condition: str) -> str:
    """The opposite of a condition."""
    if "&&" in condition or "||" in condition:
        return f"!({condition})"
    for a, b in (("==", "!="), ("!=", "==")):
        if f" {a} " in condition:
            return condition.replace(f" {a} ", f" {b} ")
    return f"!{condition}"


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")


def _broken(text: str) -> tuple[str, str]:
    """``text`` up to its last comma or logical operator outside of strings, and the rest; all of it where there is none."""
    found = None
    for one in re.finditer(r'"(?:[^"\\]|\\.)*"|(,|&&|\|\||\?|:)(?= |$)', text):
        found = one.end() if one[1] else found
    return (text[:found], text[found:]) if found and found > len(text) // 3 else (text, "")


def _wrapped(line: str) -> str:
    """A statement of more than one line where it is too long: broken after commas and operators."""
    if len(line.expandtabs(8)) <= _WIDTH or '"' in line and line.strip().startswith(('skip("',)):
        return line
    indent = re.match(r"\t*", line)[0]  # type: ignore[index]
    opening = line.find("(")
    column = len(line[: opening + 1].expandtabs(8)) if opening > 0 else len(indent) * 8 + 8
    pad = "\t" * (column // 8) + " " * (column % 8)
    lines: list[str] = []
    current = ""
    for word in re.findall(r"\s*(?:\"(?:[^\"\\]|\\.)*\"|\S)+", line.strip()):
        start = indent if not lines else pad
        if current and len((start + current + word).expandtabs(8)) > _WIDTH:
            # After a comma or an operator rather than within what these join.
            done, rest = _broken(current)
            lines.append(start + done)
            current = (rest + word).strip()
        else:
            current += word
    lines.append((indent if not lines else pad) + current)
    return "\n".join(lines)
