# SPDX-License-Identifier: GPL-2.0-only
"""A reproducer of what is not kept writes the very value that it expects, whatever is left out of it."""

from __future__ import annotations

import pytest

from kvmtest.emit.reduce import reduced
from kvmtest.emit.repro import NoRepro, Repro
from kvmtest.emit.written import keeping
from kvmtest.scenario import program as p
from kvmtest.uapi import kvm as uapi
from tests.judge.made import LAYOUT

_CR0, _CR3 = (LAYOUT.fields[item] for item in ("cr0", "cr3"))


def _put(field: object, value: int, buffer: str = "sregs1") -> p.Put:
    return p.Put(p.Place(buffer, field.offset, field.size), value)  # type: ignore[attr-defined]


_OPS = (
    p.Ioctl(1, uapi.KVM_GET_SREGS, "sregs1"),
    _put(_CR3, 0x5000),
    _put(_CR0, 0xC0000011),
    p.Ioctl(1, uapi.KVM_SET_SREGS, "sregs1"),
    p.Ioctl(1, uapi.KVM_SET_MSRS, "set_msr_277"),
    p.Ioctl(1, uapi.KVM_GET_SREGS, "sregs1"),
)
_MADE = Repro(p.Program({}, ()), p.Program({}, tuple((0, op) for op in _OPS)), target=1)


def test_what_writes_it_stays_with_its_value_and_all_else_goes() -> None:
    tried = []

    def shows(repro: Repro, before: int, after: int) -> bool:
        tried.append(repro)
        return True

    left = reduced(keeping(_MADE, LAYOUT, "cr0"), shows)
    assert [op for _, op in left.body.ops] == [_OPS[0], _OPS[2], _OPS[3], _OPS[5]]
    assert tried and all((0, _OPS[2]) in repro.body.ops for repro in tried)
    # Without that nothing of it is left: then the value that is expected was never written.
    assert _OPS[2] not in [op for _, op in reduced(_MADE, shows).body.ops]


def test_an_msr_is_written_by_itself() -> None:
    made = keeping(_MADE, LAYOUT, "msr.pat")
    assert made.pinned == {4} and not made.whole


@pytest.mark.parametrize(("item", "why"), [("msr.tsc", "is a counter"), ("rax", "no op that can stay alone writes rax")])
def test_what_has_none(item: str, why: str) -> None:
    with pytest.raises(NoRepro, match=why):
        keeping(_MADE, LAYOUT, item)
