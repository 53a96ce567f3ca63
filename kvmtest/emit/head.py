# SPDX-License-Identifier: GPL-2.0-only
"""The head comment of a reproducer: what it does, what the manuals expect, what was observed where."""

from __future__ import annotations

import shlex
import textwrap
from collections.abc import Iterable
from typing import NamedTuple

from kvmtest.emit.fields import member
from kvmtest.emit.moving import is_saved
from kvmtest.emit.msr_names import macro
from kvmtest.emit.repro import Repro
from kvmtest.model.host import Host
from kvmtest.model.value import text
from kvmtest.scenario import program as p
from kvmtest.scenario.text import EVENTS, SENT
from kvmtest.spec.deviations import DEVIATIONS
from kvmtest.uapi import kvm as uapi
from kvmtest.uapi.names import IOCTLS

__all__ = ("About", "Shown", "lines", "value")

_WIDTH = 76
#: The write that sends an INIT; it is described as an INIT instead.
_SENDS = ["smi.latched_init"]
#: More fields than are named.
_MANY = 6
#: The names of KVM's vendor modules, by backend.
_MODULES = {"svm": "kvm_amd", "vmx": "kvm_intel"}


class About(NamedTuple):
    """A result in words: its ``id``, the ``case``, item, event and trigger, expected and observed value, and the manuals.

    ``departs`` is whether it is another value than the one expected. ``deviation`` is the listed one's commit or function.
    ``more`` is how many other results the program shows besides.
    """

    id: str
    case: str
    item: str
    event: str
    trigger: str
    expected: str
    observed: str
    cite: tuple[str, ...]
    departs: bool
    reason: str = ""
    deviation: str = ""
    more: int = 0

    @property
    def name(self) -> str:
        """The result's id and the words of its case: what a report prints."""
        return f"{self.id}/{self.case.partition('/')[2]}"


class Shown(NamedTuple):
    """A reproducer, what it shows, how many ``ops`` the case has in all, and the number of ``tries`` of leaving them out."""

    repro: Repro
    about: About
    ops: int = 0
    tries: int = 0


def lines(about: About, repro: Repro, host: Host) -> list[str]:
    """The lines of the comment that a program begins with."""
    when = "" if about.event == "none" else f" after {EVENTS.get(about.event, about.event)}"
    where = f"Linux {host.kernel}, {_MODULES.get(host.backend, host.backend)}"
    if about.departs:
        first = f"{about.item}{when}: expected {about.expected}, observed {about.observed} on {where}."
    else:
        first = f"{about.item}{f' and {about.more} more' if about.more else ''}{when}: as expected on {where}."
    said = [first, _does(repro, about)]
    if about.cite:
        said.append(f"Expected by: {'; '.join(about.cite)}.")
    if about.deviation:
        why = next((deviation.why for deviation in DEVIATIONS if deviation.commit == about.deviation), "")
        said.append(f"Known: {about.deviation}{f', {why}' if why else ''}.")
    found = [line for sentence in said for line in textwrap.wrap(sentence, _WIDTH, break_on_hyphens=False)]
    return [*found, "", f"kvmtest run {shlex.quote(about.name)}"]


def _does(repro: Repro, about: About) -> str:
    """Describe the program in a sentence."""
    ops = [op for _, op in repro.body.ops]
    written = [(name, fields) for name, fields in _written(repro, ops) if fields != _SENDS]
    parts = [f"{name} sets {_some(fields)}" for name, fields in written]
    if any(isinstance(op, (p.Enter, p.Start)) for op in ops):
        parts.append("guest code runs")
    if any(isinstance(op, p.Rebuild) for op in ops):
        parts.append("what a VMM saves is written to a new VM")
    sent = SENT.get(f"{about.event}.{about.trigger}") or SENT.get(about.trigger, "")
    if about.event != "none" and sent:
        parts.append(f"{EVENTS.get(about.event, about.event)} comes by {sent.partition(',')[0]}")
    reads = [op for op in ops if isinstance(op, p.Ioctl) and op.request >> 31]
    if repro.checks and reads:
        parts.append(f"{IOCTLS.get(reads[-1].request, '')} reads what it left")
    return f"{'; '.join(parts)}." if parts else "Nothing is done to a new vCPU but reading it."


def _some(fields: list[str]) -> str:
    """The first of ``fields``, and how many more there are."""
    shown = fields if len(fields) <= _MANY else [*fields[: _MANY - 1], f"{len(fields) - _MANY + 1} more fields"]
    return ", ".join(shown)


def _written(repro: Repro, ops: Iterable[p.Op]) -> list[tuple[str, list[str]]]:
    """The ioctls that write, each with the fields that were changed before."""
    found: list[tuple[str, list[str]]] = []
    changed: dict[str, list[str]] = {}
    for op in ops:
        if isinstance(op, p.Put):
            buffer = repro.body.buffers[op.place.buffer]
            one = member(buffer.kind, len(buffer.contents), op.place.offset, op.place.size)
            changed.setdefault(op.place.buffer, []).append(one.path if one else op.place.name or buffer.kind)
        elif isinstance(op, p.Ioctl) and isinstance(op.arg, str) and not op.request >> 31 and op.arg in changed:
            fields = changed.pop(op.arg)
            found.append((IOCTLS.get(op.request, ""), fields))
        elif isinstance(op, p.Ioctl) and op.request == uapi.KVM_SET_MSRS and isinstance(op.arg, str) and not is_saved(op.arg):
            index = int.from_bytes(repro.body.buffers[op.arg].contents[8:12], "little")
            if found and found[-1][0] == "KVM_SET_MSRS":
                found[-1][1].append(macro(index))
            else:
                found.append(("KVM_SET_MSRS", [macro(index)]))
    return found


def value(item: str, seen: int | str | None) -> str:
    """A value as a comment has it."""
    return text(item, seen) or "nothing"
