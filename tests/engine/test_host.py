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


_KVM, _TCG, _HYPERV, _NOTHING = b"KVMKVMKVM\0\0\0", b"TCGTCGTCGTCG", b"Microsoft Hv", bytes(12)


@pytest.mark.parametrize(
    ("flags", "signatures", "firmware", "accel"),
    [
        ("fpu svm", (), "American Megatrends", "silicon"),
        ("fpu hypervisor", (_KVM, _NOTHING), "", "kvm"),
        ("fpu hypervisor", (_TCG, _NOTHING), "SeaBIOS", "tcg"),
        ("fpu hypervisor", (_HYPERV, _NOTHING), "", "hyper-v"),
        # KVM that shows a Windows guest what Hyper-V would, as Xen can.
        ("fpu hypervisor", (_HYPERV, _KVM), "", "kvm"),
        ("fpu hypervisor", (_HYPERV, b"XenVMMXenVMM"), "", "xen"),
        ("fpu hypervisor", (b"NobodyKnows!",), "", "vm"),
        ("fpu hypervisor", (), "", "vm"),
        # Without the flag no leaf is a hypervisor's: Intel's CPUs answer an unknown one with another's data.
        ("fpu vmx", (_KVM,), "", "silicon"),
        ("fpu vmx", (), "Bochs", "bochs"),
        ("", (), "", ""),
    ],
)
def test_what_makes_the_cpu(flags: str, signatures: tuple[bytes, ...], firmware: str, accel: str) -> None:
    assert host.accel(flags.split(), signatures, firmware) == accel


def test_what_makes_this_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(host, "_signatures", lambda: asked.append(1) or [_TCG])
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\nflags\t\t: fpu svm\n\nprocessor\t: 1\nflags\t\t: fpu hypervisor\n")
    assert (host.under(str(cpuinfo), str(tmp_path)), asked) == ("silicon", [])
    (tmp_path / "bios_vendor").write_text("Bochs\n")
    assert host.under(str(cpuinfo), str(tmp_path)) == "bochs"
    cpuinfo.write_text("flags\t\t: fpu hypervisor\n")
    assert (host.under(str(cpuinfo), str(tmp_path)), asked) == ("tcg", [1])
    assert host.under(str(tmp_path / "absent")) == ""


def test_the_leaves_are_this_cpus() -> None:
    with open("/proc/cpuinfo", encoding="ascii") as file:
        if " hypervisor " not in file.read():
            pytest.skip("this CPU is not a hypervisor's, and has no leaf that says whose")
    first, _ = host._signatures()
    assert len(first) == 12 and any(first)


def test_no_memory_for_code_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **named: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(host.mmap, "mmap", refuse)
    assert host._signatures() == []
