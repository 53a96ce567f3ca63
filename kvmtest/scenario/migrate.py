# SPDX-License-Identifier: GPL-2.0-only
"""Lower a migration: the ioctls that read a VM and its vCPUs, a new VM, and the ioctls that write it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import Protocol

from kvmtest.scenario.orders import Order
from kvmtest.scenario.places import RESULT, fields
from kvmtest.scenario.program import VM, Alike, Compare, Ioctl, Look, Op, Otherwise, Place, Put, Rebuild
from kvmtest.spec.migrated import COUNTED
from kvmtest.uapi import kvm as uapi
from kvmtest.uapi.names import IOCTLS
from kvmtest.x86 import msr

__all__ = ("KEPT", "Part", "ops")

#: State that no ioctl reads: the VMM knows it, and writes it again.
KEPT = (uapi.KVM_SET_GSI_ROUTING, uapi.KVM_SET_GUEST_DEBUG, uapi.KVM_TPR_ACCESS_REPORTING, uapi.KVM_SET_VAPIC_ADDR)
_SIZE = 4
_MSR_ENTRY, _MSR_DATA = 16, 16


class Part(Protocol):
    """One structure of a section (`kvmtest.state.saved`)."""

    @property
    def get(self) -> int:
        """The ioctl that reads it."""

    @property
    def put(self) -> int:
        """The ioctl that writes it."""

    @property
    def kind(self) -> str:
        """The structure's name."""

    @property
    def contents(self) -> bytes:
        """The initial contents."""

    @property
    def number(self) -> int:
        """The value of one that is not a structure."""


_Sections = Mapping[str, Sequence[Part]]


class _Saved:
    """One part, in its buffer."""

    def __init__(self, on: int, section: str, part: Part, buffer: Callable[[str, str, bytes], str]) -> None:
        self.on, self.section, self.part = on, section, part
        who = "" if on == VM else on
        self.buffer = buffer(f"saved_{section.replace('.', '_')}{who}", part.kind, part.contents) if part.kind else ""

    @property
    def count(self) -> int:
        """The number of MSRs."""
        return int.from_bytes(self.part.contents[:4], "little") if self.part.kind == "kvm_msrs" else 0

    def read(self) -> Iterable[Op]:
        """Read it."""
        if not self.buffer:
            return
        if self.part.kind == "kvm_nested_state":
            # KVM reads the size of the buffer from `size`, and writes the used size back.
            yield Put(Place(self.buffer, _SIZE, 4, "size"), len(self.part.contents))
        if not self.count:
            yield Ioctl(self.on, self.part.get, self.buffer)
            return
        yield Ioctl(self.on, self.part.get, self.buffer, "result")
        yield Compare(RESULT, (self.count,), Otherwise("error", "KVM_GET_MSRS refuses an MSR that it has read before"))

    def again(self, buffer: Callable[[str, str, bytes], str]) -> Iterable[Op]:
        """Read it again, and return its present value: for the clock both values."""
        name = buffer(f"{self.buffer}_now", self.part.kind, self.part.contents)
        yield Ioctl(self.on, self.part.get, name)
        if self.part.kind == "kvm_clock_data":
            at = uapi.kvm_clock_data.clock.offset
            yield from (Compare(Place(each, at, 8, "clock"), (), Otherwise("", ""), unlike=True) for each in (self.buffer, name))
        else:
            yield Alike(self.buffer, name)

    def write(self) -> Iterable[Op]:
        """Write it; what KVM refuses is a departure: it gave this itself."""
        if self.part.kind == "kvm_clock_data":
            # Flags that KVM_GET_CLOCK sets; KVM before v5.16 refuses any.
            yield Put(Place(self.buffer, uapi.kvm_clock_data.flags.offset, 4, "flags"), 0)
        yield Ioctl(self.on, self.part.put, self.buffer or self.part.number, "result")
        yield Compare(RESULT, (self.count,), Otherwise("fail", self.name))

    @property
    def name(self) -> str:
        """The ioctl that KVM would refuse; for MSRs with all of them, in order."""
        if not self.count:
            return IOCTLS[self.part.put]
        return _named(IOCTLS[self.part.put], self.part.contents)

    def counter(self, item: str) -> Iterable[Op]:
        """The value of ``item`` that was saved, where it is here: evidence that ends nothing."""
        if place := self._place(item):
            yield Compare(place, (), Otherwise("", ""), unlike=True)

    def _place(self, item: str) -> Place | None:
        if not item.startswith("msr."):
            section, offset, size = fields()[item]
            return Place(self.buffer, offset, size, item) if section == self.section else None
        index = msr.index_of(item.removeprefix("msr.")).to_bytes(8, "little")
        for number in range(self.count):
            if self.part.contents[8 + _MSR_ENTRY * number :][:8] == index:
                return Place(self.buffer, _MSR_DATA + _MSR_ENTRY * number, 8, item)
        return None


@cache
def _named(request: str, msrs: bytes) -> str:
    """An ioctl with the MSRs of its struct kvm_msrs."""
    indexes = (int.from_bytes(msrs[at : at + 4], "little") for at in range(8, len(msrs), _MSR_ENTRY))
    return " ".join((request, *map(msr.name_of, indexes)))


def ops(
    order: Order,
    vcpus: Mapping[int, _Sections],
    vm: _Sections,
    kept: Iterable[Ioctl],
    buffer: Callable[[str, str, bytes], str],
) -> list[Op]:
    """The ops of a migration, of the sections that ``vcpus`` and ``vm`` have; ``kept`` is written again as it was.

    All ``vcpus`` are read before it and after it.
    """

    def parts(on: int, sections: _Sections, names: Iterable[str]) -> list[_Saved]:
        return [_Saved(on, name, part, buffer) for name in names for part in sections.get(name, ())]

    of_vm = [name for name in order.added if name in vm]
    added = [name for name in order.added if name not in vm]
    found: list[Op] = []
    counters: list[Op] = []
    for id, sections in vcpus.items():
        saved = parts(id, sections, dict.fromkeys((*order.save, *order.restore, *added)))
        found += [op for one in saved for op in one.read()]
        counters += [op for item in COUNTED for one in saved for op in one.counter(item)]
    before, after = parts(VM, vm, order.before), parts(VM, vm, (*order.after, *of_vm))
    found += [op for one in (*before, *after) for op in one.read()]
    found += [*counters, *map(Look, vcpus), Rebuild()]
    found += [op for one in before for op in one.write()]
    for id, sections in vcpus.items():
        found += [op for one in parts(id, sections, (*order.restore, *added)) for op in one.write()]
    found += [op for one in after for op in one.write()]
    # The clock comes last.
    devices = sorted((*before, *after), key=lambda one: one.section == "clock")
    return [*found, *kept, *(op for one in devices for op in one.again(buffer)), *map(Look, vcpus)]
