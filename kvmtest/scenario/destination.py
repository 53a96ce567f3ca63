# SPDX-License-Identifier: GPL-2.0-only
"""The rules of the manuals for which local APICs accept a message, on local APICs as data.

SDM vol. 3, Determining IPI Destination, Logical Destination Mode and x2APIC, Logical Destination; APM vol. 2, Interprocessor
Interrupts and x2APIC. Nothing here knows KVM.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

__all__ = ("ALL", "DELIVERIES", "Address", "Local", "after_init", "derived", "matches", "receivers")

#: Delivery modes, as they stand in bits 10:8 of the ICR, of a message's data and of a redirection entry.
DELIVERIES = {"fixed": 0, "lowest": 1, "smi": 2, "nmi": 4, "init": 5, "sipi": 6}
#: The destination that is everybody, of 8 bits and of 32.
ALL = {False: 0xFF, True: 0xFFFFFFFF}
#: Delivery modes that only a software-enabled local APIC accepts.
_INTERRUPTS = ("fixed", "lowest")


class Local(NamedTuple):
    """The properties of a local APIC on which it depends whether it accepts a message.

    ``id`` is its APIC id, ``logical`` its logical id: bits 31:24 of LDR, or in x2APIC mode all of LDR. ``model`` is ``flat`` or
    ``cluster``, from DFR in xAPIC mode, or ``x2apic``, or ``off`` if IA32_APIC_BASE disables it. ``software`` is IA32_SVR[8].
    """

    id: int
    logical: int = 0
    model: str = "flat"
    software: bool = True


class Address(NamedTuple):
    """The destination of a message: physical or ``logical``; a ``wide`` one has 32 bits instead of 8.

    ``shorthand`` is ``self``, ``all`` or ``others`` instead of a destination.
    """

    destination: int = 0
    logical: bool = False
    shorthand: str = ""
    wide: bool = False


def derived(id: int) -> int:
    """The logical x2APIC id, which follows from the x2APIC ``id``: the cluster, and one of its 16 bits."""
    return id >> 4 << 16 | 1 << (id & 0xF)


def after_init(local: Local) -> Local:
    """A local APIC after INIT: ids stay, except the logical id in xAPIC mode, and it is software-disabled."""
    if local.model == "off":
        return local
    if local.model == "x2apic":
        return local._replace(software=False)
    return Local(local.id, 0, "flat", False)


def matches(local: Local, address: Address) -> bool:
    """Return True if ``address``, which has no shorthand, matches ``local``."""
    wanted = address.destination
    if local.model == "off":
        return False
    if wanted == ALL[address.wide]:
        return True
    if not address.logical:
        return wanted == local.id
    if local.model == "flat":
        return wanted & local.logical != 0
    cluster = 16 if local.model == "x2apic" else 4
    return wanted >> cluster == local.logical >> cluster and wanted & local.logical & (1 << cluster) - 1 != 0


def receivers(
    locals_: Mapping[int, Local], address: Address, delivery: str, sender: int | None = None
) -> tuple[tuple[int, ...], bool]:
    """Return which of ``locals_`` accept a message from the ICR of ``sender``, and whether only one of them does."""
    there = tuple(id for id, local in locals_.items() if local.model != "off")
    named = {
        "": tuple(id for id in there if matches(locals_[id], address)),
        "self": tuple(id for id in there if id == sender),
        "all": there,
        "others": tuple(id for id in there if id != sender),
    }[address.shorthand]
    found = tuple(id for id in named if locals_[id].software or delivery not in _INTERRUPTS)
    return found, delivery == "lowest" and len(found) > 1
