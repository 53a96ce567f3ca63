# SPDX-License-Identifier: GPL-2.0-only
"""The statements of a reproducer in C, op by op."""

from __future__ import annotations

import re
from functools import singledispatchmethod

from kvmtest.emit import code
from kvmtest.emit.msr_names import macro
from kvmtest.emit.repro import MAY_FAIL
from kvmtest.emit.variables import Variables, changed, memory, number, on, quoted, words
from kvmtest.scenario import program as p
from kvmtest.uapi import kvm as uapi
from kvmtest.uapi.names import IOCTLS

__all__ = ("Statements",)

_TYPES = {1: "__u8", 2: "__u16", 4: "__u32", 8: "__u64"}
#: Milliseconds that a vCPU is given to show that no exit comes.
_SILENT = 100
_WORD = 8


class Statements(Variables):
    """C code of ops, as lines of main()."""

    # Ops

    @singledispatchmethod
    def op(self, op: object, last: bool) -> None:
        """Append what one op does."""
        raise TypeError(f"no op: {op}")

    @op.register
    def _(self, op: p.Create, last: bool) -> None:
        self.create(op.vcpu, any(on(one, op.vcpu) for one in self.ops if one is not op))

    def create(self, vcpu: int, named: bool) -> None:
        """Create a vCPU, in a variable where it is ``named`` later."""
        if not named:
            self.say(f"kvm_ioctl(vm, KVM_CREATE_VCPU, {vcpu});")
            return
        self.declared.setdefault(f"vcpu{vcpu}", f"int vcpu{vcpu}")
        self.say(f"vcpu{vcpu} = kvm_ioctl(vm, KVM_CREATE_VCPU, {vcpu});")
        if vcpu in self.runs:
            self.declared.setdefault(self.run(vcpu), f"struct kvm_run *{self.run(vcpu)}")
            self.say(f"{self.run(vcpu)} = {self.use('map_run')}(kvm, vcpu{vcpu});")

    def issue(self, on: int | None, request: str, arg: str) -> None:
        """An ioctl that has to succeed, on a vCPU, the VM, or None for /dev/kvm."""
        self.say(f"kvm_ioctl({'kvm' if on is None else self.fd(on)}, {request}, {arg});")

    def get_msr(self, on: int, name: str, to: str) -> None:
        """Read an MSR that has to be there, ``to`` a variable or nowhere."""
        self.say(f"{to and f'{to} = '}{self.use('get_msr')}({self.fd(on)}, {name});")

    def set_msr(self, on: int, name: str, value: str) -> None:
        """Write an MSR, which has to succeed."""
        self.say(f"{self.use('set_msr')}({self.fd(on)}, {name}, {value});")

    @op.register
    def _(self, op: p.Cpuid, last: bool) -> None:
        self._cpuid("cpuid")
        if self.shortened:
            self.say("cpuid.head.nent = sizeof(cpuid.entries) / sizeof(*cpuid.entries);")
        self.issue(None, "KVM_GET_SUPPORTED_CPUID", self.address("cpuid", "kvm_cpuid2", 0))
        if op.changes or op.only:
            self.declared.setdefault("i", "__u32 i")
            body = []
            functions = dict.fromkeys(change[0] for change in op.changes)
            for function in functions:
                changes = [change for change in op.changes if change[0] == function]
                sets = [f"\t\t{changed(*change[1:])}" for change in changes]
                brace = len(sets) > 1
                body.append(f"\tif (entry->function == {number(function)}){' {' if brace else ''}")
                body += sets
                body += ["\t}"] if brace else []
            entry = "\tstruct kvm_cpuid_entry2 *entry = &cpuid.entries[i];"
            self.say("for (i = 0; i < cpuid.head.nent; i++) {", entry, "", *body, "}")
        if op.only:
            self.shortened = True
            self.say("/* The leaf that comes first is the only one. */", f"cpuid.head.nent = {len(op.only)};")
        arg = self.address("cpuid", "kvm_cpuid2", 0)
        if op.result and self._answered(op):
            self.declare(op.result)
            self.say(f"{self.names[op.result]} = {self.use('try_ioctl')}({self.fd(op.vcpu)}, KVM_SET_CPUID2, {arg});")
        else:
            self.issue(op.vcpu, "KVM_SET_CPUID2", arg)

    @op.register
    def _(self, op: p.Ioctl, last: bool) -> None:
        name, fd = IOCTLS.get(op.request, f"{op.request:#x}"), self.fd(op.on)
        judged = op.result and self._answered(op)
        if isinstance(op.arg, int):
            arg, typed = number(op.arg), f"(void *){op.arg:#x}" if op.arg else "NULL"
        else:
            buffer = self.buffers[op.arg]
            if buffer.kind == "kvm_msrs":
                self._msr(op, fd, name, judged)
                return
            arg = typed = self.address(self.declare(op.arg), buffer.kind, len(buffer.contents))
        if judged:
            self.declare(op.result)
            self.say(f"{self.names[op.result]} = {self.use('try_ioctl')}({fd}, {name}, {typed});")
        elif op.result:
            self.attempt(op.on, name, typed)
        else:
            self.issue(op.on, name, arg)

    def attempt(self, on: int, request: str, arg: str) -> None:
        """An ioctl that KVM may refuse: of a message that reaches nobody it says so."""
        self.say(f"ioctl({self.fd(on)}, {request}, {arg});")

    def _msr(self, op: p.Ioctl, fd: str, name: str, judged: object) -> None:
        assert isinstance(op.arg, str)
        contents = self.buffers[op.arg].contents
        index = int.from_bytes(contents[8:12], "little")
        self.defines[macro(index)] = f"{index:#x}"
        plain = op.request == uapi.KVM_SET_MSRS and not self.filled(op)
        var = self.names[op.arg]
        if plain and (judged or op.result == MAY_FAIL):
            # Other ioctls have the same variable.
            self.declared.setdefault(var, f"__u64 {var}")
            self.say(f"{var} = {number(int.from_bytes(contents[16:24], 'little'))};")
        if judged:
            self.declare(op.arg)
            self.declare(op.result)
            self.say(f"{self.names[op.result]} = {self.use('msr_ioctl')}({fd}, {name}, {macro(index)}, &{var});")
        elif op.result == MAY_FAIL:
            self.say(f"{self.use('msr_ioctl')}({fd}, {name}, {macro(index)}, &{self.declare(op.arg)});")
        elif op.request == uapi.KVM_GET_MSRS:
            self.get_msr(op.on, macro(index), self.declare(op.arg) if self.looked_at(op.arg) else "")
        else:
            value = number(int.from_bytes(contents[16:24], "little")) if plain else self.declare(op.arg)
            self.set_msr(op.on, macro(index), value)

    def _answered(self, op: p.Ioctl | p.Cpuid) -> bool:
        """Return True if the ioctl's result is checked; for MSRs only if it has to be something else than 1."""
        at = next(i for i, one in enumerate(self.ops) if one is op)
        for one in self.ops[at + 1 :]:
            if isinstance(one, p.Compare) and one.place.buffer == op.result:
                return not (one.values == (1,) and self._of_msrs(op) and one.otherwise.verdict in ("skip", "error"))
            if isinstance(one, (p.Ioctl, p.Cpuid)) and one.result == op.result:
                return False
        return False

    def _of_msrs(self, op: p.Ioctl | p.Cpuid) -> bool:
        return isinstance(op, p.Ioctl) and op.request in (uapi.KVM_GET_MSRS, uapi.KVM_SET_MSRS)

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

    @op.register
    def _(self, op: p.Sum, last: bool) -> None:
        to, of = self.value(op.place), self.value(op.of)
        more = f" + {number(op.value)}" if op.value > 0 else f" - {number(-op.value)}" if op.value else ""
        if to.startswith("field("):
            self.say(f"{self.use('set_field')}({to[6:-1]}, {of}{more});")
        else:
            self.say(f"{to} = {of}{more};")

    @op.register
    def _(self, op: p.Apart, last: bool) -> None:
        signed = _TYPES[op.place.size].replace("u", "s")
        apart = f"({signed})({self.value(op.place)} - {self.value(op.of)})"
        holds = f"{apart} >= {number(op.least)} && {apart} < {number(op.most)}"
        if last:
            self.end(op.place.name, holds, ["1"], "%d")
        elif op.otherwise.verdict:
            self.skip(holds, op.otherwise.why)

    def holds(self, name: str, op: p.Compare) -> str:
        """The condition under which a comparison holds."""
        size = op.place.size
        mask = op.mask & (1 << 8 * size) - 1
        if size > _WORD:
            tests = [self._wide(op, value) for value in op.values]
            return " && ".join(tests) if op.unlike or len(tests) == 1 else " || ".join(f"({test})" for test in tests)
        seen = name if mask == (1 << 8 * size) - 1 else f"({name} & {number(mask)})"
        tests = [f"{seen} {'!=' if op.unlike else '=='} {self.literal(op.place, value)}" for value in op.values]
        return (" && " if op.unlike else " || ").join(tests)

    def _wide(self, op: p.Compare, value: int) -> str:
        """The condition that a place of more than a word holds ``value``, or not."""
        tests = []
        for at, place in words(op.place):
            part = value >> at & (1 << 8 * place.size) - 1
            one = op._replace(place=place, values=(part,), mask=op.mask >> at, unlike=False)
            tests.append(self.holds(self.value(place), one))
        return f"!({' && '.join(tests)})" if op.unlike else " && ".join(tests)

    @op.register
    def _(self, op: p.Compare, last: bool) -> None:
        if op.place.buffer == "result" and not self._kept(op):
            return
        name = self.value(op.place) if op.place.size <= _WORD else op.place.name
        if last:
            self._last_compare(name, op)
        elif op.otherwise.verdict:
            self.skip(self.holds(name, op), op.otherwise.why)

    def _kept(self, op: p.Compare) -> bool:
        """Return True if a variable holds the result that ``op`` compares."""
        at = next(i for i, one in enumerate(self.ops) if one is op)
        before = [one for one in self.ops[:at] if isinstance(one, (p.Ioctl, p.Cpuid)) and one.result == op.place.buffer]
        return bool(before) and self._answered(before[-1])

    def skip(self, holds: str, why: str) -> None:
        """End main() unless a condition ``holds``: there is nothing to show."""
        self.say(f'{self.use("require")}({holds}, "{quoted(why)}");')

    def _last_compare(self, name: str, op: p.Compare) -> None:
        size = op.place.size
        mask = op.mask & (1 << 8 * size) - 1
        seen = name if mask == (1 << 8 * size) - 1 else f"{name} & {number(mask)}"
        if len(op.values) == 1 and not op.unlike and size <= _WORD:
            form = "%d" if op.place.buffer == "result" else "%#llx" if size == 8 else "%#x"
            self.end(op.place.name or name, seen, [self.literal(op.place, op.values[0])], form)
        else:
            self.end(op.place.name or name, self.holds(name, op), ["1"], "%d")

    def join_all(self) -> None:
        """Let no thread outlive main(), whose variables it uses."""
        for vcpu in sorted(self.started):
            self.say(f"{self.use('join')}(&thread{vcpu}, {_SILENT});")
        self.started.clear()

    def end(self, item: str, observed: str, expected: list[str], form: str) -> None:
        """End main() with the status of a comparison with ``expected``; ``form`` is printf()'s format of the observed value."""
        self.join_all()
        shown = observed
        if len(expected) > 1 or not re.fullmatch(r"[\w.\[\]>-]+", observed):
            kind = "__u64" if "ll" in form else "__u32" if "x" in form else "int"
            self.declared.setdefault("observed", f"{kind} observed")
            self.say(f"observed = {observed};")
            shown = "observed"
        differs = " && ".join(f"{shown} != {one}" for one in expected)
        cast = f"(__u64){shown}" if "ll" in form and shown == observed else shown
        self.ended(item, differs, " or ".join(expected), form, cast)

    def ended(self, item: str, differs: str, expected: str, form: str, shown: str) -> None:
        """Print whether the condition ``differs`` holds, and end main() with it."""
        test = f"({differs})" if "&&" in differs else differs
        said = f'"%sok 1 {item}: expected {expected}, observed {form}\\n"'
        self.say("", f'printf({said}, {test} ? "not " : "", {shown});', f"return {differs};")

    @op.register
    def _(self, op: p.Region, last: bool) -> None:
        if not any(one.slot >> 16 == op.slot >> 16 and one.gpa <= op.gpa < one.gpa + one.size for one in self.regions):
            self.regions.append(op)
            var, given = memory(op), self.give(op)
            if self.touched(op):
                self.declared.setdefault(var, f"__u8 *{var}")
                self.say(f"{var} = {given};")
            else:
                self.say(f"{given};")

    def give(self, region: p.Region) -> str:
        """The call that gives the VM memory."""
        return f"{self.use('add_logged_memory' if region.logged else 'add_memory')}({self.slot(region)})"

    @staticmethod
    def slot(region: p.Region) -> str:
        """The arguments that say which memory of the VM it is."""
        slot = f"1 << 16 | {region.slot & 0xFFFF}" if region.slot >> 16 else str(region.slot)
        return f"vm, {slot}, {region.gpa:#x}, {region.size:#x}"

    @op.register
    def _(self, op: p.Rebuild, last: bool) -> None:
        self.say("", "/* From here on a new VM, with the memory of the one that was. */")
        self.say("vm = kvm_ioctl(kvm, KVM_CREATE_VM, 0);")
        for _, one in self.repro.vm.ops:
            self.op(one, False)
        for region in self.regions:
            self.say(f"{self.use('keep_memory')}({self.slot(region)}, {memory(region)});")
        self.say("")

    @op.register
    def _(self, op: p.Listed, last: bool) -> None:
        index = macro(int.from_bytes(self.buffers[op.buffer].contents[8:12], "little"))
        self.say(f"if ({self.use('listed')}(kvm, {index}))")
        before, self.lines = self.lines, []
        self.set_msr(op.vcpu, index, self.declare(op.buffer))
        self.lines = [*before, *(f"\t{line}" for line in self.lines)]

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
        if size := code.repeated(op.data):
            self.arrays.append(code.array(name, op.data[:size]))
            self.declared |= {"i": "__u32 i"}
            self.say(f"for (i = 0; i < {len(op.data) // size}; i++)", f"\tmemcpy({where} + i * {size}, {name}, {size});")
            return
        self.arrays.append(code.array(name, op.data))
        self.say(f"memcpy({where}, {name}, sizeof({name}));")

    @op.register
    def _(self, op: p.Peek, last: bool) -> None:
        self.say(f"{self.value(op.to)} = *({_TYPES[op.to.size]} *)({self.at(op.gpa, op.space)});")

    @op.register
    def _(self, op: p.Match, last: bool) -> None:
        if len(set(op.data)) == 1:
            self.declared |= {"differ": "int differ", "i": "__u32 i"}
            loop = f"for (differ = i = 0; i < {len(op.data):#x}; i++)"
            self.say(loop, f"\tdiffer += ({self.at(op.gpa)})[i] != {op.data[0]:#x};")
            differ = "differ"
        else:
            name = f"data_{len(self.arrays)}"
            self.arrays.append(code.array(name, op.data))
            differ = f"!!memcmp({self.at(op.gpa)}, {name}, sizeof({name}))"
        if last:
            self.end("memory", differ, ["0"], "%d")
        elif op.otherwise.verdict:
            self.skip(f"!{differ.removeprefix('!!')}", op.otherwise.why)
