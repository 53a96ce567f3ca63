# SPDX-License-Identifier: GPL-2.0-only
"""Each deviation that is listed shows in a real kernel that it names. Not part of the default run: make test-lab.

$KVMTEST_MATRIX names a file of `kvmtest lab matrix --format json` to go by, instead of running one.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kvmtest import cli, series
from kvmtest.lab import emulator
from kvmtest.lab.error import LabError
from kvmtest.results.saved import load
from kvmtest.spec.deviations import DEVIATIONS
from kvmtest.spec.logged import LOGGED
from tests.listed import selectors

pytestmark = pytest.mark.lab


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
        asked = dict.fromkeys(one for deviation in DEVIATIONS for one in selectors(deviation))
        assert cli.main(["lab", "matrix", *cells, "--format", "json", "-o", path, *asked]) in (0, 1)
    runs = load(path)
    ended = ("none.lab.kernel.boot", "none.lab.kernel.run")
    died = [(run.name, result.reason) for run in runs for result in run.results if result.id in ended]
    # Cases that a kernel is known to die of come last.
    assert not [one for one in died if not any(said.fatal and said.case in one[1] for said in LOGGED)]
    assert series.unseen(runs) == []
