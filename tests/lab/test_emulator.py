# SPDX-License-Identifier: GPL-2.0-only
"""Which emulator has a backend with such CPUs, how it is called for them, and what no emulator has."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kvmtest.cli import main
from kvmtest.commands import cells
from kvmtest.engine import doctor
from kvmtest.kvm import CpuidEntry
from kvmtest.lab import emulator, matrix, qemu
from kvmtest.lab.bochs import Bochs
from kvmtest.lab.error import LabError, NotFound
from kvmtest.lab.kernels import Kernel
from kvmtest.lab.qemu import Kvm, Qemu
from kvmtest.lab.saved_boot import SavedBoot
from kvmtest.lab.start import Cpu
from kvmtest.lab.steps import Spec
from kvmtest.uapi import kvm as uapi

_FILES = ("folder", "image", "initrd", "serial", "parallel")
_SVM = CpuidEntry(0x80000001, 0, 0, 0, 0, 1 << 2, 0)
_VMX = CpuidEntry(1, 0, 0, 0, 0, 1 << 5, 0)


@pytest.mark.parametrize(
    ("backend", "cpu", "kind", "accel"),
    [
        ("svm", Cpu(), Qemu, "tcg"),
        ("vmx", Cpu(), Bochs, "bochs"),
        ("svm", Cpu("ryzen"), Bochs, "bochs"),
        ("svm", Cpu("EPYC-Milan"), Qemu, "tcg"),
        ("svm", Cpu(accel="bochs"), Bochs, "bochs"),
        ("vmx", Cpu(accel="kvm"), Kvm, "kvm"),
        ("svm", Cpu(accel="kvm"), Kvm, "kvm"),
    ],
)
def test_backend_accelerator_and_model_name_the_emulator(backend: str, cpu: Cpu, kind: type, accel: str) -> None:
    found = emulator.for_backend(backend, cpu)
    assert (type(found), found.accel, found.backend) == (kind, accel, backend)


def test_tcg_has_no_vmx() -> None:
    with pytest.raises(NotFound, match="TCG emulates SVM alone"):
        emulator.for_backend("vmx", Cpu(accel="tcg"))


def _words(cpu: Cpu, backend: str = "svm") -> str:
    return " ".join(emulator.for_backend(backend, cpu).prepare(*_FILES, "kvm.x=1").command)


def test_on_the_hosts_kvm_the_guest_has_the_hosts_cpu() -> None:
    for backend in emulator.BACKENDS:
        command = _words(Cpu(accel="kvm", number=4), backend)
        assert " -accel kvm " in command and " -smp 4 " in command and " -cpu host " in command
        assert "nosmp" not in command and command.endswith("kvm.x=1")
        assert not emulator.for_backend(backend, Cpu(accel="kvm")).saves


def test_several_cpus_are_threads_of_their_own() -> None:
    command = _words(Cpu(number=2))
    assert " -accel tcg,thread=multi " in command and " -smp 2 " in command
    assert "nosmp" not in command and " no_timer_check" in command
    command = _words(Cpu("EPYC-Milan,-erms"))
    assert " -accel tcg " in command and " -smp 1 " in command and " nosmp " in command and " -cpu EPYC-Milan,-erms " in command


def test_a_saved_boot_is_of_its_cpus(kernel: Kernel, tmp_path: Path) -> None:
    keys = set()
    for number, cpu in enumerate((Cpu(), Cpu(number=2), Cpu(number=3), Cpu("qemu64"), Cpu(accel="tcg"))):
        folder = tmp_path / str(number)
        folder.mkdir()
        saved = SavedBoot(emulator.for_backend("svm", cpu), "QEMU 9.9.9", kernel.image, str(folder), lambda: True)
        keys.add(saved._name)
    assert len(keys) == 4  # the accelerator that is the usual one anyway is no other


class _Nesting:
    """A KVM whose guests have what ``leaves`` say."""

    def __init__(self, *leaves: CpuidEntry, cap: int = uapi.KVM_CAP_NESTED_STATE) -> None:
        self._leaves, self._cap = list(leaves), cap

    def __enter__(self) -> _Nesting:
        return self

    def __exit__(self, *exc: object) -> None:
        pass

    def supported_cpuid(self) -> list[CpuidEntry]:
        return self._leaves

    def check_extension(self, cap: int) -> int:
        return int(cap == self._cap)


@pytest.mark.parametrize(("leaf", "backend"), [(_VMX, "vmx"), (_SVM, "svm")])
def test_the_backend_is_the_hosts(leaf: CpuidEntry, backend: str, fake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "open_kvm", lambda path: _Nesting(leaf))
    assert qemu.nests() == backend
    emulator.for_backend(backend, Cpu(accel="kvm")).check()
    (other,) = set(emulator.BACKENDS) - {backend}
    with pytest.raises(LabError, match=f"no --backend {other} here: this host's KVM has --backend {backend}"):
        emulator.for_backend(other, Cpu(accel="kvm")).check()


@pytest.mark.parametrize("nesting", [_Nesting(), _Nesting(_VMX, cap=0), None])
def test_a_kvm_that_does_not_nest_is_one_line_and_3(
    nesting: _Nesting | None, fake: Path, kernel: Kernel, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(fake)  # where the fuzzer puts what it finds

    def opened(path: str) -> _Nesting:
        if nesting is None:
            raise doctor.Unusable(f"{path}: no such device: load kvm_intel or kvm_amd")
        return nesting

    monkeypatch.setattr(doctor, "open_kvm", opened)
    for more in (["run"], ["run", "--backend", "svm"], ["matrix"], ["fuzz"]):
        verb, *backend = more
        assert main(["lab", verb, "--accel", "kvm", "--kernel", kernel.image, "--modules", kernel.modules, *backend]) == 3
        shown = capsys.readouterr()
        assert not shown.out and shown.err.count("\n") == 1 and shown.err.startswith("kvmtest: --accel kvm: ")
        assert "enable: " in shown.err or "no such device" in shown.err


def test_records_and_heads_say_what_the_cpu_is(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "open_kvm", lambda path: _Nesting(_SVM))
    command = ["lab", "run", "--accel", "kvm", "--smp", "3", "--kernel", kernel.image, "--modules", kernel.modules]
    assert main(command) == 1
    shown = capsys.readouterr()
    assert shown.out.startswith("kvm_amd of Linux 9.9.9-fake in QEMU 9.9.9 (KVM, 3 CPUs)\n")
    # The command to run a finding alone has the same CPUs.
    assert f"--backend svm --kernel {kernel.image} --accel kvm --smp 3 init.msi.host.halted" in shown.out
    assert main([*command, "--module-param", "kvm_amd.npt=0", "--format", "json"]) == 1
    host = json.loads(capsys.readouterr().out)["runs"][0]["host"]
    assert (host["accel"], host["lab"]["cpu"], host["lab"]["emulator"]) == ("kvm", "host", "QEMU 9.9.9 (KVM, 3 CPUs)")
    assert host["lab"]["options"] == "--accel kvm --smp 3 --module-param kvm_amd.npt=0"


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--cpu", "EPIC"], "QEMU 9.9.9 (TCG) has no CPU model EPIC; it has EPYC and others"),
        (["--cpu", "max", "--accel", "bochs", "--smp", "2"], ""),
        (["--accel", "tcg", "--backend", "vmx"], "--accel tcg has no --backend vmx"),
    ],
)
def test_cpus_that_no_emulator_has_are_one_line(
    more: list[str], says: str, kernel: Kernel, capsys: pytest.CaptureFixture[str]
) -> None:
    backend = [] if "--backend" in more else ["--backend", "svm"]
    status = main(["lab", "run", *backend, "--kernel", kernel.image, "--modules", kernel.modules, *more])
    error = capsys.readouterr().err
    # Bochs need not be here.
    assert status in ((2,) if says else (2, 3)) and error.count("\n") == 1 and says in error


def test_a_cell_without_a_backend_is_wrong_usage(kernel: Kernel, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lab", "run", "--kernel", kernel.image, "--modules", kernel.modules]) == 2
    assert capsys.readouterr().err == "kvmtest: --backend is needed: one of svm, vmx\n"


def test_models_of_a_matrix_keep_their_features() -> None:
    assert cells.models("max,-erms,EPYC,ryzen,qemu64,+svm,x=1") == ["max,-erms", "EPYC", "ryzen", "qemu64,+svm,x=1"]


def test_cpus_are_an_axis_of_a_matrix(kernel: Kernel, tmp_path: Path) -> None:
    out = tmp_path / "m.json"
    command = ["lab", "matrix", "--backend", "svm", "--kernel", kernel.image, "--modules", kernel.modules]
    assert main([*command, "--cpu", "default,EPYC", "--smp", "2", "--format", "json", "-o", str(out)]) == 1
    runs = json.loads(out.read_text())["runs"]
    assert [run["name"] for run in runs] == ["bzImage/svm/smp 2", "bzImage/svm/EPYC smp 2"]
    assert [run["host"]["lab"]["cpu"] for run in runs] == ["max,-erms", "EPYC"]


def test_a_cell_has_as_many_cores_as_cpus(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(8)))
    for number, cells_ in ((1, 8), (2, 4), (16, 1)):
        assert matrix.jobs([Spec("svm", kernel, cpu=Cpu(number=number))] * 9, None) <= cells_
    assert matrix.jobs([Spec("svm", kernel, cpu=Cpu(number=16))] * 9, None) == 1
