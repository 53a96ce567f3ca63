# SPDX-License-Identifier: GPL-2.0-only
"""Migrations as single ops: what is saved and written back, and where a program ends that KVM refuses something."""

from __future__ import annotations

from kvmtest.emit.moving import Refused, plain, restoring, saved
from kvmtest.emit.repro import Repro
from kvmtest.scenario import program as p
from kvmtest.state.layout import Field
from kvmtest.uapi import kvm as uapi
from kvmtest.x86 import msr

_CS, _ESP = 0x174, 0x175
_RESULT = p.Place("result", 0, 8, "result")
_END = p.Otherwise("error", "refused")


def _msrs(*indexes: int) -> p.Buffer:
    entries = b"".join(index.to_bytes(16, "little") for index in indexes)
    return p.Buffer("kvm_msrs", len(indexes).to_bytes(8, "little") + entries)


_BUFFERS = {
    "saved_msrs1": _msrs(_CS, _ESP), "saved_regs1": p.Buffer("kvm_regs", bytes(144)), "result": p.Buffer("s64", bytes(8)),
}  # fmt: skip
_MOVE: tuple[p.Op, ...] = (
    p.Ioctl(1, uapi.KVM_GET_REGS, "saved_regs1"),
    p.Ioctl(1, uapi.KVM_GET_MSRS, "saved_msrs1", "result"),
    p.Compare(_RESULT, (2,), _END),
    p.Look(1),
    p.Rebuild(),
    p.Ioctl(1, uapi.KVM_SET_REGS, "saved_regs1", "result"),
    p.Compare(_RESULT, (0,), p.Otherwise("fail", "KVM_SET_REGS")),
    p.Ioctl(1, uapi.KVM_SET_MSRS, "saved_msrs1", "result"),
    p.Compare(_RESULT, (2,), p.Otherwise("fail", "KVM_SET_MSRS sysenter_cs sysenter_esp")),
    p.Look(1),
)
_BEFORE = p.Ioctl(1, uapi.KVM_NMI, 0)
_PROGRAM = p.Program(_BUFFERS, ((0, _BEFORE), *((1, op) for op in _MOVE)))


def _ops(program: p.Program) -> list[p.Op]:
    return [op for _, op in program.ops]


def _of(index: int) -> str:
    return f"saved_msr_{index:x}_of_1"


def test_without_a_migration_nothing_changes() -> None:
    program = p.Program(_BUFFERS, ((0, _BEFORE), (1, _MOVE[2])))
    assert plain(program) is program


def test_each_msr_is_saved_and_written_by_itself() -> None:
    made = plain(_PROGRAM)
    assert _ops(made) == [
        _BEFORE, _MOVE[0], *(p.Ioctl(1, uapi.KVM_GET_MSRS, _of(index)) for index in (_CS, _ESP)), p.Look(1), p.Rebuild(),
        _MOVE[5]._replace(result=""), *(p.Ioctl(1, uapi.KVM_SET_MSRS, _of(index)) for index in (_CS, _ESP)), p.Look(1),
    ]  # fmt: skip
    assert made.buffers[_of(_ESP)] == _msrs(_ESP)


def test_it_ends_with_what_was_refused() -> None:
    # The values that the step reported: of GET_MSRS, the Look, SET_REGS, SET_MSRS.
    regs = _ops(plain(_PROGRAM, Refused(1, 3, -22)))
    assert regs[-2:] == [_MOVE[5], p.Compare(_RESULT._replace(name=""), (0,), p.Otherwise("fail", ""))]
    msrs = _ops(plain(_PROGRAM, Refused(1, 4, 1)))
    wanted = p.Compare(_RESULT._replace(name=""), (1,), p.Otherwise("fail", ""))
    assert msrs[-3:] == [*(p.Ioctl(1, uapi.KVM_SET_MSRS, _of(i), r) for i, r in ((_CS, ""), (_ESP, "result"))), wanted]
    # Those that come after it are not written any more.
    first = _ops(plain(_PROGRAM, Refused(1, 4, 0)))
    assert first[-2:] == [p.Ioctl(1, uapi.KVM_SET_MSRS, _of(_CS), "result"), wanted]


def test_what_is_not_saved_is_written_only_where_kvm_lists_it() -> None:
    index = msr.index_of("vm_cr")
    assert saved(_PROGRAM, _CS) and not saved(_PROGRAM, index)
    ops = _ops(plain(_PROGRAM, None, (1, index)))
    read, written = p.Ioctl(1, uapi.KVM_GET_MSRS, _of(index)), p.Listed(1, _of(index))
    assert ops.index(read) < ops.index(p.Rebuild()) < ops.index(written) == len(ops) - 2


class _Layout:
    fields = {"msr.sysenter_cs": Field("msrs", 16, 8), "rax": Field("regs", 0, 8)}


def test_what_is_lost_has_been_saved_and_written_back() -> None:
    made = Repro(p.Program({}, ()), plain(_PROGRAM), target=1)
    for item, names in (("msr.sysenter_cs", {_of(_CS)}), ("rax", {"saved_regs1"})):
        kept = [_ops(made.body)[at] for at in sorted(restoring(made, _Layout(), item).pinned)]  # type: ignore[arg-type]
        assert p.Rebuild() in kept and {one.arg for one in kept if isinstance(one, p.Ioctl)} == names and len(kept) == 3
