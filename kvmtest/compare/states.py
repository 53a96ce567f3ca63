# SPDX-License-Identifier: GPL-2.0-only
"""Differences between two snapshots, and between the origins of two files. Pure."""

from __future__ import annotations

from typing import NamedTuple

from kvmtest.compare.snapshot import Item, State
from kvmtest.model.host import Host
from kvmtest.spec.untouched import COUNTERS

__all__ = ("Change", "difference", "hosts", "made")

_NONE = Item(None, None, "the snapshot has no such item")


class Change(NamedTuple):
    """An item that is not the same in both."""

    name: str
    a: Item
    b: Item


def difference(a: State, b: State) -> list[Change]:
    """The items whose value, or whose planted value, is not the same in both; a counter's values do not count.

    What only one of the two can read differs; why the other cannot does not matter.
    """
    found = []
    for name in dict.fromkeys((*a.items, *b.items)):
        here, there = a.items.get(name, _NONE), b.items.get(name, _NONE)
        if name in COUNTERS:
            same = (here.value is None) == (there.value is None)
        else:
            same = (here.value, here.planted) == (there.value, there.planted)
        if not same:
            found.append(Change(name, here, there))
    return found


def made(a: State, b: State) -> list[tuple[str, str, str]]:
    """Return the differences in how the two were made: name, and both values."""
    return [(name, value, b.made[name]) for name, value in a.made.items() if value != b.made[name]]


def hosts(a: Host, b: Host) -> list[tuple[str, str, str]]:
    """Return the differences between the two hosts: name, and both values; "-" for a parameter that one of them does not have.

    JSON lines of single records have no host: there is nothing to compare then.
    """
    if "unknown" in (a.kernel, b.kernel):
        return []
    here, there = _facts(a), _facts(b)
    names = dict.fromkeys((*here, *there))
    return [(n, here.get(n, "-"), there.get(n, "-")) for n in names if here.get(n, "-") != there.get(n, "-")]


def _facts(host: Host) -> dict[str, str]:
    facts = {"kernel": host.kernel, "backend": host.backend, "CPU vendor": host.cpu_vendor, "CPU": host.cpu_model}
    facts |= {name: value for name, value in (("host", host.name), ("on", host.accel)) if value}
    if host.lab:
        facts |= {name: str(host.lab[name]) for name in ("emulator", "kernel_source")}
    return facts | {f"parameter {name}": value for name, value in host.parameters.items()}
