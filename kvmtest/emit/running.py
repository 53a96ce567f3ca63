# SPDX-License-Identifier: GPL-2.0-only
"""The statements of a reproducer in C that let vCPUs run."""

from __future__ import annotations

import errno
from functools import singledispatchmethod

from kvmtest.emit.statements import Statements
from kvmtest.emit.variables import number
from kvmtest.scenario import program as p
from kvmtest.uapi.names import EXITS

__all__ = ("Running",)

#: Milliseconds that an exit is waited for, and that a vCPU is given to show that none comes.
_LIMIT, _SILENT, _SLICE = 1000, 100, 20
#: More ports than are named one by one.
_MANY = 3


class Running(Statements):
    """C code of the ops that enter a guest, or look at what it did."""

    @singledispatchmethod
    def op(self, op: object, last: bool) -> None:
        """Append what one op does."""
        super().op(op, last)

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
        """Append the check that an exit is ``came``."""
        holds = self.came(vcpu, came)
        if last:
            self.end("KVM_RUN as expected", holds, ["1"], "%d")
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
            named = isinstance(op.resume, str)
            again.append(f"{self.use('emulation')}({run}, reason)" if named else "reason == KVM_EXIT_INTERNAL_ERROR")
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
        self.started.add(op.vcpu)
        self.say(f"{self.use('start')}(&thread{op.vcpu}, {self.fd(op.vcpu)}, {self.run(op.vcpu)});")

    @op.register
    def _(self, op: p.Join, last: bool) -> None:
        self.declared.setdefault("reason", "int reason")
        limit = _SILENT if op.came.kind == "quiet" else _LIMIT
        self.started.discard(op.vcpu)
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
        loop = f"for (tries = 0; tries < {_LIMIT // _SLICE}; tries++) {{"
        self.say(loop, *(f"\t{line}" for line in inner), f"\tif ({holds})", "\t\tbreak;")
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
    def _(self, op: p.Window, last: bool) -> None:
        self.say(f"{self.run(op.vcpu)}->request_interrupt_window = {int(op.asked)};")

    @op.register
    def _(self, op: p.Reply, last: bool) -> None:
        run, value = self.run(op.vcpu), number(int.from_bytes(op.data, "little"))
        self.say(f"*(__u32 *)((char *){run} + {run}->io.data_offset) = {value};")

    @op.register
    def _(self, op: p.Irqfd, last: bool) -> None:
        self.say(f"{self.use('irqfd')}(vm, {op.gsi});")
