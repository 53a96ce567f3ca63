# SPDX-License-Identifier: GPL-2.0-only
"""The whole plan on stock kernels with a parameter that changes how KVM virtualizes: nothing unexpected. Hours: make nightly.

Without parameters it is the matrix of make nightly.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from kvmtest import cli
from kvmtest.lab import emulator, kernels
from kvmtest.lab.error import LabError
from kvmtest.results.saved import load

_PARAMETERS = {
    "svm": ("kvm_amd.npt=0", "kvm_amd.vgif=0", "kvm_amd.nested=0"),
    "vmx": ("kvm_intel.ept=0", "kvm_intel.unrestricted_guest=0", "kvm_intel.nested=0"),
}


@pytest.mark.lab
@pytest.mark.nightly
@pytest.mark.parametrize("which", ["5.10", "6.1", "6.12", "7.2"])
@pytest.mark.parametrize(("backend", "parameter"), [(backend, one) for backend, given in _PARAMETERS.items() for one in given])
def test_with_a_parameter_nothing_is_unexpected(
    backend: str, parameter: str, which: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        kernels.find(which)
        emulator.for_backend(backend).check()
    except LabError as error:
        pytest.skip(str(error))
    path = tmp_path / "r.json"
    words = ["lab", "run", "--backend", backend, "--kernel", which, "--module-param", parameter]
    status = cli.main([*words, "--format", "json", "-o", str(path)])
    assert status in (0, 1), capsys.readouterr().err
    (run,) = load(str(path))
    name, _, value = parameter.rpartition(".")[2].partition("=")
    assert run.host.parameters[name] in (value, "N")
    cli.main(["report", str(path)])
    assert status == 0, capsys.readouterr().out
