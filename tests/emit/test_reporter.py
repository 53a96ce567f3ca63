# SPDX-License-Identifier: GPL-2.0-only
"""The reporting guest as ops: each item that it reports has a place, and one that it does not report is refused."""

from __future__ import annotations

import pytest

from kvmtest.emit import reporter
from kvmtest.emit.reporter import Unreportable
from kvmtest.engine.machine import Target
from kvmtest.guests import spine
from kvmtest.scenario import program as p
from kvmtest.x86 import msr

_TO = p.Place("reported", 0, 8)


def _written(item: str, apic_mode: str = "xapic") -> dict[int, bytes]:
    return {op.gpa: op.data for op in reporter.install(None, item, apic_mode, 7) if isinstance(op, p.Write)}


def test_memory_comes_before_what_is_written_there() -> None:
    regions: list[p.Region] = []
    for op in reporter.install(0x9F, "cr3", "xapic", 7):
        if isinstance(op, p.Region):
            regions.append(op)
        else:
            assert isinstance(op, p.Write) and any(one.gpa <= op.gpa < one.gpa + one.size for one in regions)
    assert len(regions) == 3


@pytest.mark.parametrize(
    ("item", "apic_mode", "index"),
    [("msr.sysenter_cs", "xapic", 0x174), ("efer", "xapic", 0xC0000080), ("lapic.svr", "x2apic", 0x80F)],
)
def test_an_msr_is_the_one_that_the_guest_reads(item: str, apic_mode: str, index: int) -> None:
    written = _written(item, apic_mode)
    assert index.to_bytes(spine.LIST_ENTRY, "little") in written.values()
    assert written.keys() == _written("cr3").keys() and written != _written("cr3")


@pytest.mark.parametrize(("item", "apic_mode"), [("lapic.id", "x2apic"), ("lapic.icr2", "x2apic"), ("lapic.svr", "relocated")])
def test_what_has_no_place_in_this_mode_is_refused(item: str, apic_mode: str) -> None:
    with pytest.raises(Unreportable):
        _written(item, apic_mode)


@pytest.mark.parametrize("item", ["cs.limit", "fs.base", "mp_state", "dr0.nonsense"])
def test_what_the_guest_reports_by_no_word_is_refused(item: str, targets: dict[str, Target]) -> None:
    with pytest.raises(Unreportable):
        list(reporter.report(1, item, targets["ap"].layout, "xapic", _TO))


def test_a_register_reported_by_an_out_is_what_was_said(targets: dict[str, Target]) -> None:
    for port, item in spine.ports().items():
        if item in reporter._BY_PATTERN:
            continue
        enter, said = reporter.report(1, item, targets["ap"].layout, "xapic", _TO)
        assert isinstance(enter, p.Enter) and enter.came.number == port and port not in enter.came.past
        assert isinstance(said, p.Said) and said.to.buffer == "reported"


def test_a_slot_is_read_when_the_guest_is_done(targets: dict[str, Target]) -> None:
    for item, at in spine.slots().items():
        if item in spine.ports().values() or item in reporter._BY_PATTERN:
            continue
        enter, peek = reporter.report(1, item, targets["ap"].layout, "xapic", _TO)
        assert isinstance(enter, p.Enter) and enter.came.number == spine.PORT_DONE
        assert peek == p.Peek(_TO, spine.DATA + at)


def test_an_msr_is_the_first_of_the_list(targets: dict[str, Target]) -> None:
    name = f"msr.{msr.name_of(0x174)}"
    _, peek = reporter.report(1, name, targets["ap"].layout, "xapic", _TO)
    assert peek == p.Peek(_TO, spine.DATA + spine.MSRS + spine.LIST_VALUE)
