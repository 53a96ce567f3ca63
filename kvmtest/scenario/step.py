# SPDX-License-Identifier: GPL-2.0-only
"""The vocabulary of scenarios: steps, with their conditions, and the scenario that they make.

``who`` names a vCPU: ``target`` is the one that the case is about, ``other`` another one, ``each`` every one but that, or a
number is a vCPU's id. The first expectation that does not hold ends the scenario, and is what it shows.
"""

from __future__ import annotations

from typing import NamedTuple

from kvmtest.scenario.condition import (
    Answer,
    Changed,
    Condition,
    Differs,
    Exit,
    Fails,
    Filled,
    Holds,
    In,
    Is,
    Mmio,
    Moves,
    Past,
    Quiet,
    Reached,
    Same,
    Who,
    Word,
    Words,
    Written,
    Zero,
)
from kvmtest.scenario.setup import Setup

__all__ = (
    "Answer", "Call", "Changed", "Complete", "Condition", "Count", "Cpuid", "Differs", "Do", "Event", "Exit", "Expect", "Fails",
    "Fill", "Filled", "Give", "Guest", "Holds", "Image", "In", "Irqfd", "Is", "Load", "Migrate", "Mmio", "Moves", "Observe",
    "Page", "Past", "Plant", "Poke", "Quiet", "Reached", "Reporter", "Require", "Resume", "Same", "Scenario", "Send",
    "Sender", "Set", "SetBits", "Settle", "Start", "Step", "Until", "Who", "Window", "Word", "Words", "Written", "Zero",
)  # fmt: skip

# Steps


class Set(NamedTuple):
    """Write ``items``, pairs of item and value, by the ioctls of their sections, and read them back.

    A value may be a name: of a number of a guest's source, ``guest.NAME``, or the sum of some, or of the place where planted code
    has an end, ``planter.END``.

    ``why`` ends the scenario as a skip, with this reason, where KVM refuses it or keeps something else; without it that is an
    error. With ``keep`` what KVM returns to the last ioctl is kept for a following Answer; of an MSR it is 1, or 0 for a refusal.
    """

    items: tuple[tuple[str, int | str], ...]
    who: Who = "target"
    why: str = ""
    check: bool = True
    keep: bool = False


class Count(NamedTuple):
    """Add ``value`` to ``item``, or with ``from_0`` write the value alone; it is kept for a following Past."""

    item: str
    value: int
    who: Who = "target"
    from_0: bool = False


class SetBits(NamedTuple):
    """Set the bits of ``mask`` in ``item``, and leave the others as they are."""

    item: str
    mask: int
    who: Who = "target"


class Call(NamedTuple):
    """One ioctl ``request`` on a vCPU or, for ``vm``, on the VM; ``arg`` is a structure's bytes, or a number.

    ``new-vm`` is a VM beside it, in which no vCPU has been created yet.

    ``keep`` keeps what KVM returns for a following Answer; without it an error ends the scenario.
    """

    request: int
    arg: bytes | int = 0
    who: Who = "target"
    keep: bool = False
    kind: str = ""


class Cpuid(NamedTuple):
    """KVM_SET_CPUID2 with the CPUID from the vCPU's creation, or with another ``signature``, CPUID.1:EAX.

    What KVM returns is kept for a following Answer.
    """

    signature: int = 0
    who: Who = "target"


class Irqfd(NamedTuple):
    """Signal an eventfd that KVM_IRQFD assigns to ``gsi``."""

    gsi: int


class Plant(NamedTuple):
    """Write every item: by the plant of that ``name``, with the local APIC in ``apic_mode``.

    ``keep`` are bits of EFER that are set besides what the plant asks for: without EFER.SVME there is no L2 any more. ``only``
    are the sections that are written, in that order, where not all of them are.
    """

    name: str = "a"
    apic_mode: str = "xapic"
    who: Who = "target"
    keep: int = 0
    only: tuple[str, ...] = ()


class Load(NamedTuple):
    """Put ``guest`` into memory, and write its 32-bit ``words``."""

    guest: str
    words: tuple[tuple[str, int | str], ...] = ()


class Image(NamedTuple):
    """Contents of memory that are made when they are needed, by that function of `kvmtest.scenario.memory`."""

    name: str
    args: tuple[int, ...] = ()


class Poke(NamedTuple):
    """Write guest memory: at a word's name or an address; 4 bytes of a number, or of one that the source names, or bytes."""

    at: str | int
    value: int | str | bytes | Image


class Page(NamedTuple):
    """Copy the page of the guest in memory to the page of a SIPI's ``vector``."""

    vector: int


class Fill(NamedTuple):
    """Write ``data`` to guest memory at ``gpa``, which is added in ``slot`` if the VM has none there.

    ``logged`` is whether KVM logs which of its pages are written from then on.
    """

    gpa: int
    data: bytes
    slot: int
    logged: bool = False


class Until(NamedTuple):
    """Let a vCPU run until ``condition`` holds; if it does not, there is nothing to judge, and the scenario ends in an error.

    ``run`` is whether it has to run for that.
    """

    condition: Condition
    who: Who = "target"
    note: str = ""
    run: bool = True


class Require(NamedTuple):
    """Check if ``condition`` holds; if not, the scenario ends as a skip or an error, with ``why`` as the reason."""

    condition: Condition
    why: str
    who: Who = "target"
    skip: bool = False


class Expect(NamedTuple):
    """``condition`` has to hold: the record of ``item``, or of the condition's own.

    Without ``ends`` the scenario goes on where it does not. ``says`` is what values mean, in words. ``undefined`` says why this
    one is recorded and not judged, for a guest of ``vendor`` where one is given.
    """

    condition: Condition
    item: str = ""
    who: Who = "target"
    ends: bool = True
    says: tuple[tuple[int, str], ...] = ()
    undefined: str = ""
    vendor: str = ""


class Event(NamedTuple):
    """Observations after this step come after ``event``, sent by ``trigger``."""

    event: str
    trigger: str


class Send(NamedTuple):
    """Send ``event`` to a vCPU by the trigger ``by``; ``vector`` goes with a SIPI or an interrupt.

    ``judged`` is whether what is observed from here on comes after this event.
    """

    event: str
    by: str = "msi"
    to: Who = "target"
    vector: int = 0
    judged: bool = True


class Sender(NamedTuple):
    """Make the other vCPU ready to write ``icr`` and ``destination`` to its ICR, by guest code that writes SENT afterwards."""

    icr: int
    destination: int
    apic_mode: str


class Settle(NamedTuple):
    """KVM_GET_MP_STATE, by which KVM accepts a pending INIT or SIPI."""

    who: Who = "target"


class Start(NamedTuple):
    """Let a vCPU run on a thread; the next condition on it waits for what it does."""

    who: Who = "target"


class Complete(NamedTuple):
    """Complete the I/O of the vCPU's last exit, and run nothing."""

    who: Who = "target"


class Window(NamedTuple):
    """Make KVM_RUN return when an external interrupt can be injected, or no longer (request_interrupt_window)."""

    asked: bool = True
    who: Who = "target"


class Give(NamedTuple):
    """Answer the vCPU's IN or MMIO read."""

    data: bytes
    who: Who = "target"


class Observe(NamedTuple):
    """Read all that the host's ioctls show. The observation before the event is what the event finds; the one after it is judged.

    ``rule`` is the event whose rules judge it, where that is not the last one sent.
    """

    who: Who = "target"
    rule: str = ""


class Resume(NamedTuple):
    """Choose what a vCPU planted by guest code does when it runs next: ``loop``, ``hlt``, ``in``, ``mmio``, ``icr``, ``ud``."""

    end: str
    who: Who = "target"


class Reporter(NamedTuple):
    """Put the reporting guest into memory; it begins at the page of the SIPI ``vector``, or at the reset vector.

    ``stands`` is whether the vCPU stands after the OUT of EAX at the reset vector of another guest: this one has the same there.
    """

    vector: int | None = None
    stands: bool = False
    apic_mode: str = "xapic"


class Guest(NamedTuple):
    """Let the reporting guest, which is in memory, report what its instructions read, and judge that.

    ``running`` is whether the vCPU has made the guest's first exit already.
    """

    running: bool = False


class Migrate(NamedTuple):
    """Save all state of the VM and its vCPUs, make a new VM, and restore it there, in that ``order`` (`kvmtest.scenario.orders`).

    vCPUs that run leave KVM_RUN for it. What was there before is compared with what is there after it.
    """

    order: str = "kvm"


class Do(NamedTuple):
    """The measurement of that ``name`` (`kvmtest.engine.runner`): it loops depending on what it measures, unlike a list of steps.

    ``expected`` are the items that it counts, each with the number that is expected.
    """

    name: str
    expected: tuple[tuple[str, int], ...]


Step = (
    Set
    | SetBits
    | Count
    | Cpuid
    | Irqfd
    | Call
    | Plant
    | Load
    | Poke
    | Page
    | Fill
    | Resume
    | Until
    | Require
    | Expect
    | Event
    | Send
    | Sender
    | Settle
    | Start
    | Complete
    | Window
    | Give
    | Observe
    | Reporter
    | Guest
    | Migrate
    | Do
)


class Scenario(NamedTuple):
    """Steps on a VM, with their needs and the manuals that define the expectations.

    ``event`` and ``trigger`` begin the case's name, ``sequence`` is the parameter that makes it unique. ``target`` is
    ``bsp`` or ``ap``, ``view`` who shows what is expected by single conditions: ``guest`` where guest code does. ``undefined``
    says why they are recorded and not judged.
    """

    event: str
    trigger: str
    sequence: str
    steps: tuple[Step, ...]
    cite: tuple[str, ...]
    target: str = "ap"
    view: str = "host"
    needs: tuple[str, ...] = ()
    setup: Setup = Setup()
    undefined: str = ""
    vendors: tuple[str, ...] = ("intel", "amd")
    #: True if it needs a new VM.
    fresh: bool = True
    #: True if the event may leave no trace: then the pending event or the exit proves that it happened.
    silent: bool = False

    @property
    def apic_mode(self) -> str:
        """The mode of the target's local APIC when the event comes: that of its last plant, else of the reporting guest."""
        plants = [step.apic_mode for step in self.steps if isinstance(step, Plant) and step.who != "other"]
        set_ = [step.apic_mode for step in self.steps if isinstance(step, Reporter)]
        return next(iter((*plants[::-1], *set_)), "")
