# SPDX-License-Identifier: GPL-2.0-only
"""A migration in ops that can each be left out: single MSRs, and only the comparison to be shown."""

from __future__ import annotations

from typing import NamedTuple

from kvmtest.emit.repro import Repro
from kvmtest.scenario import program as p
from kvmtest.state.layout import Layout
from kvmtest.uapi import kvm as uapi
from kvmtest.x86 import msr

__all__ = ("Refused", "is_saved", "plain", "restoring", "saved")

_HEAD, _MSR = 8, 16
#: The beginning of the names of a migration's buffers.
_SAVED = "saved_"
#: Sections that show the same as another one.
_OTHERS = {"sregs": ("sregs2",), "xsave": ("fpu",)}
#: Ops with a result.
_WITH_RESULT = (p.Compare, p.Look, p.Alike)
_ANSWER = "result"


class Refused(NamedTuple):
    """KVM's refusal to restore something: the last of the first ``number`` results of a ``step``, and its ``result``."""

    step: int
    number: int
    result: int


def is_saved(buffer: str) -> bool:
    """Return True if a buffer of this name holds state that a migration saves."""
    return buffer.startswith(_SAVED)


def saved(program: p.Program, index: int) -> bool:
    """Return True if a migration in ``program`` saves the MSR of this ``index``."""
    buffers = {op.arg for _, op in program.ops if isinstance(op, p.Ioctl)} & program.buffers.keys()
    return any(is_saved(name) and index in _indexes(program.buffers[name]) for name in map(str, buffers))


def plain(program: p.Program, refused: Refused | None = None, unlisted: tuple[int, int] | None = None) -> p.Program:
    """Return ``program`` with its migrations in single ops, which must all succeed.

    With ``refused`` it ends with that. ``unlisted`` is a vCPU and the index of an MSR that is written back only where
    KVM_GET_MSR_INDEX_LIST names it.
    """
    steps = {step for step, op in program.ops if isinstance(op, p.Rebuild)}
    if not steps:
        return program
    last, seen, moved = max(steps), 0, False
    buffers, ops = dict(program.buffers), list[tuple[int, p.Op]]()
    kept = _alone_in(buffers, *unlisted) if unlisted else ""
    for at, (step, op) in enumerate(program.ops):
        if step not in steps:
            ops.append((step, op))
            continue
        moved |= step == last and isinstance(op, p.Rebuild)
        seen += bool(refused and step == refused.step and isinstance(op, _WITH_RESULT))
        if refused and seen == refused.number and isinstance(op, p.Compare):
            put = program.ops[at - 1][1]
            assert isinstance(put, p.Ioctl)
            del ops[len(ops) - len(_single(buffers, put)) :]
            return p.Program(buffers, (*ops, *((step, one) for one in _refusal(buffers, put, refused.result))))
        if unlisted and step == last and isinstance(op, p.Look) and op.vcpu == unlisted[0]:
            ops.append((step, p.Listed(op.vcpu, kept) if moved else p.Ioctl(op.vcpu, uapi.KVM_GET_MSRS, kept)))
        ops += [(step, one) for one in _single(buffers, op)]
    return p.Program(buffers, tuple(ops))


def _single(buffers: dict[str, p.Buffer], op: p.Op) -> list[p.Op]:
    """Return the replacement of one op; add the buffers that it needs to ``buffers``."""
    if isinstance(op, (p.Compare, p.Alike)):
        return []
    if not isinstance(op, p.Ioctl):
        return [op]
    if not isinstance(op.arg, str) or buffers[op.arg].kind != "kvm_msrs":
        return [op._replace(result="")]
    return [p.Ioctl(op.on, op.request, _alone_in(buffers, op.on, index)) for index in _indexes(buffers[op.arg])]


def _refusal(buffers: dict[str, p.Buffer], op: p.Ioctl, result: int) -> list[p.Op]:
    """Return the ioctl that KVM refused, with a check of its result. The MSRs before the refused one are accepted."""
    ops, wanted = _single(buffers, op), 0
    if isinstance(op.arg, str) and buffers[op.arg].kind == "kvm_msrs":
        ops, wanted = ops[: result + 1], 1
    last = ops[-1]
    assert isinstance(last, p.Ioctl)
    asked = p.Compare(p.Place(_ANSWER, 0, 8), (wanted,), p.Otherwise("fail", ""))
    return [*ops[:-1], last._replace(result=_ANSWER), asked]


def _indexes(buffer: p.Buffer) -> list[int]:
    """The MSRs of one struct kvm_msrs."""
    if buffer.kind != "kvm_msrs":
        return []
    return [int.from_bytes(buffer.contents[at : at + 4], "little") for at in range(_HEAD, len(buffer.contents), _MSR)]


def _alone_in(buffers: dict[str, p.Buffer], vcpu: int, index: int) -> str:
    """The buffer for one MSR of one vCPU."""
    name = f"{_SAVED}msr_{index:x}_of_{vcpu}"
    buffers[name] = p.Buffer("kvm_msrs", (1).to_bytes(_HEAD, "little") + index.to_bytes(_MSR, "little"))
    return name


def restoring(made: Repro, layout: Layout, item: str) -> Repro:
    """``made``, from which the new VM is not left out, nor what saves ``item`` and writes it back."""
    field = layout.fields[item]
    if field.section == "msrs":
        index = msr.index_of(item.removeprefix("msr."))
        names: tuple[str, ...] = (f"{_SAVED}msr_{index:x}_of_{made.target}",)
    else:
        names = tuple(f"{_SAVED}{section}{made.target}" for section in (field.section, *_OTHERS.get(field.section, ())))
    ops = [op for _, op in made.body.ops]
    kept = {at for at, op in enumerate(ops) if isinstance(op, (p.Ioctl, p.Listed)) and set(p.buffers_of(op)) & set(names)}
    return made._replace(pinned=made.pinned | kept | {at for at, op in enumerate(ops) if isinstance(op, p.Rebuild)})
