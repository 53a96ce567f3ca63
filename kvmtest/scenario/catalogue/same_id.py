# SPDX-License-Identifier: GPL-2.0-only
"""Messages to an APIC id that two vCPUs have, by KVM's promise.

No manual defines it: the manuals require unique ids. KVM's documentation promises that all vCPUs with the id get the message,
or with 32-bit x2APIC ids the one with the lowest vCPU id.
"""

from __future__ import annotations

from typing import NamedTuple

from kvmtest.scenario import step as s
from kvmtest.scenario.catalogue.destinations import SHOWS, written
from kvmtest.scenario.destination import DELIVERIES, Local
from kvmtest.scenario.setup import Setup
from kvmtest.scenario.step import Scenario
from kvmtest.scenario.triggers import signal
from kvmtest.spec.cite import KVM_API, KVM_PROMISE_IDS
from kvmtest.uapi.kvm import KVM_CAP_X2APIC_API, KVM_X2APIC_API_USE_32BIT_IDS

__all__ = ("SCENARIOS",)

_32_BIT_IDS = ((KVM_CAP_X2APIC_API, KVM_X2APIC_API_USE_32BIT_IDS),)
#: The id, and those that have it: the first one has it of its own.
_ID, _ALIKE = 1, (1, 2)
_VECTOR = 0x55
_INTEL = ("intel",)


class _Tried(NamedTuple):
    """A ``delivery`` to the id; ``mixed`` is whether the first vCPU that has it is in x2APIC mode, and the other one is not."""

    delivery: str
    mixed: bool
    wide: bool
    vendors: tuple[str, ...] = _INTEL


def _scenario(one: _Tried) -> Scenario:
    event = "none" if one.delivery == "fixed" else one.delivery
    data = DELIVERIES[one.delivery] << 8 | (_VECTOR if one.delivery in ("fixed", "sipi") else 0)
    item, value, mask = SHOWS[one.delivery]
    models = ("x2apic" if one.mixed else "flat", "flat")
    made = [
        step
        for id, model in zip(_ALIKE, models, strict=True)
        for step in written(id, Local(_ID, 1 << id, model), waits=one.delivery == "sipi")
    ]
    ids = _ALIKE[:1] if one.wide else _ALIKE
    steps = (*made, s.Event(event, "msi"), signal(_ID, data), s.Expect(s.Reached(item, value, ids, _ALIKE, mask)))
    words = (
        "fixed" if event == "none" else "", "32-bit-ids-same-id" if one.wide else "same-apic-id",
        "in-both-modes" if one.mixed else "",
    )  # fmt: skip
    cite = (KVM_PROMISE_IDS, *((KVM_API,) if one.wide else ()))
    setup = Setup(vcpus=3, caps=_32_BIT_IDS if one.wide else ())
    return Scenario(event, "msi", "-".join(filter(None, words)), steps, cite, setup=setup, vendors=one.vendors)


SCENARIOS = tuple(
    map(
        _scenario,
        (
            _Tried("init", mixed=False, wide=False, vendors=("intel", "amd")),
            _Tried("init", mixed=False, wide=True, vendors=("intel", "amd")),
            _Tried("init", mixed=True, wide=False),
            _Tried("sipi", mixed=True, wide=False),
            _Tried("sipi", mixed=False, wide=True),
            _Tried("nmi", mixed=True, wide=True),
            _Tried("fixed", mixed=False, wide=False),
            _Tried("fixed", mixed=True, wide=True),
        ),
    )
)
