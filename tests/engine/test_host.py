# SPDX-License-Identifier: GPL-2.0-only
"""Host facts from a made-up sysfs."""

from __future__ import annotations

from pathlib import Path

import pytest

from kvmtest.engine import host


@pytest.mark.parametrize(
    ("module", "backend"), [("kvm_intel", "vmx"), ("kvm_amd", "svm"), ("kvm_pvm", "pvm"), ("kvm_other", "other")]
)
def test_backend_is_the_vendor_module(module: str, backend: str, tmp_path: Path) -> None:
    (tmp_path / module / "parameters").mkdir(parents=True)
    (tmp_path / module / "parameters" / "npt").write_text("Y\n")
    (tmp_path / "cpuinfo").write_text("vendor_id\t: GenuineIntel\nmodel name\t: X\n")
    found = host.detect(str(tmp_path), str(tmp_path / "cpuinfo"))
    assert (found.backend, found.cpu_vendor, found.parameters) == (backend, "GenuineIntel", {"npt": "Y"})


def test_no_module_and_no_cpuinfo_is_unknown(tmp_path: Path) -> None:
    found = host.detect(str(tmp_path), str(tmp_path / "cpuinfo"))
    assert (found.backend, found.cpu_vendor, found.parameters) == ("unknown", "unknown", {})


def test_kernel_version() -> None:
    assert host.kernel_version("6.1.0-56-cloud-amd64") == (6, 1)
    assert host.kernel_version("7.2-rc1") == (7, 2)
    assert host.kernel_version("weird") == (0, 0)
