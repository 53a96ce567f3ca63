# SPDX-License-Identifier: GPL-2.0-only
"""Moves: what a random scenario is made of. Each is some steps, with what the manuals expect of them."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import NamedTuple

from kvmtest.fuzz import values
from kvmtest.fuzz.model import BLOCKS, HALTS, RUNS, WAITS, Vcpu, rule
from kvmtest.scenario import step as s
from kvmtest.scenario.items import CONTINUE
from kvmtest.scenario.triggers import DATA, MASKED, PIN, TRIGGERS, Steps, raised, signal
from kvmtest.uapi.kvm import KVM_IOAPIC_NUM_PINS
from kvmtest.x86.lapic import LAPIC

__all__ = ("BETWEEN", "BY_CODE", "GUEST", "MOVES", "READ", "Move", "Play", "read_once")

#: Before each move. It is not an event: what is observed from here on is what the next event finds.
BETWEEN = s.Event("none", "fuzz")
#: With nothing pending it says nothing, and KVM_SET_VCPU_EVENTS, which latches an INIT, writes it.
_HAS_PAYLOAD = "events.exception_has_payload"
_PENDING = "events.smi_latched_init"
#: Of #DB, and its payload, which is as DR6 (KVM API, KVM_CAP_EXCEPTION_PAYLOAD).
_DB, _BS, _PAYLOAD = 1, 1 << 14, "events.exception_payload"
_SHADOW, _ALL = "events.interrupt_shadow", (1 << 64) - 1
#: Items that KVM_GET_VCPU_EVENTS returns as KVM_SET_VCPU_EVENTS wrote them.
_NMIS = ("events.nmi_masked", "events.nmi_injected", "events.nmi_pending")
READ = (
    *(_SHADOW, values.PENDING, values.TRIPLE, _PAYLOAD, *_NMIS, "events.smi_pending", "events.interrupt_injected"),
    *("events.interrupt_nr", "events.exception_injected", "events.exception_nr", "events.exception_error_code"),
)
#: #GP has an error code.
_GP = 13
#: By ioctl or by a device, to a vCPU that is not in KVM_RUN. Those by another vCPU's code run a guest.
_INITS = ("latched", "msi", "gsi-msi", "irqfd", "ioapic")
BY_CODE = ("icr-xapic", "icr-x2apic")
#: Items that show an interrupt that is accepted and not delivered (SDM vol. 3, Interrupt Acceptance for Fixed Interrupts).
_REQUESTED = tuple(f"lapic.{reg.name}" for reg in LAPIC if reg.name.startswith(("irr", "tmr"))) + ("lapic.ppr", "lapic.esr")
_ORDERS = ("kvm", "qemu")
_VECTORS = (0x00, 0x01, 0x10, 0x3A, 0x55, 0x7F, 0x80, 0xAA, 0xC3, 0xFF)
#: The share of random values with bits of control registers, and of those after which all other items are compared.
_BITS, _WATCHED = 0.2, 0.25
#: The share of plants that are compared with what was written.
_KEPT = 0.15


class Play:
    """A scenario being generated: the automaton's ``target``, the host's ``needs`` that may be used, and those used so far.

    ``mode`` is that of the local APIC; ``without`` are items that this host does not accept. ``events`` are those that are tried,
    and ``states`` the names of blocks.
    """

    def __init__(
        self,
        random: Random,
        bsp: bool,
        vendor: str,
        mode: str,
        *,
        events: frozenset[str],
        states: frozenset[str],
        without: frozenset[str] = frozenset(),
    ) -> None:
        self.random, self.vendor, self.mode = random, vendor, mode
        self.target = Vcpu(bsp)
        self.events, self.states, self.without = events, states, without
        self.needs: dict[str, None] = {}
        self.cite: dict[str, None] = {}
        #: True if the other vCPU has state that this scenario wrote.
        self.other = False
        self.reporter = False
        #: Items that this host may change when they are written.
        self.unchecked: set[str] = set()
        #: True while an SMI is pending: the target would enter SMM if it ran guest code.
        self.smi = False
        #: Of a second migration the judge would have to know other vCPUs.
        self.migrated = False

    def same(self, *but: str) -> s.Step:
        """Nothing else than ``but`` changes."""
        return s.Expect(s.Same(but))

    def initiator(self) -> str:
        """A trigger for INIT that the target's local APIC accepts."""
        fits = [name for name in _INITS if self.mode in TRIGGERS[name].modes]
        code = [name for name in BY_CODE if self.mode in TRIGGERS[name].modes]
        return self.random.choice(code if code and self.random.random() < 0.02 else fits)


def _plant(play: Play) -> Steps:
    """Everything at once."""
    name = play.random.choice("ac" if play.reporter else "abc")
    # Every section is written, so that nothing pending and no block is left.
    play.target = Vcpu(play.target.bsp, RUNS if name == "b" else HALTS, nmis=int(name == "b"))
    # Read back at once it is compared with what was written, which is the same each time.
    kept = (s.Observe(),) if play.random.random() < _KEPT else ()
    return (*_no_smi(play), s.Plant(name, play.mode), *kept)


def _values(play: Play) -> Steps:
    """Some items, by the ioctls of their sections; now and then with a look at all others."""
    random = play.random
    found = values.items(random, play.without)
    # KVM_SET_SREGS lets a boot processor at the reset vector run.
    if still := play.target.bsp and play.target.activity != RUNS:
        found = tuple(one for one in found if values.section_of(one[0]) != "sregs") or (("rbx", 1),)
    # Of some MSRs KVM keeps what the vCPU's CPUID has.
    written: list[s.Step] = [s.Set((one,), check=one[0] not in play.unchecked) for one in found]
    items = [item for item, _ in found]
    if not still and random.random() < _BITS:
        item = random.choice(tuple(values.BITS))
        bits = values.BITS[item]
        written.append(s.SetBits(item, sum(1 << bit for bit in random.sample(bits, random.randint(1, len(bits))))))
        items.append(item)
    looks = [s.Observe()] if random.random() < _WATCHED else []
    same = [play.same(*values.follow(tuple(items)))] if looks else []
    return (*looks, *written, *same, s.Expect(s.Is("mp_state", play.target.activity), "mp_state"))


def _pending(play: Play) -> Steps:
    """Check that what KVM_SET_VCPU_EVENTS accepts reads back. Of the two interrupt shadows every CPU has the one of MOV SS."""
    random, target = play.random, play.target
    flags = [*_NMIS, "events.interrupt_injected"]
    if "smm" in play.states and "smi" in play.events and target.activity != WAITS and not play.reporter:
        play.needs["smm"] = None
        flags.append("events.smi_pending")
    if values.TRIPLE not in play.without and not play.reporter:
        flags.append(values.TRIPLE)
    wanted = {item: random.getrandbits(1) for item in flags}
    wanted |= {_SHADOW: random.choice((0, 3)), "events.interrupt_soft": 0}
    wanted |= {"events.interrupt_nr": random.randrange(0x10, 0x100)} if wanted["events.interrupt_injected"] else {}
    if values.PENDING not in play.without:
        # A #DB, which has a payload, without an error code; or a #GP, which has one.
        trap, fault = random.choice(((0, 0), (1, 0), (0, 1)))
        wanted |= {values.PENDING: trap, _HAS_PAYLOAD: trap}
        wanted |= {"events.exception_injected": fault, "events.exception_has_error_code": fault}
        wanted |= {"events.exception_nr": _DB, _PAYLOAD: random.getrandbits(4) | _BS} if trap else {}
        wanted |= {"events.exception_nr": _GP, "events.exception_error_code": random.getrandbits(16)} if fault else {}
    target.nmis, play.smi = wanted["events.nmi_pending"], bool(wanted.get("events.smi_pending"))
    return (
        s.Set(tuple(wanted.items()), check=False),
        *(s.Expect(s.Is(item, value, 1 if item == _SHADOW else _ALL), item) for item, value in wanted.items() if item in READ),
    )


def _mp_state(play: Play) -> Steps:
    """The activity state alone."""
    wanted = play.random.choice((RUNS, HALTS, *(() if play.target.bsp else (WAITS,))))
    play.target.activity = wanted
    # With an SMI pending KVM_SET_MP_STATE refuses wait-for-SIPI.
    return (*_no_smi(play), s.Observe(), s.Set((("mp_state", wanted),)), play.same("mp_state"))


def _dirty(play: Play) -> Steps:
    """Change a vCPU that is as an event left it, so that the next event shows."""
    return (s.Set((("rbx", play.random.getrandbits(32) | 1),)),) if play.target.fresh else ()


def _init(play: Play) -> Steps:
    """An INIT that nothing blocks."""
    dirty, target = _dirty(play), play.target
    target.activity, target.fresh, target.nmis, play.smi = rule("init", target).activity, True, 0, False
    play.mode = "xapic" if play.mode == "xapic-flat" else play.mode
    return (*dirty, s.Observe(), s.Send("init", play.initiator()), s.Observe())


def _sipi(play: Play) -> Steps:
    """A SIPI, in wait-for-SIPI or outside of it."""
    target, random = play.target, play.random
    # Another vector needs all records anew: mostly use those in which each bit is set and clear.
    vector = random.choice(_VECTORS) if random.random() < 0.9 else random.getrandbits(8)
    found = rule("sipi", target)
    # By ioctl in wait-for-SIPI alone: KVM_SET_MP_STATE leads there. A vector of 0 is what KVM_SET_VCPU_EVENTS leaves out.
    ioctl = found.becomes == "taken" and vector and not play.smi and random.random() < 0.25
    sent = (s.Observe(), s.Send("sipi", "mp-state" if ioctl else "msi", vector=vector))
    target.activity = found.activity
    if found.becomes == "dropped":
        return (*sent, play.same())
    target.fresh = False
    return (*sent, s.Observe())


def _over_sipi(play: Play) -> Steps:
    """An INIT that arrives while a SIPI is pending, and cancels it."""
    dirty, target = _dirty(play), play.target
    target.activity, target.fresh, target.nmis = rule("init", target).activity, True, 0
    before = s.Send("sipi", "msi", vector=play.random.getrandbits(8), judged=False)
    return (*dirty, s.Observe(), before, s.Send("init", "msi"), s.Observe())


def _nmi(play: Play) -> Steps:
    """An NMI, which stays pending in a vCPU that does not run."""
    target, by = play.target, play.random.choice(("ioctl-nmi", "msi"))
    steps = (s.Observe(), s.Send("nmi", by, judged=False), play.same("events.nmi_pending"))
    if target.nmis == 0:
        target.nmis = 1
        return (*steps, s.Expect(s.Is("events.nmi_pending", 1)))
    target.nmis = None
    return steps


def _smi(play: Play) -> Steps:
    """An SMI, which stays pending in a vCPU that does not run."""
    play.needs["smm"] = None
    play.smi = True
    sent = (s.Observe(), s.Send("smi", "ioctl-smi", judged=False), s.Expect(s.Is("events.smi_pending", 1)))
    # One in two is there when the next event comes.
    more = () if not play.reporter and play.random.random() < 0.5 else _no_smi(play)
    return (*sent, play.same("events.smi_pending"), *more)


def _no_smi(play: Play) -> Steps:
    """Clear a pending SMI."""
    smi, play.smi = play.smi, False
    return (s.Set((("events.smi_pending", 0),)),) if smi else ()


def _interrupt(play: Play) -> Steps:
    """An interrupt's message, accepted or not."""
    vector = play.random.randrange(0x10, 0x100)
    return (s.Observe(), signal(_id(play), DATA["interrupt"] | vector), play.same(*_REQUESTED))


def _id(play: Play) -> int:
    """The target's APIC id: of the two vCPUs the first one is the boot processor."""
    return 0 if play.target.bsp else 1


def _other(play: Play) -> Steps:
    """Events to the other vCPU, which change nothing in this one."""
    steps: list[s.Step] = []
    if not play.other:
        play.other = True
        steps.append(s.Plant("a", play.mode if play.mode in ("xapic", "x2apic") else "xapic", "other"))
    steps.append(s.Observe())
    event = play.random.choice(("init", "init", "sipi", "nmi"))
    by = "msi" if event != "init" else play.random.choice(("latched", "msi", "ioapic", "gsi-msi"))
    steps.append(s.Send(event, by, "other", play.random.getrandbits(8) if event == "sipi" else 0, judged=False))
    steps.append(s.Settle("other"))
    if event == "init":
        steps.append(s.Expect(s.Is("mp_state", WAITS if play.target.bsp else RUNS), who="other"))
    return (*steps, play.same())


def _blocked(play: Play) -> Steps:
    """INIT and SIPI in a state that blocks them, and their effect when it is left."""
    random, target = play.random, play.target
    name = random.choice(_blocks(play))
    block, facts = BLOCKS[name], BLOCKS[name].facts
    play.needs |= dict.fromkeys(facts.needs)
    play.cite |= dict.fromkeys(block.cite)
    dirty, target.block = (*_dirty(play), *_no_smi(play)), name
    inside = ("events.smi_inside_nmi", 1)
    nmi = (s.Set((inside,)),) if name == "smm" and random.random() < 0.3 else ()
    shown = s.Expect(s.Is(block.item, block.value, block.mask), block.item)
    steps: list[s.Step] = [*dirty, *facts.prepare, *nmi, s.Observe(), shown]
    init = random.random() < 0.8
    if init:
        steps += [s.Send("init", random.choice(("latched", "msi"))), s.Expect(s.Is(_PENDING, 1), "pending")]
        steps.append(play.same(_PENDING, _HAS_PAYLOAD))
    if random.random() < 0.5 or not init:
        steps += [s.Send("sipi", "msi", vector=random.getrandbits(8), judged=not init), play.same(_PENDING, _HAS_PAYLOAD)]
    if not play.migrated and random.random() < 0.15:
        play.migrated = True
        steps += [s.Migrate(random.choice(_ORDERS))]
        steps += [s.Expect(s.Is(_PENDING, int(init)), "pending")]
    steps += facts.leave
    target.block = ""
    if init:
        target.activity, target.fresh, target.nmis = rule("init", target).activity, True, 0
        steps.append(s.Observe())
    return tuple(steps)


def _blocks(play: Play) -> list[str]:
    """Those that this vCPU can be in: none in wait-for-SIPI, from which SIPI and RESET alone lead."""
    if play.target.activity == WAITS:
        return []
    vendors = {"vmx": "intel"}
    return [name for name in BLOCKS if name in play.states and vendors.get(name, play.vendor) == play.vendor]


def _migrate(play: Play) -> Steps:
    """A save and restore to a new VM, which changes nothing."""
    play.migrated = True
    return (s.Observe(), s.Migrate(play.random.choice(_ORDERS)))


def _chips(play: Play) -> Steps:
    """State of the two PICs and of a pin of the IOAPIC, all masked so that it reaches no vCPU, and a migration."""
    random = play.random
    pin = random.choice([pin for pin in range(KVM_IOAPIC_NUM_PINS) if pin != PIN])
    entry = MASKED | random.getrandbits(1) << 15 | random.getrandbits(1) << 13 | random.getrandbits(8) << 56
    pics = (*_pic(random, "pic_master", 0xF8), *_pic(random, "pic_slave", 0xDE))
    written = [s.Expect(s.Is(item, value), item, "vm") for item, value in pics]
    # The line stays raised.
    raises = raised(entry | random.randrange(0x10, 0xFF), pin)[:-1]
    return (s.Observe(), s.Set(pics, "vm", check=False), *written, *raises, play.same(), *_migrate(play))


def _pic(random: Random, name: str, levels: int) -> tuple[tuple[str, int], ...]:
    """The items of a PIC whose requests are all masked; ``levels`` are the lines that may be level-triggered."""
    requests, serviced, base, level = (random.getrandbits(bits) for bits in (8, 8, 5, 8))
    found = {"irr": requests, "isr": serviced, "imr": 0xFF, "irq_base": base << 3, "elcr": level & levels}
    return tuple((f"{name}.{field}", value) for field, value in found.items())


def _waits(play: Play) -> Steps:
    """A vCPU in wait-for-SIPI executes nothing."""
    return (s.Until(s.Quiet(), note="a vCPU in wait-for-SIPI made an exit"), s.Expect(s.Is("mp_state", WAITS), "mp_state"))


def _guest(play: Play) -> Steps:
    """Compare what the guest's instructions read after INIT with what the host's ioctls show."""
    steps = _init(play)
    start = () if play.target.bsp else (s.Send("sipi", "msi", vector=CONTINUE, judged=False),)
    return (*steps, *start, s.Guest())


class Move(NamedTuple):
    """``weight`` is the relative frequency among those that ``may`` be chosen."""

    weight: float
    make: Callable[[Play], Steps]
    may: Callable[[Play], bool] = lambda play: True
    event: str = ""


#: `guest` is the last move of a scenario that has it.
MOVES = {
    "plant": Move(2, _plant),
    "values": Move(8, _values),
    "pending": Move(4, _pending),
    "mp-state": Move(3, _mp_state, event="none"),
    "init": Move(8, _init, event="init"),
    "sipi": Move(6, _sipi, event="sipi"),
    "over-sipi": Move(3, _over_sipi, lambda play: play.target.activity == WAITS, "init"),
    "nmi": Move(2, _nmi, event="nmi"),
    "smi": Move(3, _smi, lambda play: "smm" in play.states and play.target.activity != WAITS, "smi"),
    "interrupt": Move(2, _interrupt, event="interrupt"),
    "other": Move(2, _other),
    "blocked": Move(8, _blocked, lambda play: bool(_blocks(play)), "init"),
    "migrate": Move(0.05, _migrate, lambda play: not play.migrated, "migrate"),
    "chips": Move(0.1, _chips, lambda play: not play.migrated, "migrate"),
    "waits": Move(0.02, _waits, lambda play: play.target.activity == WAITS),
}
GUEST = Move(0, _guest)


def read_once(steps: tuple[s.Step, ...]) -> tuple[s.Step, ...]:
    """``steps`` without those that read the target again to which nothing has happened since."""
    found, read = list[s.Step](), False
    for step in steps:
        again = step == s.Observe()
        if not (read and again):
            found.append(step)
        read = again or isinstance(step, s.Expect) and isinstance(step.condition, s.Same) or read and step == BETWEEN
    return tuple(found)
