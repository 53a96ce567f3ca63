# SPDX-License-Identifier: GPL-2.0-only
"""A vCPU that is written back to RESET by ioctls, as ops: save the new state, write a plant, and restore the new state."""

from __future__ import annotations

from collections.abc import Iterable

from kvmtest.emit.repro import MAY_FAIL, NoRepro, Repro, body
from kvmtest.emit.wanted import Source, Wanted
from kvmtest.scenario import program as p
from kvmtest.scenario.places import SECTIONS
from kvmtest.state.snapshot import ROOM
from kvmtest.state.vmm_reset import COMMANDS, SETTERS
from kvmtest.uapi import kvm as uapi

__all__ = ("of_reset",)

_MSR_HEAD, _MSR = 8, 16
#: The steps: what is read of the new vCPU, the plant, the write back, what is looked at then.
_NEW, _PLANT, _BACK, _LOOK = range(4)


def of_reset(plant: p.Program, source: Source, order: Iterable[str], wanted: Wanted, target: int, xcr0: int) -> Repro:
    """The reproducer of what ``wanted`` says of vCPU ``target`` after ``plant`` and the write back in ``order``.

    Its ``step`` is of no account. Raises NoRepro, Unreportable, GuestMissing.
    """
    buffers = dict(plant.buffers) | {MAY_FAIL: p.Buffer("s64", bytes(8))}
    new: list[p.Op] = []
    back: list[p.Op] = []
    for section in order:
        if section == "msrs":
            for index, item in zip(source.layout.msrs, source.layout.by_section["msrs"], strict=True):
                if item not in COMMANDS:
                    name = f"new_msr_{index:x}"
                    buffers[name] = p.Buffer("kvm_msrs", (1).to_bytes(_MSR_HEAD, "little") + index.to_bytes(_MSR, "little"))
                    new.append(p.Ioctl(target, uapi.KVM_GET_MSRS, name))
                    back.append(p.Ioctl(target, uapi.KVM_SET_MSRS, name, MAY_FAIL))
            continue
        read = next(one for one in source.reads if one.section == section)
        name = f"new_{section}"
        kind = SECTIONS[section][2].__name__ if section in SECTIONS else {"xsave": "kvm_xsave"}.get(section, section)
        contents = bytearray(read.data.raw)
        if section == "nested":
            # KVM reads the size of the buffer from `size`.
            contents[ROOM : ROOM + 4] = len(contents).to_bytes(4, "little")
        buffers[name] = p.Buffer(kind, bytes(contents))
        new.append(p.Ioctl(target, read.request, name))
        back.append(p.Ioctl(target, SETTERS[section], name))
    if wanted.guest:
        last: list[p.Op] = [p.Install(target, None), p.Report(target)]
    else:
        last = [p.Look(target)]
    steps = ((_NEW, new), (_PLANT, [op for _, op in plant.ops]), (_PLANT, [p.Look(target)]), (_BACK, back), (_LOOK, last))
    ops = tuple((step, op) for step, some in steps for op in some)
    made = body(p.Program(buffers, ops), {target: source}, wanted._replace(step=_LOOK), target, xcr0)
    field = source.layout.fields.get(wanted.items[0][0])
    if not field:
        raise NoRepro(f"no ioctl of this KVM reads {wanted.items[0][0]}")
    return made._replace(pinned=made.pinned | set(_written(made, field.section, wanted.items[0][0], source)))


def _written(made: Repro, section: str, item: str, source: Source) -> Iterable[int]:
    """The ops that write the item's section back: without them nothing is to be expected of it."""
    name = f"new_{section}"
    if section == "msrs":
        name = f"new_msr_{source.layout.msrs[source.layout.by_section['msrs'].index(item)]:x}"
    for at, (step, op) in enumerate(made.body.ops):
        if step == _BACK and isinstance(op, p.Ioctl) and op.arg == name:
            yield at
