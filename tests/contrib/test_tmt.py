# SPDX-License-Identifier: GPL-2.0-only
"""The plan for tmt, by its provisioner for this machine: two runs with a part of the cases each, merged into one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from kvmtest.kvm import Kvm
from kvmtest.results import saved
from tests.wheel import ROOT, built

pytestmark = [pytest.mark.program, pytest.mark.recipe, pytest.mark.nightly]

_SOME = "sipi.msi.host.rip sipi.msi.host.cs.*"


def test_two_parts_by_the_local_provisioner(kvm: Kvm, tmp_path: Path) -> None:
    bin_ = Path(sys.executable).parent
    if not (bin_ / "tmt").exists():
        pytest.skip("tmt is not installed (make contrib)")
    if not shutil.which("rsync"):
        pytest.skip("tmt's local provisioner needs: apt-get install rsync")
    wheel = built(ROOT, "wheel", tmp_path)
    folder = tmp_path / "runs"
    # The plan's python3 is this one, whose pip needs nothing from elsewhere.
    settings = {"TMT_WORKDIR_ROOT": str(folder), "PATH": f"{bin_}:{os.environ['PATH']}"}
    found = []
    for part in ("1", "2"):
        given = {"KVMTEST": str(wheel), "SELECTORS": f"'{_SOME}'", "SHARD": f"{part}/2"}
        words = [word for name, value in given.items() for word in ("-e", f"{name}={value}")]
        command = [bin_ / "tmt", "--feeling-safe", "run", "--all", "--id", part, *words, "provision", "--how", "local"]
        where = {"cwd": ROOT / "contrib/tmt", "env": os.environ | settings}
        done = subprocess.run(command, **where, capture_output=True, text=True, timeout=600)  # type: ignore[call-overload]
        assert done.returncode == 0 and "1 test passed" in done.stderr + done.stdout, done.stderr + done.stdout
        (path,) = (folder / part).rglob("kvmtest.json")
        found.append(str(path))
    whole, merged = tmp_path / "whole.json", tmp_path / "merged.json"
    kvmtest = str(bin_ / "kvmtest")
    assert subprocess.run([kvmtest, "run", "--format", "json", "-o", whole, *_SOME.split()]).returncode == 0
    assert subprocess.run([kvmtest, "report", "--format", "json", "-o", merged, *found]).returncode == 0
    (run,), (one,) = saved.load(str(whole)), saved.load(str(merged))
    assert one.head.shard is None and one.cases == run.cases and one.totals == run.totals
