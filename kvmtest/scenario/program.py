# SPDX-License-Identifier: GPL-2.0-only
"""A program: a scenario bound to a host, lowered to a flat list of ops. The only thing that is executed.

Ops work on buffers, each of which is one structure of <linux/kvm.h> or plain bytes, on guest memory and on the struct kvm_run of
vCPUs. Everything in them is a number, a text or bytes, so that a program can be sent, printed and kept.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = (
    "Alike",
    "Apart",
    "DEFAULT_ROUNDS",
    "DENIED",
    "NEW_VM",
    "Sum",
    "VM",
    "Buffer",
    "Came",
    "Cpuid",
    "Create",
    "Do",
    "StressRounds",
    "Enter",
    "Finish",
    "Install",
    "Ioctl",
    "Irqfd",
    "Join",
    "Listed",
    "Look",
    "MEASUREMENTS",
    "Match",
    "Op",
    "Otherwise",
    "Peek",
    "Place",
    "Poll",
    "Program",
    "Put",
    "Rebuild",
    "Region",
    "Reply",
    "Report",
    "Said",
    "Start",
    "Compare",
    "Window",
    "Write",
    "buffers_of",
)

#: In the place of a vCPU's id.
VM = -1
#: A VM beside it, which has no vCPU; it is created when an op first names it.
NEW_VM = -2


#: The kind of a buffer that becomes a struct kvm_msr_filter: indexes of 32 bits of the MSRs that it denies.
DENIED = "denied-msrs"


class StressRounds(NamedTuple):
    """Size of the stress case: the number of ``rounds``, and the ``seed`` of their random order."""

    rounds: int = 24
    seed: int = 1


DEFAULT_ROUNDS = StressRounds()


class Buffer(NamedTuple):
    """Memory that ioctls read and write: ``kind`` is the structure's name, ``contents`` are the initial ones."""

    kind: str
    contents: bytes


class Place(NamedTuple):
    """``size`` bytes at ``offset`` of ``buffer``, little-endian; ``name`` is the field's."""

    buffer: str
    offset: int
    size: int
    name: str = ""


class Otherwise(NamedTuple):
    """The end of a program if an op's check fails: ``error``, ``skip`` or ``fail``, with the reason.

    With an empty ``verdict`` the program goes on.
    """

    verdict: str
    why: str


class Came(NamedTuple):
    """One exit to userspace that is waited for.

    ``kind`` is ``out``, ``in``, ``mmio``, ``exit``, ``quiet`` or ``errno``, where KVM_RUN fails; ``number`` the port, the
    guest-physical address, KVM_EXIT_* or the errno. ``value`` is what an OUT has to write in the bits of ``mask``; None is any.
    ``past`` are ports to which an OUT may come before.
    """

    kind: str
    number: int = 0
    value: int | None = None
    mask: int = (1 << 32) - 1
    past: tuple[int, ...] = ()


class Ioctl(NamedTuple):
    """ioctl(2) ``request`` on the VM or a vCPU with the address of buffer ``arg``, or a number.

    Its result, or -errno, goes to the eight bytes of buffer ``result`` where that is named; else an error ends the program.
    """

    on: int
    request: int
    arg: str | int = 0
    result: str = ""


class Create(NamedTuple):
    """KVM_CREATE_VCPU of the id ``vcpu``."""

    vcpu: int


class Cpuid(NamedTuple):
    """KVM_SET_CPUID2 of ``vcpu`` with what KVM_GET_SUPPORTED_CPUID gives.

    ``changes`` are registers that get another value, in every index of the leaf: function, register, mask, value. ``only`` are
    the functions of the leaves that it gets, all of them where it is empty. ``result`` is as an Ioctl's.
    """

    vcpu: int
    changes: tuple[tuple[int, str, int, int], ...]
    only: tuple[int, ...] = ()
    result: str = ""


class Put(NamedTuple):
    """Write the bits of ``mask`` of ``value`` to ``place``."""

    place: Place
    value: int
    mask: int = -1


class Sum(NamedTuple):
    """Write the value at ``of`` plus ``value`` to ``place``, modulo its size."""

    place: Place
    of: Place
    value: int


class Apart(NamedTuple):
    """End the program unless ``place`` is from ``least`` on and less than ``most`` past ``of``; how far it is, is evidence."""

    place: Place
    of: Place
    least: int
    most: int
    otherwise: Otherwise


class Compare(NamedTuple):
    """End the program unless the bits of ``mask`` at ``place`` are one of ``values``; the value is evidence.

    ``unlike`` is whether they have to be none of them.
    """

    place: Place
    values: tuple[int, ...]
    otherwise: Otherwise
    mask: int = -1
    unlike: bool = False


class Region(NamedTuple):
    """Give the VM memory: ``size`` bytes at ``gpa`` in ``slot``, where it has none there.

    ``logged`` is whether KVM logs which of its pages are written.
    """

    slot: int
    gpa: int
    size: int
    logged: bool = False


class Rebuild(NamedTuple):
    """Replace the VM with a new one.

    It is made as the first one was, from KVM_CREATE_VM on, and gets the same memory slots, with a copy of what is in them. Its
    vCPUs have the same ids. What comes after this op is about the new VM.
    """


class Listed(NamedTuple):
    """KVM_SET_MSRS of ``vcpu`` with ``buffer``, one MSR, where KVM_GET_MSR_INDEX_LIST names it: a VMM saves those."""

    vcpu: int
    buffer: str


class Write(NamedTuple):
    """Write ``data`` to guest memory at ``gpa``, of the address space ``space``."""

    gpa: int
    data: bytes
    space: int = 0


class Match(NamedTuple):
    """End the program unless guest memory at ``gpa`` is ``data``; how many bytes differ, and the first one, is evidence."""

    gpa: int
    data: bytes
    otherwise: Otherwise


class Alike(NamedTuple):
    """Compare the bytes of ``buffer`` with those of ``other``; how many differ, and the first one's offset, is evidence."""

    buffer: str
    other: str


class Peek(NamedTuple):
    """Copy guest memory at ``gpa`` to ``to``."""

    to: Place
    gpa: int
    space: int = 0


class Enter(NamedTuple):
    """KVM_RUN until the vCPU's next exit, which has to be ``came``; what came is evidence.

    ``resume`` is where the vCPU goes on after an instruction that KVM cannot emulate: the name of a register that holds the
    address; or, after any internal error, the guest-physical address of a word that does. ``blind`` is whether reads of memory
    that is not there are completed with 0 on the way. A ``quiet`` vCPU is one that makes no exit for as long as its slowest one
    took, many times over.
    """

    vcpu: int
    came: Came
    otherwise: Otherwise
    resume: str | int = ""
    blind: bool = False


class Poll(NamedTuple):
    """Do ``read`` again and again until ``test`` holds; between two looks let ``vcpu`` run, or None.

    An exit of the vCPU, or the end of the time, ends the program as the test says.
    """

    read: tuple[Ioctl | Peek, ...]
    test: Compare
    vcpu: int | None = None
    changed: bool = False


class Start(NamedTuple):
    """Let ``vcpu`` run on a thread of its own until its next exit."""

    vcpu: int


class Join(NamedTuple):
    """Wait for the exit of a started ``vcpu``, which has to be ``came``; for ``quiet`` it is kicked out of KVM_RUN then."""

    vcpu: int
    came: Came
    otherwise: Otherwise


class Finish(NamedTuple):
    """Complete the I/O of ``vcpu``'s last exit and run nothing: KVM_RUN with immediate_exit."""

    vcpu: int


class Window(NamedTuple):
    """Write request_interrupt_window of ``vcpu``'s struct kvm_run."""

    vcpu: int
    asked: bool


class Reply(NamedTuple):
    """Answer ``vcpu``'s IN or MMIO read with ``data``."""

    vcpu: int
    data: bytes


class Said(NamedTuple):
    """Copy what ``vcpu``'s last exit, an OUT, wrote to ``to``."""

    vcpu: int
    to: Place


class Look(NamedTuple):
    """Read every section of ``vcpu``'s state by ioctls, KVM_GET_MP_STATE first; a snapshot is evidence.

    ``back`` are the bytes that RIP is ahead of the event by: those of the OUT at the reset vector, which has no other effect.
    """

    vcpu: int
    back: int = 0


class Irqfd(NamedTuple):
    """Assign an eventfd to ``gsi`` by KVM_IRQFD, signal it, and deassign it."""

    gsi: int


class Install(NamedTuple):
    """Put the reporting guest into memory, for ``vcpu`` to begin it at the SIPI ``vector``, or at the reset vector.

    ``stands`` is whether the vCPU stands after the OUT of EAX at the reset vector of another guest: this one has the same there.
    """

    vcpu: int
    vector: int | None = None
    apic_mode: str = "xapic"
    stands: bool = False


class Report(NamedTuple):
    """Let the reporting guest, which is in memory, run on ``vcpu`` to its end; its report is evidence.

    ``running`` is whether the vCPU's last exit was the guest's first one already.
    """

    vcpu: int
    running: bool = False


#: The measurements of Do, and the items that each counts; the engine has a function for each.
MEASUREMENTS = {"arrivals": ("lost", "doubled", "astray")}


class Do(NamedTuple):
    """Make the measurement of that ``name``, with ``stress_rounds``; its counts are evidence."""

    name: str
    stress_rounds: StressRounds


Op = (
    Alike
    | Apart
    | Create
    | Cpuid
    | Ioctl
    | Put
    | Sum
    | Compare
    | Region
    | Rebuild
    | Listed
    | Write
    | Match
    | Peek
    | Enter
    | Poll
    | Start
    | Join
    | Finish
    | Window
    | Reply
    | Said
    | Look
    | Irqfd
    | Install
    | Report
    | Do
)


class Program(NamedTuple):
    """``ops`` in order, each with the number of the step that it belongs to, and the buffers by name."""

    buffers: dict[str, Buffer]
    ops: tuple[tuple[int, Op], ...]


def buffers_of(op: Op) -> tuple[str, ...]:
    """The buffers that ``op`` names."""
    if isinstance(op, Ioctl):
        return tuple(name for name in (op.arg, op.result) if isinstance(name, str) and name)
    if isinstance(op, Cpuid):
        return (op.result,) if op.result else ()
    if isinstance(op, Listed):
        return (op.buffer,)
    if isinstance(op, (Put, Compare)):
        return (op.place.buffer,)
    if isinstance(op, (Sum, Apart)):
        return (op.place.buffer, op.of.buffer)
    if isinstance(op, (Peek, Said)):
        return (op.to.buffer,)
    if isinstance(op, Poll):
        return tuple(name for one in (*op.read, op.test) for name in buffers_of(one))
    return ()
