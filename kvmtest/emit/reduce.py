# SPDX-License-Identifier: GPL-2.0-only
"""Leave out of a reproducer all that its departure does not need, by trying."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from functools import partial
from typing import TypeVar

from kvmtest.emit.repro import Repro, buffers_of
from kvmtest.emit.several import Several
from kvmtest.scenario import program as p
from kvmtest.x86 import cpuid

__all__ = ("Shows", "reduced", "subset", "used")

#: A test if a reproducer still shows the departure; ``now`` is the value that replaces ``before`` in its checks.
Shows = Callable[[Repro, int, int], bool]

_ALL = (1 << 64) - 1

_T = TypeVar("_T")
_Ops = tuple[tuple[int, p.Op], ...]


def subset(parts: Sequence[_T], shows: Callable[[list[_T]], bool]) -> list[_T]:
    """Return a minimal part of ``parts`` that shows it: leave out runs of them, from halves down to single ones.

    Zeller and Hildebrandt, "Simplifying and Isolating Failure-Inducing Input", without the step to the parts themselves.
    """
    left = list(parts)
    size = max(1, len(left) // 2)
    while True:
        at, found = len(left), False
        # From the end: what comes later rests on what comes before it.
        while at > 0:
            start = max(0, at - size)
            tried = left[:start] + left[at:]
            if shows(tried):
                left, found = tried, True
            at = start
        if size == 1 and not found:
            return left
        size = max(1, size // 2)


def _needs(ops: Sequence[p.Op]) -> list[set[int]]:
    """For each op the ones before it without which it says nothing: what has read the section that it writes or compares."""
    needs: list[set[int]] = []
    filled: dict[str, int] = {}
    for at, op in enumerate(ops):
        needs.append(set())
        names = p.buffers_of(op)
        if isinstance(op, (p.Compare, p.Apart, p.Sum)):
            needs[-1] = {filled[name] for name in names if name in filled}
        elif isinstance(op, p.Ioctl) and not _reads(op) and op.arg in filled:
            needs[-1] = {filled[op.arg]}
        if isinstance(op, p.Ioctl):
            filled.update((name, at) for name in names if _reads(op) or name == op.result)
        elif isinstance(op, p.Cpuid):
            filled.update((name, at) for name in names)
        elif isinstance(op, p.Peek):
            filled[op.to.buffer] = at
        elif isinstance(op, p.Sum):
            filled[op.place.buffer] = at
    return needs


def _reads(op: p.Ioctl) -> bool:
    """Return True if an ioctl fills its structure: the direction is in bits 31:30 of its number."""
    return bool(op.request >> 31)


def reduced(repro: Repro, shows: Shows, progress: Callable[[str], None] = lambda what: None) -> Repro:
    """The smallest reproducer found that still ``shows`` it: ops, then bits of values. ``progress`` gets the progress."""
    vm, body = repro.vm.ops, repro.body.ops
    needs = _needs([op for _, op in body])
    fixed = {len(body) - 1, *repro.pinned}
    for at in reversed(range(len(body))):
        if at in fixed:
            fixed |= needs[at]
    fixed_vm = {at for at, (_, op) in enumerate(vm) if repro.cpuid and isinstance(op, p.Cpuid) and op.vcpu == repro.target}
    again = {op.vcpu for _, op in body if isinstance(op, p.Cpuid)}
    fixed_vm |= {at for at, (_, op) in enumerate(vm) if isinstance(op, p.Cpuid) and op.vcpu in again}
    fixed_vm |= repro.pinned_vm
    free = [(True, at) for at in range(len(vm)) if at not in fixed_vm]
    free += [(False, at) for at in range(len(body)) if at not in fixed]

    def made(chosen: Sequence[tuple[bool, int]]) -> Repro:
        left = fixed | {at for in_vm, at in chosen if not in_vm}
        for at in range(len(body)):
            if at in left and not needs[at] <= left:
                left.discard(at)
        left_vm = fixed_vm | {at for in_vm, at in chosen if in_vm}
        return _with(repro, tuple(vm[at] for at in sorted(left_vm)), tuple(body[at] for at in sorted(left)))

    found = made(subset(free, lambda chosen: shows(made(chosen), 0, 0)))
    progress(f"{len(found.vm.ops) + len(found.body.ops)} of {len(vm) + len(body)} ops left")
    some = dict(repro.bits)
    kept = {body[at]: some.get(at, _ALL) for at in repro.pinned}
    return _values(_leaves(_fewer(found, shows), shows), shows, kept)


def _fewer(repro: Repro, shows: Shows) -> Repro:
    """Leave out vCPUs without an expectation, if several are observed."""
    for check in repro.checks:
        several = check.place
        if not isinstance(several, Several):
            continue
        for id, _ in several.of:
            if any(value >> id & 1 for value in check.values):
                continue
            there = [op for of in (repro.vm, repro.body) for _, op in of.ops]
            its = {name for op in there if _concerns(op, id) for name in p.buffers_of(op)}
            its -= {name for op in there if isinstance(op, p.Ioctl) and not _concerns(op, id) for name in p.buffers_of(op)}
            vm, body = (tuple(one for one in of.ops if not _concerns(one[1], id, its)) for of in (repro.vm, repro.body))
            left = several._replace(of=tuple(one for one in several.of if one[0] != id))
            tried = _with(repro, vm, body)._replace(checks=(check._replace(place=left),))
            if shows(tried, 0, 0):
                repro, several = tried, left
    return repro


def _concerns(op: p.Op, vcpu: int, buffers: Container[str] = ()) -> bool:
    """Return True if an op concerns that vCPU, or one of ``buffers``."""
    if isinstance(op, (p.Put, p.Compare)):
        return op.place.buffer in buffers
    return op.on == vcpu if isinstance(op, p.Ioctl) else getattr(op, "vcpu", None) == vcpu


def _leaves(repro: Repro, shows: Shows) -> Repro:
    """Fewer changes to CPUID, where a vCPU is not given it again."""
    again = {op.vcpu for _, op in repro.body.ops if isinstance(op, p.Cpuid)}
    for at, (step, op) in enumerate(repro.vm.ops):
        if isinstance(op, p.Cpuid) and op.vcpu not in again:
            kept = tuple(one for one in op.changes if op.vcpu == repro.target and one[:2] in repro.cpuid)
            made = partial(_changing, repro, at, step, op, kept)
            left = subset([one for one in op.changes if one not in kept], partial(_still, shows, made))
            repro = made(left)
    return repro


def _still(shows: Shows, made: Callable[[Sequence[_T]], Repro], chosen: Sequence[_T]) -> bool:
    return shows(made(chosen), 0, 0)


def _changing(
    repro: Repro, at: int, step: int, op: p.Cpuid, kept: tuple[cpuid.Change, ...], chosen: Sequence[cpuid.Change]
) -> Repro:
    ops = repro.vm.ops
    return _with(repro, (*ops[:at], (step, op._replace(changes=(*kept, *chosen))), *ops[at + 1 :]), repro.body.ops)


def _with(repro: Repro, vm: _Ops, body: _Ops) -> Repro:
    return repro._replace(vm=repro.vm._replace(ops=vm), body=repro.body._replace(ops=body))


def _values(repro: Repro, shows: Shows, kept: Mapping[tuple[int, p.Op], int]) -> Repro:
    """Reduce the bits of written values, except those ``kept``."""
    for at, (step, op) in enumerate(repro.body.ops):
        if not isinstance(op, p.Put) or op in repro.whole:
            continue
        stays = op.value & kept.get((step, op), 0)
        bits = [bit for bit in range(op.value.bit_length()) if (op.value & ~stays) >> bit & 1]
        if bits:
            values = _Values(repro, shows, at, op.value, stays)
            repro = _writing(repro, at, _sum(subset(bits, values.show)) | stays)
    return repro


class _Values:
    """Smaller replacements for ``before``, the value that op ``at`` of the body writes, each from the last one that showed it.

    The bits in ``stays`` are in each of them.
    """

    def __init__(self, repro: Repro, shows: Shows, at: int, before: int, stays: int) -> None:
        self._repro, self._shows, self._at, self._stays = repro, shows, at, stays
        self._before = before

    def show(self, bits: Sequence[int]) -> bool:
        """Return True if a value of these bits still shows it, and keep that value."""
        after = _sum(bits) | self._stays
        if not self._shows(_writing(self._repro, self._at, after), self._before, after):
            return False
        self._before = after
        return True


def _sum(bits: Sequence[int]) -> int:
    return sum(1 << bit for bit in bits)


def _writing(repro: Repro, at: int, value: int) -> Repro:
    ops, (step, op) = repro.body.ops, repro.body.ops[at]
    assert isinstance(op, p.Put)
    return _with(repro, repro.vm.ops, (*ops[:at], (step, op._replace(value=value)), *ops[at + 1 :]))


def used(repro: Repro) -> Repro:
    """The same without buffers that no op names any more."""
    names = {name for program in (repro.vm, repro.body) for _, op in program.ops for name in p.buffers_of(op)}
    names |= {name for check in repro.checks for name in buffers_of(check)}

    def of(program: p.Program) -> p.Program:
        return program._replace(buffers={name: buffer for name, buffer in program.buffers.items() if name in names})

    return repro._replace(vm=of(repro.vm), body=of(repro.body))
