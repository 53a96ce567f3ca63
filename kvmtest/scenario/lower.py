# SPDX-License-Identifier: GPL-2.0-only
"""Lower a scenario to a program: the one place that knows what a step does."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from kvmtest import guests
from kvmtest.model.by_type import ByType
from kvmtest.scenario import memory, migrate, text, triggers
from kvmtest.scenario import step as s
from kvmtest.scenario.orders import ORDERS, Order
from kvmtest.scenario.places import RESULT, Places, fields
from kvmtest.scenario.program import (
    NEW_VM,
    VM,
    Apart,
    Came,
    Compare,
    Cpuid,
    Do,
    Enter,
    Finish,
    Install,
    Ioctl,
    Irqfd,
    Join,
    Look,
    Match,
    Op,
    Otherwise,
    Peek,
    Place,
    Poll,
    Program,
    Put,
    Reply,
    Report,
    Start,
    StressRounds,
    Sum,
    Window,
    Write,
)
from kvmtest.uapi import kvm as uapi
from kvmtest.x86.cpuid import ALL

__all__ = ("Planted", "Target", "lower", "of_plant")

_WORD = Place("word", 0, 4, "word")


class Planted(Protocol):
    """A plant as data: ``buffers`` of (section, request, contents) in order, for vCPU ``id``."""

    def writes(self, id: int) -> Iterable[tuple[str, int, bytes]]:
        """The ioctls that write it."""

    def before(self) -> tuple[tuple[int, int, int, bytes], ...]:
        """Memory that it needs: slot, guest-physical address, size, contents."""

    def entry(self) -> tuple[bytes, bytes, int] | None:
        """struct kvm_sregs and kvm_regs at the beginning of guest code, and the port of its end; None where ioctls do it all."""


class Target(Protocol):
    """The facts about the host and the VM that lowering needs; binding has them."""

    target: int
    other: int
    #: All vCPUs but ``other``.
    each: tuple[int, ...]
    stress_rounds: StressRounds

    def plant(self, who: int, name: str, apic_mode: str) -> Planted:
        """The plant of vCPU ``who``. Raises PlantRefused, KvmError."""

    def saved(self, who: int, order: Order) -> Mapping[str, Sequence[migrate.Part]]:
        """Return the parts that can be saved of vCPU ``who`` or the VM, by section. Raises KvmError."""

    def cpuid(self, who: int) -> Cpuid:
        """The op that gave vCPU ``who`` its CPUID."""


def lower(scenario: s.Scenario, bound: Target) -> Program:
    """The program of ``scenario`` on this host. Raises KeyError for an item that has no place, GuestMissing."""
    return _Lowering(scenario, bound).program()


def of_plant(step: s.Plant, bound: Target) -> Program:
    """The program that plants. Raises as `lower`."""
    return lower(s.Scenario("reset", "vmm-reset", "", (step,), ()), bound)


class _Lowering(Places):
    def __init__(self, scenario: s.Scenario, bound: Target) -> None:
        self.scenario, self.bound = scenario, bound
        super().__init__()
        self.ops: list[tuple[int, Op]] = []
        self.guest = ""
        self.started: set[int] = set()
        self.planted: dict[int, s.Plant] = {}
        #: vCPUs that stand after the OUT at the reset vector.
        self.restarted: set[int] = set()
        #: Those whose last exit's I/O is not complete, maybe.
        self.exited: set[int] = set()
        #: The last write of state that no ioctl reads.
        self.kept: dict[tuple[int, int], Ioctl] = {}
        #: Those that something was done to.
        self.touched = {bound.target}
        self._step = 0

    def program(self) -> Program:
        """Lower each step."""
        ops_of = self.ops_of  # looked up once, which costs more than a call
        for number, step in enumerate(self.scenario.steps):
            self._step = number
            self.emit(*ops_of(step))
        return Program(self.buffers, tuple(self.ops))

    def emit(self, *ops: Op) -> None:
        """Append ``ops`` to the current step's."""
        step, append, touched, kept = self._step, self.ops.append, self.touched, migrate.KEPT
        for op in ops:
            append((step, op))
            if isinstance(op, Ioctl):  # most are
                touched.add(op.on)
                if op.request in kept:
                    self.kept[op.on, op.request] = op
                continue
            if isinstance(op, (Compare, Put, Look)):
                continue
            if isinstance(op, (Enter, Start)):
                self.touched.add(op.vcpu)
            if isinstance(op, (Enter, Join)) or isinstance(op, Poll) and op.vcpu is not None:
                self.exited.add(op.vcpu)  # type: ignore[arg-type]
            elif isinstance(op, Finish):
                self.exited.discard(op.vcpu)

    def who(self, who: s.Who) -> int:
        """A vCPU's id; VM for ``vm``."""
        if isinstance(who, int):
            return who
        return {"target": self.bound.target, "other": self.bound.other, "vm": VM, "new-vm": NEW_VM}[who]

    def number(self, name: str, who: int) -> int:
        """A number by its name, or the sum of some."""
        guest, _, end = name.partition(".")
        if guest == "planter":
            return memory.planted_address(self.planted[who].name, end)
        return sum(memory.number(self.guest, one) for one in name.split("+"))

    # Conditions

    def came(self, condition: s.Condition) -> Came | None:
        """Return the exit that a condition waits for; None for other conditions."""
        if isinstance(condition, s.Word):
            port, *past = (memory.number(self.guest, f"PORT_{name}") for name in (condition.name, *condition.past))
            return Came("out", port, condition.value, condition.mask, tuple(past))
        if isinstance(condition, s.In):
            return Came("in", memory.number(self.guest, f"PORT_{condition.name}"))
        if isinstance(condition, s.Mmio):
            return Came("mmio", memory.number(self.guest, condition.name))
        if isinstance(condition, s.Exit):
            return Came("exit", condition.reason)
        if isinstance(condition, s.Fails):
            return Came("errno", condition.error)
        return Came("quiet") if isinstance(condition, s.Quiet) else None

    def check(self, condition: s.Condition, who: int, otherwise: Otherwise) -> list[Op]:
        """Look once whether ``condition`` holds."""
        if isinstance(condition, s.Words):
            return [op for word in condition.words for op in self.check(word, who, otherwise)]
        came = self.came(condition)
        if came:
            self.restarted.discard(who)
            if isinstance(condition, s.Word) and condition.name in ("RESET", "spine.RESET"):
                self.restarted.add(who)
            if who in self.started:
                self.started.discard(who)
                return [Join(who, came, otherwise)]
            return [Enter(who, came, otherwise)]
        if isinstance(condition, (s.Same, s.Written, s.Zero)):
            return [Look(who)]
        if isinstance(condition, s.Reached):
            # Each has a result; the judge sees which they are.
            alone = s.Is(condition.item, condition.value, condition.mask)
            return [op for id in condition.of for op in self.check(alone, id, Otherwise("", ""))]
        if isinstance(condition, s.Answer):
            return [Compare(RESULT, (condition.value,), otherwise)]
        if isinstance(condition, s.Past):
            place, read, _ = self.place(condition.item, who)
            if condition.of is None:
                return [*read, Apart(place, self.written(place), condition.least, condition.most, otherwise)]
            other, first, _ = self.place(condition.item, self.who(condition.of))
            return [*first, *read, Apart(place, other, condition.least, condition.most, otherwise)]
        if isinstance(condition, s.Filled):
            return [Match(condition.gpa, condition.data, otherwise)]
        read, test = self.read(condition, who, otherwise)
        return [*read, test]

    def read(self, condition: s.Condition, who: int, otherwise: Otherwise) -> tuple[list[Op], Compare]:
        """The ops that read what ``condition`` is about, and the comparison."""
        if isinstance(condition, s.Is):
            place, read, _ = self.place(condition.item, who)
            mask = condition.mask & (1 << 8 * place.size) - 1
            return read, Compare(place, (condition.value & mask,), otherwise, mask)
        if isinstance(condition, s.Differs):
            place, read, _ = self.place(condition.item, who)
            return read, Compare(place, (condition.value,), otherwise, unlike=True)
        if isinstance(condition, s.Changed):
            return [Peek(_WORD, condition.gpa)], Compare(_WORD, (condition.value,), otherwise, unlike=True)
        if isinstance(condition, s.Holds):
            return [self.peek(condition.word)], Compare(_WORD, (condition.value,), otherwise)
        raise TypeError(f"{condition} cannot be read")

    def peek(self, word: str) -> Peek:
        """Read a word of the guest's."""
        space, gpa = memory.address(self.guest, word)
        return Peek(_WORD, gpa, space)

    # Steps

    @ByType
    def ops_of(self, step: object) -> Iterable[Op]:
        """The ops of one step."""
        raise TypeError(f"no step: {step}")

    @ops_of.register
    def _(self, step: s.Set) -> Iterable[Op]:
        who = self.who(step.who)
        items = ((item, self.number(value, who) if isinstance(value, str) else value) for item, value in step.items)
        return self.set(items, who, step.why, check=step.check, keep=step.keep)

    @ops_of.register
    def _(self, step: s.Count) -> Iterable[Op]:
        place, read, write = self.place(step.item, self.who(step.who))
        kept = self.written(place)
        begin: list[Op] = [Put(place, 0)] if step.from_0 else []
        return [*read, *begin, Sum(kept, place, step.value), Sum(place, kept, 0), *write]

    @ops_of.register
    def _(self, step: s.SetBits) -> Iterable[Op]:
        place, read, write = self.place(step.item, self.who(step.who))
        kept = Otherwise("error", f"KVM did not set bits {step.mask:#x} of {step.item}")
        return [*read, Put(place, step.mask, step.mask), *write, *read, Compare(place, (step.mask,), kept, step.mask)]

    @ops_of.register
    def _(self, step: s.Cpuid) -> Iterable[Op]:
        given = self.bound.cpuid(self.who(step.who))._replace(result="result")
        other = ((1, "eax", ALL, step.signature),) if step.signature else ()
        return [given._replace(changes=(*given.changes, *other))]

    @ops_of.register
    def _(self, step: s.Irqfd) -> Iterable[Op]:
        return [Irqfd(step.gsi)]

    @ops_of.register
    def _(self, step: s.Call) -> Iterable[Op]:
        arg: str | int = step.arg if isinstance(step.arg, int) else self.buffer(step.kind or "arg", step.kind, step.arg)
        return [Ioctl(self.who(step.who), step.request, arg, "result" if step.keep else "")]

    @ops_of.register
    def _(self, step: s.Plant) -> Iterable[Op]:
        if step.who == "each":
            return [op for id in self.bound.each for op in self.ops_of(step._replace(who=id))]
        who = self.who(step.who)
        self.planted[who] = step
        plant = self.bound.plant(who, step.name, step.apic_mode)
        ops: list[Op] = []
        for slot, gpa, size, contents in plant.before():
            ops += [memory.region(slot, gpa, size), Write(gpa, contents)]
        writes = list(plant.writes(who))
        if step.only:
            writes = [one for section in step.only for one in writes if one[0] == section]
        for section, request, contents in writes:
            if step.keep and section == "sregs":
                _, at, size = fields()["efer"]
                efer = int.from_bytes(contents[at : at + size], "little") | step.keep
                contents = contents[:at] + efer.to_bytes(size, "little") + contents[at + size :]
            ops.append(Ioctl(who, request, self.buffer(f"plant_{section}{who}", section, contents)))
        if (entry := plant.entry()) and not step.only:
            sregs, regs, port = entry
            place, read, _ = self.place("cr0", who)
            cr0 = int.from_bytes(sregs[place.offset : place.offset + place.size], "little")
            refused = Otherwise("skip", f"KVM_SET_SREGS did not keep CR0 {cr0:#x}, in 32-bit protected mode")
            stopped = Otherwise("error", "the planting guest did not finish")
            ops += [
                Ioctl(who, uapi.KVM_SET_SREGS, self.buffer(f"entry_sregs{who}", "kvm_sregs", sregs)),
                *read,
                Compare(place, (cr0,), refused),
                Ioctl(who, uapi.KVM_SET_REGS, self.buffer(f"entry_regs{who}", "kvm_regs", regs)),
                Enter(who, Came("out", port), stopped, "rbp"),
                Finish(who),
            ]
        return ops

    @ops_of.register
    def _(self, step: s.Load) -> Iterable[Op]:
        ops = list(memory.load(step.guest))
        if step.guest != memory.SMRAM:
            self.guest = step.guest
        for name, value in step.words:
            ops += self.ops_of(s.Poke(name, value))
        return ops

    @ops_of.register
    def _(self, step: s.Poke) -> Iterable[Op]:
        space, gpa = memory.address(self.guest, step.at) if isinstance(step.at, str) else (0, step.at)
        value = memory.number(self.guest, step.value) if isinstance(step.value, str) else step.value
        if isinstance(value, s.Image):
            value = memory.image(value.name, value.args)
        return [Write(gpa, value.to_bytes(4, "little") if isinstance(value, int) else value, space)]

    @ops_of.register
    def _(self, step: s.Fill) -> Iterable[Op]:
        return [memory.region(step.slot, step.gpa, len(step.data), step.logged), Write(step.gpa, step.data)]

    @ops_of.register
    def _(self, step: s.Page) -> Iterable[Op]:
        return memory.page(self.guest, step.vector)

    @ops_of.register
    def _(self, step: s.Resume) -> Iterable[Op]:
        return [memory.resume(self.planted[self.who(step.who)].name, step.end)]

    @ops_of.register
    def _(self, step: s.Until) -> Iterable[Op]:
        if step.who == "each":
            return [op for id in self.bound.each for op in self.ops_of(step._replace(who=id))]
        who, condition = self.who(step.who), step.condition
        otherwise = Otherwise("error", step.note or f"not seen: {text.condition(condition, self.guest)}")
        if self.came(condition) or isinstance(condition, s.Words):
            return self.check(condition, who, otherwise)
        vcpu = None if who in self.started or not step.run else who
        if isinstance(condition, s.Moves):
            return [Poll((self.peek(condition.word),), Compare(_WORD, (), otherwise), vcpu, changed=True)]
        read, test = self.read(condition, who, otherwise)
        return [Poll(tuple(op for op in read if isinstance(op, (Ioctl, Peek))), test, vcpu)]

    @ops_of.register
    def _(self, step: s.Require) -> Iterable[Op]:
        return self.check(step.condition, self.who(step.who), Otherwise("skip" if step.skip else "error", step.why))

    @ops_of.register
    def _(self, step: s.Expect) -> Iterable[Op]:
        return self.check(step.condition, self.who(step.who), Otherwise("fail" if step.ends else "", ""))

    @ops_of.register
    def _(self, step: s.Sender) -> Iterable[Op]:
        bsp = self.scenario.target == "ap"
        sent = triggers.sender(self.bound.other, bsp, step.icr, step.destination, step.apic_mode)
        return [op for one in sent for op in self.ops_of(one)]

    @ops_of.register
    def _(self, step: s.Event) -> Iterable[Op]:
        return ()

    @ops_of.register
    def _(self, step: s.Send) -> Iterable[Op]:
        who = self.who(step.to)
        plant = self.planted.get(who, s.Plant(""))
        other = self.bound.other if who == self.bound.target else self.bound.target
        bsp = self.scenario.target == "bsp" if who == self.bound.target else self.scenario.target != "bsp"
        to = triggers.To(who, other, bsp, plant.apic_mode, plant.name, who in self.started)
        return [op for one in triggers.TRIGGERS[step.by].steps(step, to) for op in self.ops_of(one)]

    @ops_of.register
    def _(self, step: s.Settle) -> Iterable[Op]:
        return self.place("mp_state", self.who(step.who))[1]

    @ops_of.register
    def _(self, step: s.Start) -> Iterable[Op]:
        who = self.who(step.who)
        if who in self.started:
            raise ValueError(f"vCPU {who} is in KVM_RUN already")
        self.started.add(who)
        return [Start(who)]

    @ops_of.register
    def _(self, step: s.Complete) -> Iterable[Op]:
        return [Finish(self.who(step.who))]

    @ops_of.register
    def _(self, step: s.Window) -> Iterable[Op]:
        return [Window(self.who(step.who), step.asked)]

    @ops_of.register
    def _(self, step: s.Give) -> Iterable[Op]:
        return [Reply(self.who(step.who), step.data)]

    @ops_of.register
    def _(self, step: s.Observe) -> Iterable[Op]:
        if step.who == "each":
            return [Look(id) for id in self.bound.each]
        who = self.who(step.who)
        if who in self.restarted:
            return [Finish(who), Look(who, memory.SIZE_OF_OUT)]
        return [Look(who)]

    @ops_of.register
    def _(self, step: s.Reporter) -> Iterable[Op]:
        guests.load("spine")  # a guest that is missing is a skip, which only binding can know
        return [Install(self.bound.target, step.vector, step.apic_mode, step.stands)]

    @ops_of.register
    def _(self, step: s.Guest) -> Iterable[Op]:
        return [Report(self.bound.target, step.running)]

    @ops_of.register
    def _(self, step: s.Migrate) -> Iterable[Op]:
        # The others are as an earlier case left them, which is nothing to go on with.
        order, ids = ORDERS[step.order], [id for id in dict.fromkeys((*self.bound.each, self.bound.other)) if id in self.touched]
        running = [id for id in ids if id in self.started]
        stopped = Otherwise("error", "the vCPU to migrate left KVM_RUN with an exit")
        finished = [Finish(id) for id in ids if id in self.exited or id in self.started]
        vcpus = {id: self.bound.saved(id, order) for id in ids}
        moved = migrate.ops(order, vcpus, self.bound.saved(VM, order), self.kept.values(), self.buffer)
        return [*(Join(id, Came("quiet"), stopped) for id in running), *finished, *moved, *map(Start, running)]

    @ops_of.register
    def _(self, step: s.Do) -> Iterable[Op]:
        return [Do(step.name, self.bound.stress_rounds)]
