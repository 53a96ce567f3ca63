# SPDX-License-Identifier: GPL-2.0-only
"""The runner: executes a program's ops on a machine, one after the other, and keeps their results."""

from __future__ import annotations

import ctypes
import os
import time
from itertools import takewhile
from typing import Any, NoReturn

from kvmtest.engine import guest, native, stress
from kvmtest.engine.machine import Machine
from kvmtest.engine.making import leaves_of
from kvmtest.engine.operands import Operands
from kvmtest.engine.running import Running
from kvmtest.judge.evidence import Ended, Exited, Played
from kvmtest.kvm import Exit, GuestMemory, KvmError, RunTimeout, Vcpu
from kvmtest.kvm.clock import Limit
from kvmtest.kvm.cpuid import pack_cpuid
from kvmtest.kvm.ioctl import ioctl
from kvmtest.kvm.where import where
from kvmtest.model.by_type import ByType
from kvmtest.scenario import program as p
from kvmtest.state.snapshot import Unread
from kvmtest.uapi.kvm import (
    KVM_EXIT_INTERNAL_ERROR,
    KVM_EXIT_IO,
    KVM_EXIT_IO_OUT,
    KVM_EXIT_MMIO,
    KVM_INTERNAL_ERROR_EMULATION,
    KVM_MEM_LOG_DIRTY_PAGES,
    KVM_SET_CPUID2,
    KVM_SET_MSRS,
)

__all__ = ("Player", "play")

#: Seconds that a vCPU runs until it is looked at again, and between two looks where none has to run.
_SLICE_S, _LOOK_S = 0.02, 0.0005
#: The time after which a vCPU counts as silent: seconds, and a multiple of the time of its slowest exit so far. The
#: slowest one was mostly the first, with whatever KVM or an emulator does only then.
_SILENT_S, _SILENT_EXITS = 0.02, 50
#: The time for an exit that the manuals require.
_EXPECTED_S = 0.1
#: More instructions than guest code has that a KVM may not be able to emulate.
_MAX_RESUMED = 512
#: The measurements of Do, by name.
_MEASUREMENTS = {"arrivals": stress.arrivals}


class _End(Exception):
    def __init__(self, otherwise: p.Otherwise, more: str = "", late: bool = False) -> None:
        self.verdict, self.why, self.late = otherwise.verdict, f"{otherwise.why}{more}", late


def play(program: p.Program, machine: Machine, timeout_s: float) -> Played:
    """Execute ``program`` once; the other parameters are those of Player."""
    return Player(program, machine, timeout_s).run()


class Player:
    """A program, prepared to be executed on ``machine`` again and again.

    ``timeout_s`` bounds the wait for what must come, in seconds. Ops in a row that need no decision are run by C code where that
    can be loaded; the rest, and what one of them did not bring to its end, in Python, with the same evidence. ``slowest_s`` are
    the seconds that the slowest exit to userspace took.
    """

    def __init__(self, program: p.Program, machine: Machine, timeout_s: float) -> None:
        self._program, self._machine, self._timeout_s = program, machine, timeout_s
        self.slowest_s = 0.0
        self._at = Operands(program, machine)
        self.buffers, self._first = self._at.buffers, machine
        self._move(machine)
        library = native.library()
        self._native = native.Stretches(library, program, self._at) if library else None

    def _move(self, machine: Machine) -> None:
        self._machine = machine
        self._at.move(machine)
        self._vcpus, self._targets = self._at.vcpus, self._at.targets

    def _ask(self, asked: bool) -> None:
        for id in self._asking:
            self._vcpus[id].run_struct.request_interrupt_window = asked

    def run(self) -> Played:
        """Execute all ops, up to the one that ends the program. Errors of ioctls end it as an error."""
        self._threads: dict[int, Running] = {}
        self._last: dict[int, Exit] = {}
        #: vCPUs that were asked to come back for an interrupt window.
        self._asking: set[int] = set()
        self._reporter: guest.Reporter | None = None
        self.slowest_s = 0.0
        self._evidence: list[tuple[int, Any]] = []
        self._step = 0
        self._at.renew()
        end = None
        try:
            self._all()
        except _End as stop:
            end = Ended(self._step, stop.verdict, stop.why, stop.late)
        except (OSError, Unread) as error:
            end = Ended(self._step, "error", str(error), isinstance(error, TimeoutError))
        finally:
            # Take every vCPU out of KVM_RUN.
            for thread in self._threads.values():
                thread.join(0)
            self._ask(False)
            self._at.close()
            if self._machine is not self._first:
                self._machine.release()
                self._move(self._first)
        return Played(tuple(self._evidence), end)

    def _all(self) -> None:
        ops, at = self._program.ops, 0
        do = self._do  # looked up once, which costs more than a call
        while at < len(ops):
            at = self._quickly(at)
            if at < len(ops):
                self._step, op = ops[at]
                do(op)
                at += 1

    def _quickly(self, at: int) -> int:
        """Let the C code do what it can of the ops from ``at`` on; return the number of the first that is left."""
        if self._native:
            at, result = self._native.run(at, self._evidence)
            if result < 0 and at < len(self._program.ops):
                self._step, op = self._program.ops[at]
                if isinstance(op, p.Ioctl):
                    raise self._refused(op, -result)
        return at

    def _tell(self, value: Any) -> None:
        self._evidence.append((self._step, value))

    @ByType
    def _do(self, op: object) -> None:
        raise TypeError(f"no op: {op}")

    # Ioctls and buffers

    @_do.register
    def _(self, op: p.Ioctl) -> None:
        self._ioctl(op)

    @_do.register
    def _(self, op: p.Cpuid) -> None:
        leaves = pack_cpuid(leaves_of(op, self._machine.supported))
        self._ioctl(p.Ioctl(op.vcpu, KVM_SET_CPUID2, ctypes.addressof(leaves), op.result))

    def _ioctl(self, op: p.Ioctl) -> None:
        try:
            done = ioctl(self._at.fd(op.on), op.request, op.arg if isinstance(op.arg, int) else self._at.address(op.arg))
        except KvmError as error:
            if not op.result or error.passing:
                raise self._refused(op, error.errno or 0) from error
            done = -(error.errno or 0)
        if op.result:
            self.buffers[op.result][:8] = done.to_bytes(8, "little", signed=True)

    @staticmethod
    def _refused(op: p.Ioctl, error: int) -> KvmError:
        return KvmError(error, op.request, "vm" if op.on in (p.VM, p.NEW_VM) else f"vcpu {op.on}")

    def _get(self, place: p.Place, signed: bool = False) -> int:
        data = self.buffers[place.buffer][place.offset : place.offset + place.size]
        return int.from_bytes(data, "little", signed=signed)

    @_do.register
    def _(self, op: p.Put) -> None:
        place, mask = op.place, op.mask & (1 << 8 * op.place.size) - 1
        value = self._get(place) & ~mask | op.value & mask
        self.buffers[place.buffer][place.offset : place.offset + place.size] = value.to_bytes(place.size, "little")

    @_do.register
    def _(self, op: p.Sum) -> None:
        self._do(p.Put(op.place, self._get(op.of) + op.value))

    @_do.register
    def _(self, op: p.Apart) -> None:
        bits = 8 * op.place.size
        apart = (self._get(op.place) - self._get(op.of)) % (1 << bits)
        apart -= apart >> bits - 1 << bits
        self._tell(apart)
        if not op.least <= apart < op.most and op.otherwise.verdict:
            raise _End(op.otherwise, f": {apart}" if op.otherwise.verdict == "error" else "")

    @_do.register
    def _(self, op: p.Compare) -> None:
        value = self._value(op)
        self._tell(value)
        if not meets(value, op) and op.otherwise.verdict:
            raise _End(op.otherwise, f": {self._said(op, value)}" if op.otherwise.verdict == "error" else "")

    def _said(self, test: p.Compare, value: int) -> str:
        """The ``value`` that is there; where an ioctl failed, which one and with what error."""
        if test.place.buffer != "result" or value >= 0:
            return f"{value:#x}"
        before = takewhile(lambda op: op is not test, (op for _, op in self._program.ops))
        asked = [op for op in before if isinstance(op, (p.Ioctl, p.Cpuid)) and op.result][-1]
        return str(KvmError(-value, asked.request if isinstance(asked, p.Ioctl) else KVM_SET_CPUID2))

    def _value(self, test: p.Compare) -> int:
        signed = test.place.buffer == "result"
        value = self._get(test.place, signed)
        return value if signed else value & test.mask & (1 << 8 * test.place.size) - 1

    @_do.register
    def _(self, op: p.Look) -> None:
        self._tell(self._at.seen(op, self._at.reader(op.vcpu).read()))

    @_do.register
    def _(self, op: p.Irqfd) -> None:
        vm = self._machine.vm
        fd = vm.irqfd(op.gsi)
        try:
            os.eventfd_write(fd, 1)
        finally:
            vm.irqfd_deassign(op.gsi, fd)

    @_do.register
    def _(self, op: p.Rebuild) -> None:
        machine = self._machine.another()
        try:
            for old in self._machine.vm.memory:
                new = machine.vm.add_memory(old.slot, old.gpa, old.size, old.flags)
                new.write(old.gpa, old.read(old.gpa, old.size))
        except BaseException:
            machine.close()
            raise
        self._ask(False)
        if self._machine is not self._first:
            self._machine.release()
        self._move(machine)
        # A VMM goes on asking for what it asked for.
        self._ask(True)
        if self._reporter:
            self._reporter.move(machine)

    @_do.register
    def _(self, op: p.Listed) -> None:
        index = int.from_bytes(self.buffers[op.buffer][8:12], "little")
        if index in self._machine.vm.kvm.msr_index_list():
            self._ioctl(p.Ioctl(op.vcpu, KVM_SET_MSRS, op.buffer))

    # Guest memory

    def _memory(self, gpa: int, space: int) -> GuestMemory:
        if found := self._at.memory(gpa, space):
            return found
        raise ValueError(f"no guest memory at {gpa:#x}")

    @_do.register
    def _(self, op: p.Region) -> None:
        if not self._at.memory(op.gpa, op.slot >> 16):
            self._machine.vm.add_memory(op.slot, op.gpa, op.size, KVM_MEM_LOG_DIRTY_PAGES if op.logged else 0)

    @_do.register
    def _(self, op: p.Write) -> None:
        self._memory(op.gpa, op.space).write(op.gpa, op.data)

    @_do.register
    def _(self, op: p.Match) -> None:
        there = self._memory(op.gpa, 0).read(op.gpa, len(op.data))
        differ = [i for i, byte in enumerate(there) if byte != op.data[i]] if there != op.data else []
        self._tell((len(differ), op.gpa + differ[0] if differ else 0))
        if differ:
            raise _End(op.otherwise)

    @_do.register
    def _(self, op: p.Alike) -> None:
        pairs = enumerate(zip(self.buffers[op.buffer].raw, self.buffers[op.other].raw, strict=True))
        differ = [at for at, (one, other) in pairs if one != other]
        self._tell((len(differ), differ[0] if differ else 0))

    @_do.register
    def _(self, op: p.Peek) -> None:
        data = self._memory(op.gpa, op.space).read(op.gpa, op.to.size)
        self.buffers[op.to.buffer][op.to.offset : op.to.offset + op.to.size] = data

    # Running

    @_do.register
    def _(self, op: p.Enter) -> None:
        vcpu = self._vcpus[op.vcpu]
        quiet, expected = op.came.kind == "quiet", op.otherwise.verdict in ("fail", "")
        least = _SILENT_S if quiet else _EXPECTED_S if expected else self._timeout_s
        limit = min(self._timeout_s, max(least, _SILENT_EXITS * self.slowest_s if self.slowest_s else self._timeout_s))
        for _ in range(_MAX_RESUMED):
            try:
                seen = self._run(vcpu, limit)
            except KvmError as error:
                if not expected or error.passing:
                    raise
                self._meet(op.vcpu, Exited("errno", error.errno or 0, None, f"KVM_RUN: {error.name}"), op.came, op.otherwise)
                return
            if not seen or not (_passed(seen, op.came) or self._goes_on(vcpu, seen, op)):
                break
        self._judge(op.vcpu, seen, op.came, op.otherwise)

    def _run(self, vcpu: Vcpu, limit_s: float) -> Exit | None:
        begin = time.monotonic()
        try:
            seen = vcpu.run(limit_s)
        except RunTimeout:
            return None
        self.slowest_s = max(self.slowest_s, time.monotonic() - begin)
        return seen

    def _judge(self, id: int, seen: Exit | None, came: p.Came, otherwise: p.Otherwise) -> None:
        """Keep the exit as evidence, and end the program where another one should have come."""
        if seen:
            self._last[id] = seen
        self._meet(id, _exited(seen), came, otherwise)

    def _meet(self, id: int, exited: Exited, came: p.Came, otherwise: p.Otherwise) -> None:
        self._tell(exited)
        if not matches(exited, came) and otherwise.verdict:
            late = exited.kind == "quiet"
            self._end(id, otherwise, exited, late)

    def _end(self, id: int, otherwise: p.Otherwise, exited: Exited, late: bool) -> NoReturn:
        more = "" if otherwise.verdict != "error" else f": {exited.text} ({where(self._vcpus[id])})"
        raise _End(otherwise, more, late)

    def _goes_on(self, vcpu: Vcpu, seen: Exit, op: p.Enter) -> bool:
        """Let the vCPU continue if ``op`` allows it."""
        return op.blind and _answered(vcpu, seen) or self._resumed(vcpu, seen, op.resume)

    def _resumed(self, vcpu: Vcpu, seen: Exit, where: str | int) -> bool:
        """Go on after an instruction that KVM cannot emulate, at what a register or a word holds; False for any other exit."""
        if not where or seen.reason != KVM_EXIT_INTERNAL_ERROR:
            return False
        if isinstance(where, str) and seen.suberror != KVM_INTERNAL_ERROR_EMULATION:
            return False
        regs = vcpu.get_regs()
        at = self._memory(where, 0).read_int(where, 4) if isinstance(where, int) else getattr(regs, where)
        if regs.rip == at or self._machine.vm.memory_at(at) is None:
            return False
        regs.rip = at
        vcpu.set_regs(regs)
        return True

    @_do.register
    def _(self, op: p.Poll) -> None:
        limit, first = Limit(self._timeout_s), None
        while True:
            for read in op.read:
                self._do(read)
            value = self._value(op.test)
            first = value if first is None else first
            if meets(value, op.test) or op.changed and value != first:
                self._tell(value)
                return
            if limit.left() <= 0:
                self._tell(value)
                raise _End(op.test.otherwise, f": {value:#x} at the end", late=True)
            if op.vcpu is None:
                time.sleep(_LOOK_S)
            elif seen := self._run(self._vcpus[op.vcpu], _SLICE_S):
                self._last[op.vcpu] = seen
                self._tell(exited := _exited(seen))
                self._end(op.vcpu, op.test.otherwise, exited, False)

    @_do.register
    def _(self, op: p.Start) -> None:
        self._threads[op.vcpu] = Running(self._vcpus[op.vcpu], self._timeout_s)

    @_do.register
    def _(self, op: p.Join) -> None:
        seen = self._threads.pop(op.vcpu).join(_SILENT_S if op.came.kind == "quiet" else None)
        self._judge(op.vcpu, seen, op.came, op.otherwise)

    @_do.register
    def _(self, op: p.Finish) -> None:
        self._vcpus[op.vcpu].complete_io()

    @_do.register
    def _(self, op: p.Window) -> None:
        self._vcpus[op.vcpu].run_struct.request_interrupt_window = op.asked
        self._asking.add(op.vcpu)

    @_do.register
    def _(self, op: p.Reply) -> None:
        self._vcpus[op.vcpu].reply(op.data)

    @_do.register
    def _(self, op: p.Said) -> None:
        self.buffers[op.to.buffer][op.to.offset : op.to.offset + op.to.size] = self._last[op.vcpu].data[: op.to.size]

    # The reporting guest

    @_do.register
    def _(self, op: p.Install) -> None:
        target = self._targets[op.vcpu]
        self._reporter = guest.Reporter(self._machine, target.vcpu, target.layout, op.vector, op.apic_mode)
        if op.stands:
            self._reporter.seen["rax"] = self._told_value(op.vcpu)

    def _told_value(self, vcpu: int) -> int:
        return int.from_bytes(self._last[vcpu].data[:4], "little")

    @_do.register
    def _(self, op: p.Report) -> None:
        assert self._reporter
        self._tell(self._reporter.report(self._timeout_s, self._last[op.vcpu] if op.running else None))
        self._vcpus[op.vcpu].complete_io()

    # Measurements

    @_do.register
    def _(self, op: p.Do) -> None:
        self._tell(_MEASUREMENTS[op.name](self._machine, self._timeout_s, *op.stress_rounds))


def _exited(seen: Exit | None) -> Exited:
    if seen is None:
        return Exited("quiet", 0, None, "no exit")
    if seen.reason == KVM_EXIT_IO:
        out = seen.direction == KVM_EXIT_IO_OUT
        return Exited("out" if out else "in", seen.port, int.from_bytes(seen.data[:4], "little") if out else None, str(seen))
    if seen.reason == KVM_EXIT_MMIO:
        return Exited("mmio", seen.phys_addr, None, str(seen))
    return Exited("exit", seen.reason, None, str(seen))


def meets(value: int, test: p.Compare) -> bool:
    """Return True if ``value`` satisfies ``test``."""
    return (value in test.values) != test.unlike


def _passed(seen: Exit, came: p.Came) -> bool:
    """Return True if an exit may precede the awaited one."""
    return seen.reason == KVM_EXIT_IO and seen.direction == KVM_EXIT_IO_OUT and seen.port in came.past


def _answered(vcpu: Vcpu, seen: Exit) -> bool:
    """Complete a read of memory that does not exist; False for any other exit."""
    if seen.reason != KVM_EXIT_MMIO or seen.is_write:
        return False
    vcpu.reply(bytes(seen.len))
    return True


def matches(exited: Exited, came: p.Came) -> bool:
    """Return True if the exit is the awaited one."""
    if exited.kind != came.kind or exited.kind != "quiet" and exited.number != came.number:
        return False
    return came.value is None or exited.value is not None and not (exited.value ^ came.value) & came.mask
