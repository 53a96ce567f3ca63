# SPDX-License-Identifier: GPL-2.0-only
"""Expectations of several vCPUs together: their preconditions stay, other vCPUs go, and in C it is one number."""

from __future__ import annotations

from pathlib import Path

import pytest

from kvmtest.emit import c, plain
from kvmtest.emit.head import About, Shown
from kvmtest.emit.reduce import reduced, used
from kvmtest.emit.repro import Check, Repro
from kvmtest.emit.several import Several, bits, rests_on
from kvmtest.engine.trial import Trials
from kvmtest.kvm import Kvm
from kvmtest.scenario import program as p
from kvmtest.uapi import kvm as uapi
from tests.emit.compiled import built, ended
from tests.emit.made import repro

_LDR, _SVR, _IRR = 0xD0, 0xF0, 0x220
_BIT = 1 << 21
_NOTED = p.Otherwise("", "")


def _made(expected: int) -> Repro:
    """A message to the logical id of vCPU 1, of two that have one each; vCPU 0's DFR is written as it is."""
    ops: list[p.Op] = []
    for id in (0, 1):
        name = f"lapic{id}"
        values = ((_LDR, 1 << 24 + id), (_SVR, 0x1FF), (0xE0, 0xFFFFFFFF))
        ops.append(p.Ioctl(id, uapi.KVM_GET_LAPIC, name))
        ops += [p.Put(p.Place(name, offset, 4), value) for offset, value in values]
        ops.append(p.Ioctl(id, uapi.KVM_SET_LAPIC, name))
    ops.append(p.Ioctl(1, uapi.KVM_GET_REGS, "regs1"))
    begin = len(ops)
    ops.append(p.Ioctl(p.VM, uapi.KVM_SIGNAL_MSI, "to_logical"))
    ops += [p.Ioctl(id, uapi.KVM_GET_LAPIC, f"lapic{id}") for id in (0, 1)]
    of = tuple((id, p.Compare(p.Place(f"lapic{id}", _IRR, 4), (_BIT,), _NOTED, _BIT)) for id in (0, 1))
    made = repro(*ops)
    buffers = dict(made.body.buffers, lapic0=p.Buffer("kvm_lapic_state", bytes(1024)))
    buffers["to_logical"] = p.Buffer("kvm_msi", bytes(uapi.kvm_msi(address_lo=0xFEE02004, data=0x55)))
    check = Check("who", Several(of, begin), (expected,), bits((0, 1)))
    return made._replace(body=made.body._replace(buffers=buffers), checks=(check,))


def test_what_is_said_of_who_listens_stays() -> None:
    made = _made(2)
    event = made.checks[0].place.event  # type: ignore[union-attr]
    kept = rests_on(made.body, event)
    left_out = [op for at, (_, op) in enumerate(made.body.ops) if at not in kept]
    assert left_out == [p.Ioctl(1, uapi.KVM_GET_REGS, "regs1")]
    # A section of which each write is idle goes, too.
    of_0 = frozenset(at for at, (_, op) in enumerate(made.body.ops) if isinstance(op, p.Put) and op.place.buffer == "lapic0")
    less = kept - rests_on(made.body, event, of_0)
    assert {made.body.ops[at][1] for at in less if at not in of_0} == {
        p.Ioctl(0, uapi.KVM_GET_LAPIC, "lapic0"), p.Ioctl(0, uapi.KVM_SET_LAPIC, "lapic0"),
    }  # fmt: skip


def test_vcpus_of_which_nothing_is_expected_go() -> None:
    made = _made(2)._replace(pinned=frozenset(range(len(_made(2).body.ops))))
    left = used(reduced(made, lambda *_: True))
    assert [id for id, _ in left.checks[0].place.of] == [1]  # type: ignore[union-attr]
    assert "lapic0" not in left.body.buffers and "lapic1" in left.body.buffers
    # No bit of a write that stays is left out.
    assert [op.value for _, op in left.body.ops if isinstance(op, p.Put)] == [2 << 24, 0x1FF, 0xFFFFFFFF]
    # One of which something is expected stays.
    both = used(reduced(_made(3)._replace(pinned=made.pinned), lambda *_: True))
    assert [id for id, _ in both.checks[0].place.of] == [0, 1]  # type: ignore[union-attr]


@pytest.mark.parametrize(("expected", "status"), [(2, 0), (1, 1), (3, 1), (0, 1)])
def test_it_is_the_vcpus_that_got_it(kvm: Kvm, tmp_path: Path, expected: int, status: int) -> None:
    made = _made(expected)
    found = Trials(kvm).run(made)
    assert (found.verdict, found.observed) == ("fail" if status else "pass", (2,))
    code, said = ended(built(c.source(made, ["who"]), tmp_path))
    assert code == status and f"who: expected {expected}, observed 0x2" in said


def test_what_is_written_as_it_is_is_idle(kvm: Kvm) -> None:
    made = _made(2)
    idle = [made.body.ops[at][1] for at in Trials(kvm).idle(made)]
    assert {op.place.offset for op in idle if isinstance(op, p.Put)} == {0xE0}


def test_it_can_be_sent() -> None:
    ids = (3, 17)
    check = _made(2).checks[0]
    about = About("id", "case", "item", "init", "msi", "1", "2", (), True)
    shown = Shown(_made(2)._replace(checks=(check._replace(values=(bits(ids),)),)), about)
    assert plain.load(plain.dump(shown)) == shown
