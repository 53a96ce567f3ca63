# SPDX-License-Identifier: GPL-2.0-only
"""Each deviation that is listed shows in a real kernel that it names. Not part of the default run: make test-lab.

$KVMTEST_MATRIX names a file of `kvmtest lab matrix --format json` to go by, instead of running one.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kvmtest import cli, series
from kvmtest.engine import plan
from kvmtest.lab import emulator
from kvmtest.lab.error import LabError
from kvmtest.results.saved import load
from kvmtest.spec.deviations import DEVIATIONS
from kvmtest.spec.fatal import FATAL

pytestmark = pytest.mark.lab

#: Prefixes of the ids that show an item after each event; in a split irqchip's VMs the local APIC's version is another.
_PREFIXES = {
    "reset": ("reset.create.host",),
    "init": ("init.latched.host", "init.split.host"),
    "shutdown": ("shutdown.triple-fault.host",),
    "sipi": ("sipi.msi.host", "sipi.msi.guest"),
    "views": ("sipi.msi.views",),
    "vmm-reset": ("reset.vmm-reset.host",),
}


def selectors() -> list[str]:
    """Return the ids that show the deviations and are in the plan."""
    asked = [f"{prefix}.{d.item}" for d in DEVIATIONS for prefix in _PREFIXES.get(d.event, ())] + [d.item for d in DEVIATIONS]
    there = frozenset(plan.ids(plan.plan()))
    return [id for id in dict.fromkeys(asked) if id in there]


def test_every_listed_deviation_is_seen_in_a_kernel_that_it_names(tmp_path: Path) -> None:
    path = os.environ.get("KVMTEST_MATRIX", "")
    if not path:
        path = str(tmp_path / "matrix.json")
        try:
            for backend in emulator.BACKENDS:
                emulator.for_backend(backend).check()
        except LabError as error:
            pytest.skip(str(error))
        cells = ["--backend", "svm,vmx", "--kernel", "5.10,7.2"]
        assert cli.main(["lab", "matrix", *cells, "--format", "json", "-o", path, *selectors()]) in (0, 1)
    runs = load(path)
    ended = ("none.lab.kernel.boot", "none.lab.kernel.run")
    died = [(run.name, result.reason) for run in runs for result in run.results if result.id in ended]
    # Cases that a kernel is known to die of come last.
    assert not [one for one in died if not any(fatal.case in one[1] for fatal in FATAL)]
    assert series.unseen(runs) == []
