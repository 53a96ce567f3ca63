# SPDX-License-Identifier: GPL-2.0-only
"""The table of which cases ran which blocks."""

from __future__ import annotations

from kvmtest.coverage.table import Cell, Ran, Recording, Table, merged
from tests.coverage.made import made_blocks, table

_SECTIONS = {("kvm", ".text"): 0x1000, ("kvm", ".text.unlikely"): 0x2000}


def _word(*addresses: int) -> dict[int, int]:
    found: dict[int, int] = {}
    for address in addresses:
        found[address & ~63] = found.get(address & ~63, 0) | 1 << (address & 63)
    return found


def test_addresses_become_blocks_of_the_case() -> None:
    recording = Recording(made_blocks(), Cell("6.1/svm", "svm"))
    recording.take("", {("kvm", ".text"): 0x1000}, _word(0x1006))
    recording.take("one", _SECTIONS, _word(0x1006, 0x1012, 0x1035, 0x1013))
    recording.take("two", _SECTIONS, _word(0x1006, 0x2005))
    cell = recording.cell
    assert cell.cases == ["one", "two"] and cell.loading == {0}
    assert [list(cell.who(block)) for block in range(5)] == [["one", "two"], ["one"], [], ["one"], ["two"]]


def test_modules_that_lie_elsewhere_are_found_there() -> None:
    recording = Recording(made_blocks(), Cell("6.1/svm", "svm"))
    recording.take("one", {("kvm", ".text"): 0x1000}, _word(0x1006))
    recording.take("two", {("kvm", ".text"): 0x9000}, _word(0x1006, 0x9012))
    assert [list(recording.cell.who(block)) for block in (0, 1)] == [["one"], ["two"]]


def test_two_views_of_a_case_are_one() -> None:
    cell = Cell("6.1/svm", "svm")
    cell.add("one", (0,))
    cell.add("one", (1,))
    assert cell.cases == ["one"] and list(cell.who(0)) == list(cell.who(1)) == ["one"]


def test_who_ran_one_of_several_blocks() -> None:
    made = table()
    assert made.who([1, 2]) == [
        Ran("6.1/svm", "init.msi/ap,intel"),
        Ran("6.1/svm", "init.msi/bsp,intel"),
        Ran("6.1/svm", "sipi.msi/ap,intel"),
        Ran("6.1/vmx", "init.msi/ap,intel"),
    ]
    assert made.who([4]) == [] and not made.ran(4) and made.ran(2)
    made.cells[0].loading.add(4)
    assert made.who([4]) == [Ran("6.1/svm", "")] and made.ran(4)


def test_a_module_that_no_cell_had_does_not_count() -> None:
    made = table()
    other = [block._replace(module="kvm_intel") for block in made.blocks]
    assert made._replace(blocks=[*made.blocks, *other]).loaded == list(range(5))


def test_a_later_run_takes_the_place_of_the_same_cases_and_adds_others() -> None:
    later = Cell("6.1/svm", "svm", {}, "later")
    later.add("init.msi/ap,intel", (0, 2))
    later.add("new", (4,))
    (made,) = merged([table(), Table("6.1.0-9", "Debian", "b1", made_blocks(), [later])])
    svm, vmx = made.cells
    assert svm.cases == ["init.msi/ap,intel", "init.msi/bsp,intel", "sipi.msi/ap,intel", "new"] and svm.started == "later"
    assert list(svm.who(1)) == ["init.msi/bsp,intel"] and list(svm.who(4)) == ["new"]
    assert list(svm.who(2)) == ["init.msi/ap,intel", "sipi.msi/ap,intel"] and svm.loading == {0}
    assert list(vmx.who(1)) == ["init.msi/ap,intel"]


def test_other_builds_stay_apart() -> None:
    assert [one.build for one in merged([table(), table()._replace(build="b2")])] == ["b1", "b2"]
