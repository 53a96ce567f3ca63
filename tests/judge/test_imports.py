# SPDX-License-Identifier: GPL-2.0-only
"""The judge and the model are pure: they come without KVM, in an interpreter that has imported nothing else."""

from __future__ import annotations

import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import kvmtest.judge
import kvmtest.model
import kvmtest.results

#: `kvmtest.uapi` stays: where an item lies in a section is where it lies in the kernel's structure.
KVM = ("kvmtest.kvm", "kvmtest.engine", "kvmtest.lab")
_MODULES = sorted(
    f"{package.__name__}.{module.name}"
    for package in (kvmtest.judge, kvmtest.model, kvmtest.results)
    for module in pkgutil.iter_modules(package.__path__)
)


def _loaded(name: str) -> set[str]:
    code = f"import sys, {name}; print(*sys.modules)"
    root = str(Path(kvmtest.judge.__file__).parents[2])
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True, timeout=60)
    return set(done.stdout.split())


@pytest.mark.parametrize("name", _MODULES)
def test_it_imports_no_kvm(name: str) -> None:
    loaded = _loaded(name)
    assert name in loaded
    assert not [one for one in loaded if one.startswith(KVM)]
    if name.startswith(("kvmtest.model", "kvmtest.results")):
        assert not [one for one in loaded if one.startswith(("kvmtest.uapi", "kvmtest.state", "kvmtest.judge"))]


def test_the_test_sees_what_loads_kvm() -> None:
    assert {"kvmtest.kvm", "kvmtest.engine"} <= _loaded("kvmtest.engine.run")
