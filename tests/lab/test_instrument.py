# SPDX-License-Identifier: GPL-2.0-only
"""KVM's modules that tell what they execute, of real kernels in real emulators: make test-lab."""

from __future__ import annotations

import pytest

from kvmtest.coverage.place import parse
from kvmtest.coverage.table import Table
from kvmtest.lab import instrument, kernels
from kvmtest.lab.cell import Cell
from kvmtest.lab.coverage import Measured
from kvmtest.lab.error import LabError
from kvmtest.lab.steps import Spec

pytestmark = [pytest.mark.lab, pytest.mark.slow]

_AP, _BSP = "init.msi/ap,intel,xapic,plant-a", "init.msi/bsp,intel,xapic,plant-a"


def _who(table: Table, function: str) -> set[str]:
    """The cases that ran a block of ``function``."""
    return {one.case for one in table.who(parse(function).blocks(table))}


def _measured(backend: str, which: str, *selectors: str) -> Table:
    try:
        kernel = kernels.find(which)
        build = instrument.instrumented(kernel)
        spec = Spec(backend, kernel, selectors or (_AP, _BSP), own_modules=build.modules, coverage=True)
        cell = Cell(spec)
        cell.emulator.check()
    except LabError as error:
        pytest.skip(str(error))
    measured = Measured(spec, build, build.table(), "now")
    for step in cell.steps():
        measured.take(step)
    return measured.table


@pytest.mark.parametrize(
    ("backend", "which"), [("svm", "5.10"), ("svm", "bookworm"), ("svm", "trixie"), ("svm", "sid"), ("vmx", "bookworm")]
)
def test_a_case_runs_what_it_is_made_for_and_nothing_of_the_other(backend: str, which: str) -> None:
    table = _measured(backend, which)
    (cell,) = table.cells
    assert set(cell.cases) == {_AP, _BSP}
    assert _who(table, "kvm_vcpu_reset") == {_AP, _BSP}
    # The effect of INIT on each: it waits for SIPI, or goes to the reset vector.
    blocks = parse("kvm_apic_accept_events").blocks(table)
    of_ap, of_bsp = ({block for block in blocks if case in cell.who(block)} for case in (_AP, _BSP))
    assert of_ap & of_bsp
    # In v7.2 they differ in kvm_set_mp_state(), which is inlined.
    assert (of_ap - of_bsp and of_bsp - of_ap) or which == "sid"
    # Neither has to do with SMM.
    assert _who(table, "enter_smm") == set()
    vendor = {"svm": "kvm_amd", "vmx": "kvm_intel"}[backend]
    assert cell.loading and {table.blocks[block].module for block in cell.ran} == {"kvm", vendor}


def test_what_smm_cases_run() -> None:
    table = _measured("svm", "bookworm", "init.msi/bsp,amd,xapic,plant-guest-long,in-smi-handler")
    assert _who(table, "enter_smm") == set(table.cells[0].cases) != set()
