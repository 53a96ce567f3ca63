# SPDX-License-Identifier: GPL-2.0-only
"""The ioctls of a run are counted in both ways to KVM, and their time is a part of the whole."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from kvmtest.kvm import Kvm
from tests.bench.commands import ROOT, spread


@pytest.mark.program
@pytest.mark.skipif(not shutil.which("gcc"), reason="gcc is missing")
def test_a_run_has_its_ioctls_counted(kvm: Kvm, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.bench.own", str(tmp_path), "init.latched.host/bsp,amd,x2apic,plant-b"]
    out = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout
    found = json.loads(out.splitlines()[-1])
    # By Python alone: a VM is made; by the runner: the plant is written.
    assert {"KVM_CREATE_VM", "KVM_SET_SREGS", "KVM_GET_LAPIC"} <= found["parts"].keys()
    assert found["calls"] > 50 and 0 < found["ioctls"] < found["cpu"]


def test_a_spread_is_the_median_and_the_ends() -> None:
    assert spread([3.0, 1.0, 2.0]) == "2.00 (1.00 to 3.00)" and spread([1.5], 0) == "2"
