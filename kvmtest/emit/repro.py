# SPDX-License-Identifier: GPL-2.0-only
"""A reproducer: the program of a case up to one departure, on a VM of its own, with nothing hidden in its ops.

What a plant writes becomes a read, single fields and a write; what reads a whole vCPU becomes the ioctls that do; the last ioctl
reads what departs, or the last op is what the vCPU does otherwise.
"""

from __future__ import annotations

from typing import NamedTuple, TypeGuard

from kvmtest.emit import code, reporter
from kvmtest.emit.fields import members
from kvmtest.emit.several import Several, bits, rests_on
from kvmtest.emit.wanted import Source, Together, Wanted, Witness
from kvmtest.scenario import program as p
from kvmtest.scenario.places import SECTIONS
from kvmtest.state import guest_view
from kvmtest.state.layout import Field, Layout
from kvmtest.state.snapshot import ROOM
from kvmtest.state.snapshot import Buffer as Read
from kvmtest.uapi import kvm as uapi

__all__ = ("MAY_FAIL", "Check", "Leaf", "NoRepro", "Repro", "body", "buffers_of")

#: KVM_SET_*: what reads the same section, and the structure's name.
_READ = {put: (get, struct.__name__) for get, put, struct in SECTIONS.values()} | {
    uapi.KVM_SET_XSAVE: (uapi.KVM_GET_XSAVE, "kvm_xsave")
}
_STRUCTS = {get: struct.__name__ for get, _, struct in SECTIONS.values()} | {
    uapi.KVM_GET_XSAVE: "kvm_xsave",
    uapi.KVM_GET_XSAVE2: "kvm_xsave",
    uapi.KVM_GET_CPUID2: "kvm_cpuid2",
}
_MSR_HEAD, _MSR = 8, 16
#: The buffer for the result of an ioctl that KVM may refuse, which nothing compares.
MAY_FAIL = "refused"
_WORD = 8
#: The beginnings of the names of buffers with a whole vCPU: a scenario's own structures are written as they are.
_WHOLE = ("plant_", "entry_")
#: Sections whose reading changes nothing.
_WITHOUT_EFFECT = ("msrs", "cpuid", "ssp", "xsave")


class NoRepro(RuntimeError):
    """There is no reproducer of this; the text says why."""


class Leaf(NamedTuple):
    """A register of a CPUID leaf, used instead of a Place: its position depends on the host."""

    buffer: str
    function: int
    index: int  # type: ignore[assignment]  # tuple has a method of this name
    register: str


class Check(NamedTuple):
    """A test at the end of a reproducer: ``item`` must have one of ``values`` in the bits of ``mask``.

    ``component`` is the bit of XSTATE_BV that says whether the place is valid: if it is clear, the item has the value ``init``.
    ``ahead`` is how much larger than the item's value the place's is.
    """

    item: str
    place: p.Place | Leaf | Several
    values: tuple[int, ...]
    mask: int
    component: int | None = None
    init: int = 0
    ahead: int = 0


def buffers_of(check: Check) -> tuple[str, ...]:
    """The buffers that ``check`` looks at."""
    place = check.place
    return tuple(one.place.buffer for _, one in place.of) if isinstance(place, Several) else (place.buffer,)


class Repro(NamedTuple):
    """The ops that make the ``vm``, those of the ``body``, and the checks after them.

    Without ``checks`` the last op says what has to happen. ``pinned`` are the numbers of ops of the body that stay whatever is
    left out, since they prove what the departure rests on: the event, and what it found. ``bits`` has the numbers of those of
    which only some bits of the written value stay, and these. ``target`` is the vCPU that it is about; of the changes to its
    CPUID those of the functions and registers ``cpuid`` stay. ``pinned_vm`` are the numbers of ops of the ``vm`` that stay.
    ``whole`` are ops that write the very value that is expected.
    """

    vm: p.Program
    body: p.Program
    checks: tuple[Check, ...] = ()
    pinned: frozenset[int] = frozenset()
    bits: frozenset[tuple[int, int]] = frozenset()
    target: int = 0
    cpuid: frozenset[tuple[int, str]] = frozenset()
    pinned_vm: frozenset[int] = frozenset()
    whole: frozenset[p.Op] = frozenset()


class _Body:
    def __init__(self, program: p.Program, sources: dict[int, Source], xcr0: int, item: str, whole: bool) -> None:
        self.program, self.sources, self.whole = program, sources, whole
        #: The item that the reporting guest reads, and the local APIC's mode.
        self.xcr0, self.item, self.apic_mode = xcr0, item, "xapic"
        self.buffers: dict[str, p.Buffer] = {}
        self.ops: list[tuple[int, p.Op]] = []
        self.pinned: set[int] = set()
        self.step = 0
        #: The buffers that ioctls have filled so far.
        self.filled: set[str] = set()
        #: The last contents that an ioctl wrote to a vCPU.
        self.written: dict[tuple[int, int], bytes] = {}

    def emit(self, *ops: p.Op) -> None:
        self.ops += [(self.step, op) for op in ops]

    def buffer(self, name: str, kind: str, contents: bytes) -> str:
        """A buffer of that name; another one if the name is used for other contents."""
        made, unique, number = p.Buffer(kind, contents), name, 1
        while self.buffers.setdefault(unique, made) != made:
            number += 1
            unique = f"{name}_{number}"
        return unique

    def op(self, op: p.Op) -> None:
        """Append one op of the program, in ops that hide nothing."""
        if isinstance(op, p.Look):
            self.look(op)
        elif isinstance(op, p.Install):
            self.apic_mode = op.apic_mode
            for one in reporter.install(op.vector, self.item, op.apic_mode, self.xcr0):
                self.op(one)
        elif isinstance(op, p.Report):
            self.emit(*reporter.report(op.vcpu, "", self.sources[op.vcpu].layout, self.apic_mode, _NOWHERE))
        elif isinstance(op, p.Do):
            raise NoRepro("it is not a list of ops: threads run against each other in a random order")
        elif isinstance(op, p.Ioctl) and isinstance(op.arg, str):
            self.ioctl(op, op.arg)
        elif isinstance(op, p.Write) and len(op.data) > _WORD:
            self.emit(*(p.Write(gpa, data, op.space) for gpa, data in code.pieces(op.gpa, op.data)))
        else:
            self.keep(op)

    def keep(self, op: p.Op) -> None:
        """Append ``op`` as it is."""
        for name in p.buffers_of(op):
            self.buffers[name] = self.program.buffers[name]
        self.emit(op)

    def ioctl(self, op: p.Ioctl, arg: str) -> None:
        """An ioctl with a structure: one that writes a section whole becomes the fields that differ from those of a new vCPU."""
        kept = self.program.buffers[arg]
        source = self.sources.get(op.on)
        if op.request == uapi.KVM_SET_MSRS and source and arg not in self.filled:
            self.msrs(op, kept.contents)
        elif op.request in _READ and source and arg not in self.filled and arg.startswith(_WHOLE):
            self.fields(op, kept)
        else:
            self.filled.add(arg)
            self.keep(op)

    def fields(self, op: p.Ioctl, kept: p.Buffer) -> None:
        """Read a section, change the fields in which ``kept`` differs from that of a new vCPU, and write it.

        Of one that was written before, or after guest code, all fields are, and of each if it is to be ``whole``; of the XSAVE
        area those alone that are others now.
        """
        get, kind = _READ[op.request]
        section = next((name for name, (_, put, _) in SECTIONS.items() if put == op.request), "xsave")
        old = self.sources[op.on].baseline.sections.get(section, b"").ljust(len(kept.contents), b"\0")
        name = self.buffer(f"{section}{op.on}", kind, bytes(len(kept.contents)))
        self.filled.add(name)
        self.emit(p.Ioctl(op.on, get, name))
        last = self.written.get((op.on, op.request), old)
        ran = any(isinstance(one, (p.Enter, p.Start)) for _, one in self.ops)
        again = section != "xsave" and (self.whole or ran or (op.on, op.request) in self.written)
        self.written[op.on, op.request] = kept.contents
        for one in members(kind, len(kept.contents)):
            now, *others = (data[one.offset : one.offset + one.size] for data in (kept.contents, old, last))
            if again or any(now != other for other in others):
                self.emit(p.Put(p.Place(name, one.offset, one.size), int.from_bytes(now, "little")))
        self.emit(p.Ioctl(op.on, op.request, name, op.result))
        if op.result:
            self.buffers[op.result] = self.program.buffers[op.result]

    def msrs(self, op: p.Ioctl, contents: bytes) -> None:
        """Write each MSR by itself."""
        for at in range(_MSR_HEAD, len(contents), _MSR):
            entry = contents[at : at + _MSR]
            name = self.buffer(f"set_msr_{int.from_bytes(entry[:4], 'little'):x}", "kvm_msrs", _one(entry))
            self.emit(p.Ioctl(op.on, uapi.KVM_SET_MSRS, name, op.result))
        if op.result:
            self.buffers[op.result] = self.program.buffers[op.result]

    def look(self, op: p.Look) -> None:
        """Read a whole vCPU, and look at nothing: that has effects of its own."""
        for read in self.sources[op.vcpu].reads:
            self.reads(op.vcpu, read)

    def reads(self, vcpu: int, read: Read) -> None:
        """Read one section, unless reading it has no effect."""
        if read.section in _WITHOUT_EFFECT:
            return
        self.section(vcpu, read.section)

    def read(self, vcpu: int, read: Read) -> str:
        """The buffer into which ``read`` reads."""
        kind = _STRUCTS.get(read.request, "kvm_msrs" if read.section == "msrs" else "ssp")
        name = self.buffer(f"{read.section}{vcpu}", kind, read.data.raw)
        self.filled.add(name)
        return name

    def section(self, vcpu: int, section: str) -> None:
        """Read a section that items are looked up in."""
        read = next(one for one in self.sources[vcpu].reads if one.section == section)
        name = self.read(vcpu, read)
        if section == "nested":
            # KVM reads the size of the buffer from `size`, and writes the used size back.
            self.emit(p.Put(p.Place(name, ROOM, 4), read.size))
        self.emit(p.Ioctl(vcpu, read.request, name))

    def check(self, vcpu: int, item: str, values: tuple[int, ...], mask: int | None = None, ahead: int = 0) -> Check:
        """Return a check of ``item`` in the section that was read last; an MSR is read by itself."""
        layout = self.sources[vcpu].layout
        field = layout.fields[item]
        judged = (1 << 8 * field.size) - 1 if mask is None else mask
        if field.section == "msrs":
            index = layout.msrs[(field.offset - 8) // _MSR]
            name = self.buffer(f"msr_{index:x}", "kvm_msrs", _one(index.to_bytes(_MSR, "little")))
            self.emit(p.Ioctl(vcpu, uapi.KVM_GET_MSRS, name))
            return Check(item, p.Place(name, _MSR_HEAD + 8, 8), values, judged)
        name = self.read(vcpu, next(one for one in self.sources[vcpu].reads if one.section == field.section))
        if field.section == "cpuid":
            return Check(item, _leaf(name, layout, field), values, judged)
        head = 16 if field.section == "ssp" else 0
        place = p.Place(name, field.offset + head, field.size)
        return Check(item, place, values, judged, field.component, field.init, ahead)

    def reported(self, op: p.Report, item: str, values: tuple[int, ...], mask: int | None) -> Check:
        """Let the guest report ``item``."""
        name = self.buffer("reported", "u64", bytes(8))
        ops = list(reporter.report(op.vcpu, item, self.sources[op.vcpu].layout, self.apic_mode, p.Place(name, 0, _WORD)))
        self.emit(*(ops[1:] if op.running and item == "rax" else ops))
        judged = guest_view.mask(item) & (1 << 8 * _WORD) - 1
        return Check(item, p.Place(name, 0, _WORD, item), values, judged if mask is None else judged & mask)

    def checks(self, op: p.Look, wanted: Wanted) -> tuple[Check, ...]:
        """Read the vCPU up to the last section that has one of the items."""
        layout, found = self.sources[op.vcpu].layout, dict[str, list[Check]]()
        left = {name: layout.fields[name].section for name, *_ in wanted.items if name in layout.fields}
        if not left:
            raise NoRepro(f"no ioctl of this KVM reads {', '.join(name for name, *_ in wanted.items)}")
        for read in self.sources[op.vcpu].reads:
            here = [one for one in wanted.items if left.get(one[0]) == read.section]
            if here and read.section not in found:
                if read.section != "msrs":
                    self.section(op.vcpu, read.section)
                checks = [self.check(op.vcpu, *one, op.back if one[0] == "rip" else 0) for one in here]
                found[read.section] = checks
            elif not here:
                self.reads(op.vcpu, read)
            if found.keys() == set(left.values()):
                break
        return tuple(check for checks in found.values() for check in checks)


def _leaf(buffer: str, layout: Layout, field: Field) -> Leaf:
    number, at = divmod(field.offset - 8, 40)
    function, index = layout.leaves[number]
    return Leaf(buffer, function, index, {12: "eax", 16: "ebx", 20: "ecx", 24: "edx"}[at])


def _one(entry: bytes) -> bytes:
    return (1).to_bytes(_MSR_HEAD, "little") + entry


def body(
    program: p.Program, sources: dict[int, Source], wanted: Wanted, target: int, xcr0: int, *, whole: bool = False
) -> Repro:
    """The reproducer of what ``wanted`` says of ``program``; its ``vm`` is still empty.

    ``xcr0`` is what the reporting guest sets. With ``whole`` all fields of a section are written, also those that a new vCPU has
    so, since one ioctl may change what another one reads. Raises NoRepro, Unreportable, GuestMissing.
    """
    made = _Body(program, sources, xcr0, wanted.items[0][0] if wanted.guest and wanted.items else "", whole)
    ops = [(number, op) for number, op in program.ops if number <= wanted.step]
    seen = [at for at, (_, op) in enumerate(ops) if isinstance(op, p.Look) and op.vcpu == target]
    last, before = (seen[-1:] or [-1])[0], ((seen[-1:] if wanted.guest else seen[-2:-1]) or [-1])[0]
    checks: tuple[Check, ...] = ()
    compares: list[p.Compare] = []
    for at, (number, op) in enumerate(ops):
        made.step = number
        if wanted.guest and number == wanted.step and isinstance(op, p.Report):
            if wanted.items:
                checks = (made.reported(op, *wanted.items[0]),)
            else:
                made.emit(reporter.begins(op.vcpu))
            break
        if wanted.items and not wanted.guest and at == last:
            assert isinstance(op, p.Look)
            if wanted.witness:
                _happened(made, target, wanted.witness, op)
            checks = made.checks(op, wanted)
            break
        if wanted.together and number == wanted.step and _undecided(op):
            compares.append(op)
            made.buffers[op.place.buffer] = program.buffers[op.place.buffer]
            continue
        made.op(_decides(op) if at == len(ops) - 1 else _on_the_way(op))
        if at == before:
            _found(made, target, wanted)
    if wanted.together:
        return _together(made, wanted.together, compares, target)
    if wanted.items and not checks:
        raise NoRepro("no ioctl reads the vCPU there")
    if not checks and not (made.ops and isinstance(made.ops[-1][1], _DECIDING)):
        raise NoRepro("no single op shows if it is as expected")
    return Repro(p.Program({}, ()), p.Program(made.buffers, tuple(made.ops)), checks, frozenset(made.pinned), target=target)


def _together(made: _Body, wanted: Together, compares: list[p.Compare], target: int) -> Repro:
    """The reproducer of what holds of several vCPUs."""
    place = Several(tuple(zip(wanted.of, compares, strict=True)), wanted.event)
    check = Check(_REACHED, place, tuple(map(bits, wanted.either)), bits(wanted.of))
    program = p.Program(made.buffers, tuple(made.ops))
    return Repro(p.Program({}, ()), program, (check,), rests_on(program, wanted.event), target=target)


#: The name for the vCPUs together.
_REACHED = "vCPUs that got it, a bit for each id"
#: The place of a comparison that is still to be made.
_NOWHERE = p.Place("", 0, 0)
_UNLIKE = p.Otherwise("skip", "it has this value before the event already")


#: Ops that a program can end with.
_DECIDING = (p.Compare, p.Apart, p.Match, p.Enter, p.Join, p.Poll)


def _decides(op: p.Op) -> p.Op:
    """Append the last op, which ends the program if its check fails."""
    if isinstance(op, p.Poll):
        return op._replace(test=op.test._replace(otherwise=p.Otherwise("fail", "")))
    if isinstance(op, _DECIDING):
        return op._replace(otherwise=p.Otherwise("fail", ""))
    return op


def _undecided(op: p.Op) -> TypeGuard[p.Compare]:
    """A comparison whose result is noted, and that ends nothing."""
    return isinstance(op, p.Compare) and not op.otherwise.verdict


def _on_the_way(op: p.Op) -> p.Op:
    """An op before the last one: that another expectation does not hold is not a departure to show."""
    if isinstance(op, (p.Compare, p.Apart, p.Match, p.Enter, p.Join)) and op.otherwise.verdict == "fail":
        return op._replace(otherwise=p.Otherwise("error", "something else departs before it"))
    return op


def _found(made: _Body, target: int, wanted: Wanted) -> None:
    """Check the state before the event: the items that must be unchanged, and a witness, which a new vCPU could pass as."""
    for item, value in wanted.planted:
        why = f"KVM does not keep {value:#x} in {item}"
        _proven(made, target, item, p.Compare(_NOWHERE, (value,), p.Otherwise("skip", why)))
    witness, source = wanted.witness, made.sources[target]
    if witness and source.baseline.get(source.layout, witness.item) == witness.after:
        _proven(made, target, witness.item, p.Compare(_NOWHERE, (witness.after,), _UNLIKE, unlike=True))


def _happened(made: _Body, target: int, witness: Witness, look: p.Look) -> None:
    """Read the state that makes KVM accept a pending event, and the item that shows that it did."""
    why = f"the event did not happen: {witness.item} is not {witness.after:#x}"
    ahead = look.back if witness.item == "rip" else 0
    if witness.item != "mp_state":
        read = made.sources[target].reads[0]
        made.reads(target, read)
        made.pinned.add(len(made.ops) - 1)
    _proven(made, target, witness.item, p.Compare(_NOWHERE, (witness.after + ahead,), p.Otherwise("skip", why)))


def _proven(made: _Body, target: int, item: str, compare: p.Compare) -> None:
    """Read ``item`` and compare it, as a precondition of the expectation."""
    before = len(made.ops)
    section = made.sources[target].layout.fields[item].section
    if section != "msrs":
        made.section(target, section)
    check = made.check(target, item, ())
    if isinstance(check.place, p.Place) and check.component is None:
        made.emit(compare._replace(place=check.place))
    made.pinned.update(range(before, len(made.ops)))
