# SPDX-License-Identifier: GPL-2.0-only
"""A scenario in words: one short sentence a step, with its values."""

from __future__ import annotations

import ctypes
import errno
from collections.abc import Iterable, Iterator
from functools import singledispatchmethod

from kvmtest.scenario import memory
from kvmtest.scenario import step as s
from kvmtest.scenario.places import fields
from kvmtest.scenario.triggers import DATA
from kvmtest.state.layout import SEGMENTS
from kvmtest.uapi import kvm as uapi
from kvmtest.uapi.names import EXITS, IOCTLS, MP_STATES

__all__ = (
    "EVENTS",
    "MODES",
    "PLANTS",
    "SENT",
    "VENDORS",
    "Describer",
    "condition",
    "held",
    "ioctl",
    "lines",
    "number",
    "vcpus",
)

EVENTS = {
    "reset": "RESET",
    "init": "INIT",
    "sipi": "SIPI",
    "shutdown": "SHUTDOWN",
    "nmi": "NMI",
    "smi": "SMI",
    "interrupt": "an interrupt",
    "deassert": "INIT level de-assert",
    "none": "no event",
}
VENDORS = {"intel": "Intel", "amd": "AMD"}
PLANTS = {
    "a": "plant a: 64-bit mode with paging",
    "b": "plant b: real mode, just after protected mode",
    "c": "plant c: virtual-8086 mode",
    "sipi": "plant sipi: waiting for a SIPI, real-mode segments",
    "new": "plant new: as created, and runnable",
    "guest-long": "guest code in 64-bit mode",
    "guest-protected": "guest code in 32-bit protected mode with PAE paging",
    "guest-v86": "guest code in virtual-8086 mode",
}
MODES = {
    "xapic": "in xAPIC mode",
    "xapic-flat": "in xAPIC mode with flat logical destinations",
    "x2apic": "in x2APIC mode",
    "relocated": "in xAPIC mode, moved from FEE00000H",
    "disabled": "disabled in IA32_APIC_BASE",
}
_ROUTED = "routed to an MSI with data {data:X}H by KVM_SET_GSI_ROUTING"
_ICR = "the other vCPU's code writes {data:X}H to its ICR"
#: The ioctl or access by which each trigger sends an event.
SENT = {
    "latched": "KVM_SET_VCPU_EVENTS, smi.latched_init = 1",
    "msi": "KVM_SIGNAL_MSI, data {data:X}H",
    "gsi-msi": f"KVM_IRQ_LINE, the GSI {_ROUTED}",
    "irqfd": f"KVM_IRQFD, the GSI {_ROUTED}",
    "ioapic": "KVM_IRQ_LINE, the IOAPIC's pin with delivery mode INIT",
    "split": f"KVM_IRQ_LINE with the split irqchip, the GSI {_ROUTED}",
    "icr-xapic": f"{_ICR} in xAPIC mode",
    "icr-x2apic": f"{_ICR} in x2APIC mode",
    "icr-xapic/logical": f"{_ICR} in xAPIC mode, by logical destination",
    "icr-x2apic/logical": f"{_ICR} in x2APIC mode, by logical destination",
    "broadcast": f"{_ICR}, to all but itself",
    "self": "its own code writes {data:X}H to its ICR, with its own APIC id",
    "triple-fault": "its own code triple-faults",
    "mp-state": "KVM_SET_MP_STATE(INIT_RECEIVED)",
    "sipi.mp-state": "KVM_SET_VCPU_EVENTS, sipi_vector = {vector:#x}, then KVM_SET_MP_STATE(SIPI_RECEIVED)",
    "ioctl-nmi": "KVM_NMI",
    "ioctl-smi": "KVM_SMI",
}
#: Sections whose ioctls do not have the section's name in capitals.
_SECTIONS = {
    **{"events": "VCPU_EVENTS", "nested": "NESTED_STATE", "ssp": "ONE_REG", "cpuid": "CPUID2"},
    **dict.fromkeys(("pic_master", "pic_slave", "ioapic"), "IRQCHIP"),
}
#: More items than are all listed.
_MANY = 24
_WHO = {"other": "the other vCPU", "each": "each target", "vm": "the VM", "new-vm": "a new VM"}
#: Conditions that are what a vCPU does next.
_NEXT = (s.Word, s.Words, s.Exit, s.In, s.Mmio, s.Quiet, s.Fails)


def number(value: int | str) -> str:
    """A value: small ones in decimal, others in hexadecimal; a name as it is."""
    return value if isinstance(value, str) else str(value) if -10 < value < 10 else f"{value:#x}"


def _section(item: str) -> str:
    return "msrs" if item.startswith("msr.") else fields().get(item, ("",))[0]


def ioctl(verb: str, section: str) -> str:
    """The ioctl that does ``verb`` (GET or SET) with ``section``."""
    return f"KVM_{verb}_{_SECTIONS.get(section, section.upper())}"


def held(item: str, value: int | str) -> str:
    """Format the value of ``item``: an activity state as its name, anything else as a number."""
    return MP_STATES.get(value, str(value)) if item == "mp_state" and isinstance(value, int) else number(value)


def _data(data: bytes) -> str:
    """A few bytes, or how many there are."""
    return data.hex(" ") if len(data) <= 16 else f"{len(data)} bytes"


def _structure(kind: str, data: bytes) -> str:
    """The fields of a structure that are not 0; for other buffers the bytes."""
    struct = getattr(uapi, kind, None)
    if not (isinstance(struct, type) and issubclass(struct, ctypes.Structure)) or len(data) < ctypes.sizeof(struct):
        return _data(data)
    return ", ".join(_fields(struct.from_buffer_copy(data), "")) or "all 0"


def _fields(struct: ctypes.Structure, prefix: str) -> Iterator[str]:
    for name, *_ in struct._fields_:
        value = getattr(struct, name)
        if isinstance(value, ctypes.Structure):
            yield from _fields(value, f"{prefix}{name}.")
        elif isinstance(value, int):
            if value:
                yield f"{prefix}{name} = {number(value)}"
        elif any(data := bytes(value)):
            yield f"{prefix}{name} = {data.rstrip(bytes(1)).hex(' ')}"


def _words(pairs: tuple[tuple[str, int | str], ...]) -> str:
    return ", ".join(f"{name} = {held(name, value)}" for name, value in pairs)


def condition(of: s.Condition, guest: str = "") -> str:
    """A condition in words: a verb for what a vCPU does next, a statement for a value."""
    if isinstance(of, s.Word):
        name, says = of.name.rpartition(".")[2], of.says or dict(memory.words(guest)).get(of.name, "")
        says = says.partition(" {")[0]
        means = name if says in ("", name) else f"{name}: {says}"
        mask = "" if of.mask == (1 << 32) - 1 else f" in the bits {of.mask:#x}"
        value = "" if of.value is None else f"{number(of.value)}{mask} "
        past = f", after {' and '.join(of.past)} at most" if of.past else ""
        return f"writes {value}to port {_of(guest, f'PORT_{of.name}')} ({means}){past}"
    if isinstance(of, s.Words):
        return ", then ".join(condition(word, guest) for word in of.words)
    if isinstance(of, s.Exit):
        return f"exits with {EXITS.get(of.reason, f'exit reason {of.reason}')}"
    if isinstance(of, s.In):
        return f"reads port {_of(guest, f'PORT_{of.name}')}"
    if isinstance(of, s.Mmio):
        return f"reads a device's memory at {_of(guest, of.name)}"
    if isinstance(of, s.Quiet):
        return of.says
    if isinstance(of, s.Fails):
        return f"fails in KVM_RUN with {errno.errorcode.get(of.error, of.error)}"
    if isinstance(of, s.Is):
        mask = "" if of.mask == -1 else f" in the bits {of.mask:#x}"
        return f"{of.item} = {held(of.item, of.value)}{mask}"
    if isinstance(of, s.Reached):
        reads = condition(s.Is(of.item, of.value, of.mask))
        who = vcpus(of.ids, one=of.one)
        return f"{reads} on {who}, and on no other of {vcpus(of.of)}" if of.ids else f"{reads} on none of {vcpus(of.of)}"
    if isinstance(of, s.Differs):
        return f"{of.item} is not {held(of.item, of.value)}"
    if isinstance(of, s.Filled):
        return f"guest memory at {of.gpa:X}H is {_data(of.data)}"
    if isinstance(of, s.Changed):
        return f"guest memory at {of.gpa:X}H is not {number(of.value)}"
    if isinstance(of, s.Holds):
        return f"the guest's word {of.word} = {number(of.value)}"
    if isinstance(of, s.Moves):
        return f"the guest's word {of.word} changes"
    if isinstance(of, s.Same):
        return f"all that ioctls read is unchanged{f', but for {_list(of.but)}' if of.but else ''}"
    if isinstance(of, s.Zero):
        return f"{_list(of.items)} = 0, where this host can read them"
    if isinstance(of, s.Written):
        return f"{ioctl('SET', of.section)} has written its values, and changed nothing that does not depend on them"
    if isinstance(of, s.Past):
        since = "what was written" if of.of is None else f"that of {'vCPU ' if isinstance(of.of, int) else 'the '}{of.of}"
        return f"{of.item} is from {number(of.least)} on and less than {number(of.most)} past {since}"
    if isinstance(of, s.Answer):
        if of.value < 0:
            return f"KVM refuses it with {errno.errorcode.get(-of.value, of.value)}"
        return f"KVM accepts it and returns {of.value}" if of.value else "KVM accepts it"
    raise TypeError(f"no words for {of}")


def vcpus(ids: Iterable[int], *, one: bool = False) -> str:
    """vCPUs by their ids."""
    said = ", ".join(map(str, ids))
    if not said:
        return "no vCPU"
    return f"one of the vCPUs {said}" if one else f"vCPU{'s' if ',' in said else ''} {said}"


def _list(names: tuple[str, ...]) -> str:
    return ", ".join(names)


def _of(guest: str, name: str) -> str:
    """A number of a guest's source; its name where no guest is known."""
    return f"{memory.number(guest, name):X}H" if guest or "." in name else name


class Describer:
    """Tells the steps of a scenario one after the other; what some mean depends on those before."""

    def __init__(self, target: str = "ap") -> None:
        self._target = f"the {target.upper()}"
        self._guest = self._event = ""
        self._started: set[s.Who] = set()

    def who(self, who: s.Who) -> str:
        """A vCPU, or the VM."""
        if isinstance(who, int):
            return f"vCPU {who}"
        return self._target if who == "target" else _WHO[who]

    def _on(self, who: s.Who) -> str:
        return "" if who == "target" else f" of {self.who(who)}"

    @staticmethod
    def _judged(event: str) -> str:
        return "; nothing may change" if event == "none" else f"; judged by the rules of {EVENTS[event]}"

    def _does(self, of: s.Condition, who: s.Who) -> str:
        """Describe what has to happen or to be, with the vCPU that it is about."""
        if isinstance(of, _NEXT):
            joined = ", which is in KVM_RUN," if who in self._started else " next"
            self._started.discard(who)
            return f"that {self.who(who)}{joined} {condition(of, self._guest)}"
        says = condition(of, self._guest)
        if isinstance(of, s.Reached):
            return says
        return f"{'' if isinstance(of, (s.Is, s.Differs, s.Zero)) else 'that '}{says}{self._on(who)}"

    @singledispatchmethod
    def step(self, step: object) -> str:
        """A step in words. Raises TypeError for a kind that has none."""
        raise TypeError(f"no words for {step}")

    @step.register
    def _(self, step: s.Set) -> str:
        items, sections = step.items, dict.fromkeys(_section(item) for item, _ in step.items)
        by = ", ".join(dict.fromkeys(ioctl("SET", section) for section in sections if section))
        words = _words(items)
        if len(items) > _MANY:
            # Descriptor caches by their names alone.
            caches = dict.fromkeys(item.partition(".")[0] for item, _ in items if item.partition(".")[0] in SEGMENTS)
            rest = tuple(pair for pair in items if pair[0].partition(".")[0] not in SEGMENTS)
            words = ", ".join(filter(None, (", ".join(caches), _words(rest))))
        back = "" if step.check else ", which is not read back"
        return f"Write {words}{self._on(step.who)} ({by}){back}{f'; skip if not kept: {step.why}' if step.why else ''}"

    @step.register
    def _(self, step: s.Count) -> str:
        what = number(step.value) if step.from_0 else f"what it has and {number(step.value)}"
        return f"Write {what} to {step.item}{self._on(step.who)} ({ioctl('SET', _section(step.item))})"

    @step.register
    def _(self, step: s.SetBits) -> str:
        return f"Set the bits {step.mask:#x} of {step.item}{self._on(step.who)} ({ioctl('SET', _section(step.item))})"

    @step.register
    def _(self, step: s.Cpuid) -> str:
        but = f", but for CPUID.1:EAX = {step.signature:#x}" if step.signature else ""
        return f"Give {self.who(step.who)} the same CPUID again{but} (KVM_SET_CPUID2)"

    @step.register
    def _(self, step: s.Irqfd) -> str:
        return f"Signal an eventfd that KVM_IRQFD assigns to GSI {step.gsi}"

    @step.register
    def _(self, step: s.Call) -> str:
        name = IOCTLS.get(step.request, f"ioctl {step.request:#x}")
        arg = number(step.arg) if isinstance(step.arg, int) else _structure(step.kind, step.arg)
        return f"{name} on {self.who(step.who)}{'' if step.arg in (0, b'') else f': {arg}'}"

    @step.register
    def _(self, step: s.Plant) -> str:
        by = "by" if step.name.startswith("guest-") else "by ioctls,"
        if step.only:
            sections = ", then ".join(ioctl("SET", section) for section in step.only)
            return f"{sections}{self._on(step.who)} of {PLANTS[step.name]}; its local APIC is {MODES[step.apic_mode]}"
        return f"Write every item{self._on(step.who)} {by} {PLANTS[step.name]}; its local APIC is {MODES[step.apic_mode]}"

    @step.register
    def _(self, step: s.Load) -> str:
        words = f", with {_words(step.words)}" if step.words else ""
        if step.guest == memory.SMRAM:
            return f"Load an SMI handler into SMRAM{words}"
        self._guest = step.guest
        return f"Load the guest {step.guest} into memory{words}"

    @step.register
    def _(self, step: s.Poke) -> str:
        at = step.at if isinstance(step.at, str) else f"guest memory at {step.at:X}H"
        if isinstance(step.value, s.Image):
            value = f"a {step.value.name} of {', '.join(map(number, step.value.args))}"
        else:
            value = _data(step.value) if isinstance(step.value, bytes) else number(step.value)
        return f"Write {value} to {at}"

    @step.register
    def _(self, step: s.Fill) -> str:
        logged = ", of which KVM logs the pages that are written" if step.logged else ""
        return f"Write {_data(step.data)} to guest memory at {step.gpa:X}H{logged}"

    @step.register
    def _(self, step: s.Page) -> str:
        return f"Copy the guest's first page to that of SIPI vector {step.vector:02X}H, too"

    @step.register
    def _(self, step: s.Until) -> str:
        who = self.who(step.who)
        if isinstance(step.condition, _NEXT):
            does = condition(step.condition, self._guest)
            if step.who in self._started:
                self._started.discard(step.who)
                return f"Wait until {who}, which is in KVM_RUN, {does}"
            return f"Run {who} until it {does}"
        begin = f"Run {who}" if step.run and step.who not in self._started else "Wait"
        return f"{begin} until {condition(step.condition, self._guest)}{self._on(step.who)}"

    @step.register
    def _(self, step: s.Require) -> str:
        return f"Require {self._does(step.condition, step.who)}; else {'skip' if step.skip else 'error'}: {step.why}"

    @step.register
    def _(self, step: s.Expect) -> str:
        where = f" for {VENDORS[step.vendor]} guests" if step.vendor else ""
        note = f"; recorded, not judged{where}: {step.undefined}" if step.undefined else ""
        return f"Expect {self._does(step.condition, step.who)}{note}"

    @step.register
    def _(self, step: s.Event) -> str:
        self._event = step.event
        return f"What follows is after {EVENTS[step.event]} ({step.trigger})"

    @step.register
    def _(self, step: s.Send) -> str:
        if step.judged:
            self._event = step.event
        data = DATA.get(step.event, 0) | step.vector
        how = SENT.get(f"{step.event}.{step.by}") or SENT[step.by]
        return f"Send {EVENTS[step.event]} to {self.who(step.to)}: {how.format(data=data, vector=step.vector)}"

    @step.register
    def _(self, step: s.Sender) -> str:
        where = f"{step.icr:#x} to its ICR, for the destination {step.destination:#x}"
        return f"Make the other vCPU ready to write {where}, its local APIC {MODES[step.apic_mode]}"

    @step.register
    def _(self, step: s.Settle) -> str:
        return f"KVM_GET_MP_STATE on {self.who(step.who)}, by which KVM accepts a pending INIT or SIPI"

    @step.register
    def _(self, step: s.Start) -> str:
        self._started.add(step.who)
        return f"Start {self.who(step.who)} in KVM_RUN on a thread of its own"

    @step.register
    def _(self, step: s.Complete) -> str:
        return f"Complete the I/O of {self.who(step.who)}: KVM_RUN with immediate_exit"

    @step.register
    def _(self, step: s.Window) -> str:
        asked = "Ask" if step.asked else "No more ask"
        return f"{asked} KVM_RUN of {self.who(step.who)} to come back when an interrupt can be injected"

    @step.register
    def _(self, step: s.Give) -> str:
        return f"Answer the read of {self.who(step.who)} with {step.data.hex(' ')}"

    @step.register
    def _(self, step: s.Observe) -> str:
        event = step.rule or self._event
        return f"Read the whole table{self._on(step.who)} by ioctls{self._judged(event) if event else ''}"

    @step.register
    def _(self, step: s.Resume) -> str:
        return f"Let the code that planted {self.who(step.who)} continue, to {step.end}"

    @step.register
    def _(self, step: s.Reporter) -> str:
        where = "the reset vector" if step.vector is None else f"the page of SIPI vector {step.vector:02X}H"
        return f"Load the guest that reports its state, which begins at {where}"

    @step.register
    def _(self, step: s.Guest) -> str:
        judged = f"{self._judged(self._event)}, and compared with what ioctls read"
        return f"Let that guest read the whole table by instructions{judged}"

    @step.register
    def _(self, step: s.Migrate) -> str:
        return f"Save the VM with its vCPUs and restore it as a new one, in the order of {step.order}; nothing may change"

    @step.register
    def _(self, step: s.Do) -> str:
        return f"Measure {step.name}; expect {', '.join(f'{item} = {value}' for item, value in step.expected)}"


def lines(scenario: s.Scenario) -> Iterator[str]:
    """A sentence for each step of ``scenario``."""
    describer = Describer(scenario.target)
    return map(describer.step, scenario.steps)
