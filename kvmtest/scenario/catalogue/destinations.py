# SPDX-License-Identifier: GPL-2.0-only
"""Destinations of all kinds in all modes, on a VM of five vCPUs, compared with a model of the manuals."""

from __future__ import annotations

from itertools import combinations, product
from typing import NamedTuple

from kvmtest.model.record import EVENTS
from kvmtest.scenario import step as s
from kvmtest.scenario.covering import covering
from kvmtest.scenario.destination import ALL, DELIVERIES, Address, Local, after_init, derived, receivers
from kvmtest.scenario.setup import VENDORS, Setup
from kvmtest.scenario.step import Scenario
from kvmtest.scenario.triggers import raised, signal
from kvmtest.spec.cite import A_ICR, A_RECEIVING, KVM_ERRATA, S_APIC_DISABLED, S_ICR, S_IPI_DESTINATION, S_MSI
from kvmtest.uapi.kvm import KVM_MP_STATE_INIT_RECEIVED, KVM_MP_STATE_RUNNABLE

__all__ = ("IDS", "SCENARIOS", "SHOWS", "locals_of", "written")

#: Two clusters in each model; the first one sends.
IDS = (0, 1, 2, 17, 18)
_SENDER, _NAMED = 0, 2
_FLAT = dict(zip(IDS, (0x01, 0x02, 0x04, 0x08, 0x10), strict=True))
_CLUSTER = dict(zip(IDS, (0x11, 0x12, 0x14, 0x21, 0x22), strict=True))
#: A second bit for the logical id of one, which nobody else has.
_SECOND = {"flat": 0x20, "cluster": 0x08}
#: Nobody's: an id, a bit in the cluster of others, and one in a cluster that nobody is in.
_NO_ID, _FREE_BIT = 0x63, {"flat": 0x40, "cluster": 0x08, "x2apic": 0x40}
_NO_BIT, _NO_CLUSTER = {"flat": 0x40, "cluster": 0x38, "x2apic": 0x40}, 5 << 16 | 1
_VECTOR, _IRR_BIT = 0x55, 1 << 21
#: Items that show that a vCPU outside KVM_RUN got a message: item, value, mask. KVM_GET_MP_STATE makes it accept a SIPI.
SHOWS = {
    "init": ("events.smi_latched_init", 1, 1), "sipi": ("mp_state", KVM_MP_STATE_RUNNABLE, 0xFFFFFFFF),
    "nmi": ("events.nmi_pending", 1, 0xFF), **dict.fromkeys(("fixed", "lowest"), ("lapic.irr2", _IRR_BIT, _IRR_BIT)),
}  # fmt: skip
#: Writes that clear what an earlier case left pending.
_NOTHING = (("events.nmi_pending", 0), ("events.nmi_masked", 0), ("events.smi_latched_init", 0))
_DFR = {"flat": 0xFFFFFFFF, "cluster": 0x0FFFFFFF}
_EN, _EXTD, _BSP = 1 << 11, 1 << 10, 1 << 8
#: The ICR's bits.
_ASSERT, _LOGICAL, _SHORTHANDS = 1 << 14, 1 << 11, {"": 0, "self": 1 << 18, "all": 2 << 18, "others": 3 << 18}

_MODELS = ("flat", "cluster", "x2apic")
_TO_ALL = "physical-broadcast", "logical-broadcast"
_TO = (
    "physical", "physical-nobody", "logical", "logical-several", "logical-nobody", "logical-and-nobody", *_TO_ALL,
    "self", "all", "others",
)  # fmt: skip
#: Properties in which one vCPU differs from the others.
_ODD = ("", "shared-id", "shared-logical-id", "two-logical-ids", "software-disabled", "disabled")
_CITE = (S_IPI_DESTINATION, S_ICR, S_MSI, A_ICR, A_RECEIVING)
_CITES = dict.fromkeys(_ODD, ()) | {"shared-id": (KVM_ERRATA,), "software-disabled": (S_APIC_DISABLED,)}
_SETUP = Setup(ids=IDS)


class _Tried(NamedTuple):
    route: str
    delivery: str
    model: str
    to: str
    odd: str
    vendor: str


def _allowed(one: _Tried) -> bool:
    """Return True if the manuals define this combination."""
    if one.model == "x2apic" and "-id" in one.odd:
        return False  # ids are read-only there
    if (one.odd, one.to) == ("two-logical-ids", "logical-and-nobody") or one.delivery == "smi":
        return False
    if one.route != "icr" and (one.to in _SHORTHANDS or one.delivery == "sipi"):
        return False
    if one.delivery == "lowest" and (one.route == "icr" or not one.to.startswith("logical")):
        # Of IPIs it is up to the model.
        return False
    # The shorthands that are valid (SDM, Valid Combinations); and the sender goes on, so that it can say that it has sent.
    if one.to in ("self", "all") and one.delivery != "fixed":
        return False
    return not (one.route == "icr" and one.delivery == "init" and one.to in _TO_ALL)


def locals_of(model: str, odd: str) -> dict[int, Local]:
    """The local APICs, one of which is ``odd``."""
    logical = {id: derived(id) for id in IDS} if model == "x2apic" else _FLAT if model == "flat" else _CLUSTER
    made = {id: Local(id, logical[id], model) for id in IDS}
    one = made[_NAMED]
    made[_NAMED] = {
        "": one,
        "shared-id": one._replace(id=1),
        "shared-logical-id": one._replace(logical=logical[1]),
        "two-logical-ids": one._replace(logical=one.logical | _SECOND.get(model, 0)),
        "software-disabled": one._replace(software=False),
        "disabled": one._replace(model="off"),
    }[odd]
    return made


def _address(one: _Tried, locals_: dict[int, Local]) -> Address:
    """Return the message's destination: the odd vCPU if it names a single one."""
    wide = one.model == "x2apic" and one.route == "icr"
    if one.to in _SHORTHANDS:
        return Address(shorthand=one.to, wide=wide)
    named = locals_[_NAMED]
    logical = named.logical & 0xF0 | _SECOND[one.model] if one.odd == "two-logical-ids" else named.logical
    destination = {
        "physical": named.id, "physical-nobody": _NO_ID, "physical-broadcast": ALL[wide], "logical-broadcast": ALL[wide],
        "logical": logical, "logical-several": locals_[1].logical | logical, "logical-and-nobody": logical | _FREE_BIT[one.model],
        "logical-nobody": _NO_CLUSTER if wide else _NO_BIT[one.model],
    }[one.to]  # fmt: skip
    return Address(destination, one.to.startswith("logical"), wide=wide)


def written(id: int, local: Local, *, waits: bool) -> tuple[s.Step, ...]:
    """A vCPU with this local APIC, which ``waits`` for a SIPI or can run."""
    off = 0xFEE00000 | (_BSP if id == _SENDER else 0)
    base = off | _EN | (_EXTD if local.model == "x2apic" else 0)
    always = (("lapic.svr", 0x1FF if local.software else 0xFF), ("lapic.irr2", 0))
    xapic = (("lapic.id", local.id << 24), ("lapic.ldr", local.logical << 24), ("lapic.dfr", _DFR.get(local.model, 0)), *always)
    items = always if local.model == "x2apic" else xapic
    mp_state = KVM_MP_STATE_INIT_RECEIVED if waits and id != _SENDER else KVM_MP_STATE_RUNNABLE
    there = s.Set((("mp_state", mp_state), *_NOTHING, ("apic_base", base), *items), id, check=False)
    return (there, s.Set((("apic_base", off),), id)) if local.model == "off" else (there,)


def _sent(one: _Tried, address: Address, sender: Local) -> tuple[s.Step, ...]:
    """The message, by guest code or by a device."""
    data = DELIVERIES[one.delivery] << 8 | (_VECTOR if one.delivery in ("fixed", "lowest", "sipi") else 0)
    if one.route == "msi":
        return (signal(address.destination, data, logical=address.logical),)
    if one.route == "ioapic":
        return raised(address.destination << 56 | (_LOGICAL if address.logical else 0) | data)
    icr = data | _ASSERT | _SHORTHANDS[address.shorthand] | (_LOGICAL if address.logical else 0)
    return (
        s.Sender(icr, address.destination, "x2apic" if address.wide else "xapic"), *written(_SENDER, sender, waits=False),
        s.Set((("events.nmi_masked", 1),), "other"), s.Until(s.Word("sender.SENT"), "other"), s.Complete("other"),
    )  # fmt: skip


def _scenario(one: _Tried) -> Scenario:
    locals_ = locals_of(one.model, one.odd)
    address = _address(one, locals_)
    event = one.delivery if one.delivery in EVENTS else "none"
    trigger = f"icr-{'x2apic' if address.wide else 'xapic'}" if one.route == "icr" else one.route
    of = IDS[1:] if one.delivery == "sipi" else IDS

    def reached(there: dict[int, Local]) -> tuple[tuple[int, ...], s.Step]:
        ids, alone = receivers(there, address, one.delivery, _SENDER if one.route == "icr" else None)
        item, value, mask = SHOWS[one.delivery]
        return ids, s.Expect(s.Reached(item, value, tuple(id for id in ids if id in of), of, mask, alone))

    sent = _sent(one, address, locals_[_SENDER])
    ids, expected = reached(locals_)
    steps: tuple[s.Step, ...] = (
        *(step for id, local in locals_.items() for step in written(id, local, waits=one.delivery == "sipi")),
        s.Event(event, trigger), *sent, expected,
    )  # fmt: skip
    if one.delivery == "init":
        # Those that have accepted it have other logical ids, in xAPIC mode.
        after = {id: after_init(local) if id in ids else local for id, local in locals_.items()}
        steps = (*steps, *(s.Settle(id) for id in ids), *sent, reached(after)[1])
    words = (one.delivery if event == "none" else "", "to", one.to, one.model, f"one-{one.odd}" if one.odd else "")
    sequence = "-".join(filter(None, words))
    return Scenario(event, trigger, sequence, steps, _CITES[one.odd] + _CITE, setup=_SETUP, vendors=(one.vendor,), fresh=False)


_EVERY = map(_Tried._make, product(("icr", "msi", "ioapic"), DELIVERIES, _MODELS, _TO, _ODD, VENDORS))
#: Each pair of parameters is in one of the cases.
_PAIRS = tuple(combinations(range(len(_Tried._fields)), 2))

#: Among several that can run KVM chooses by the vector or, with its parameter vector_hashing=0, by who has had the fewest.
_CHOSEN = _Tried("msi", "lowest", "flat", "logical-several", "", "intel")

SCENARIOS = tuple(map(_scenario, dict.fromkeys((*covering(filter(_allowed, _EVERY), _PAIRS), _CHOSEN))))
