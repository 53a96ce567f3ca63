# SPDX-License-Identifier: GPL-2.0-only
"""The conformance suite as pytest runs it: the same verdicts, selection by -k, JUnit."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from kvmtest.kvm import Kvm

pytestmark = pytest.mark.program


def _suite(tmp_path: Path, *args: str) -> tuple[int, list[ElementTree.Element]]:
    xml = tmp_path / "junit.xml"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junit-xml={xml}", "tests/conformance", *args]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    return done.returncode, list(ElementTree.parse(xml).iter("testcase"))


def test_groups_are_selected_by_name_and_pass(kvm: Kvm, tmp_path: Path) -> None:
    status, cases = _suite(tmp_path, "-k", "sipi.msi.host.cs or sipi.msi.host.rip or sipi.msi.guest.rip")
    assert status == 0
    assert {case.get("name") for case in cases} == {
        "test_group[sipi.msi.host.cs]",
        "test_group[sipi.msi.host.rip]",
        "test_group[sipi.msi.guest.rip]",
    }
    assert not any(list(case) for case in cases)


def test_without_kvm_the_suite_is_skipped_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plugin = tmp_path / "no_kvm.py"
    plugin.write_text(
        "from kvmtest.engine import doctor\n"
        "def refuse(path):\n"
        "    raise doctor.Unusable('no KVM today')\n"
        "doctor.open_kvm = refuse\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    status, cases = _suite(tmp_path, "-p", "no_kvm", "-k", "sipi.msi.host.cs")
    assert status == 0
    assert [case.find("skipped").get("message") for case in cases] == ["no KVM today"]  # type: ignore[union-attr]
