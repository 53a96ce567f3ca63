# SPDX-License-Identifier: GPL-2.0-only
"""Real modules of real kernels, built here, in real emulators: minutes for each; make nightly."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from kvmtest.cli import main
from kvmtest.lab import build, emulator, kbuild, kernels
from kvmtest.lab.cell import Cell
from kvmtest.lab.error import LabError
from kvmtest.lab.steps import Spec
from kvmtest.model.verdict import Verdict

pytestmark = [pytest.mark.lab, pytest.mark.nightly]

_CR2 = "init.latched.host.cr2"


def _checked(backend: str) -> None:
    try:
        emulator.for_backend(backend).check()
    except LabError as error:
        pytest.skip(str(error))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A repository of KVM's part of bookworm's kernel, and a commit that keeps CR2 over INIT and has a line that nothing runs."""
    _checked("svm")
    try:
        shutil.copytree(kbuild.source(kernels.find("bookworm")), tmp_path / "linux")
    except LabError as error:
        pytest.skip(str(error))

    def git(*words: str) -> None:
        subprocess.run(["git", "-C", tmp_path / "linux", "-c", "user.name=A", "-c", "user.email=a@b", *words], check=True)

    git("init", "-q")
    git("add", "-A")
    git("commit", "-qm", "before")
    x86 = tmp_path / "linux" / build.KVM / "x86.c"
    instead = "\tif (!init_event)\n\t\tvcpu->arch.cr2 = 0;\n\tif (vcpu->vcpu_id == 0x5a5a)\n\t\tpr_info_once(\"none\\n\");\n"
    build.change(x86, "\tvcpu->arch.cr2 = 0;\n", instead)
    git("commit", "-qam", "KVM: x86: Keep CR2")
    return tmp_path / "linux"


def test_a_commit_that_breaks_kvm(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lab", "try", "--tree", str(tree), "--backend", "svm", "HEAD", _CR2, "init.latched.host.cr3"]) == 1
    shown = capsys.readouterr().out
    assert "KVM: x86: Keep CR2\n  arch/x86/kvm/x86.c  +4 -1\n" in shown
    assert "FAIL  cr2 keeps the planted value after INIT\n" in shown and shown.split("New (")[1].startswith("1 finding, ")
    assert "  before    pass, observed 0x0" in shown
    head, missed = shown.split("Lines of the change: ")[1].split(", and these by none:\n")
    assert head.startswith("3 of 4 lines with code were run, by ")
    line, programs = missed.strip().split("\n\n")
    assert line.startswith("arch/x86/kvm/x86.c:") and line.endswith('pr_info_once("none\\n");')
    assert "kvmtest repro " in programs


@pytest.mark.parametrize("backend", emulator.BACKENDS)
@pytest.mark.parametrize("which", ["5.10", "6.1", "6.12", "7.2"])
def test_modules_of_each_kernel_build_and_run(which: str, backend: str) -> None:
    _checked(backend)
    try:
        kernel = kernels.find(which)
        folder = build.build(kernel)
    except build.Unbuildable as error:
        pytest.fail("\n".join((str(error), *error.errors)))
    except LabError as error:
        pytest.skip(str(error))
    steps = list(Cell(Spec(backend, kernel, (_CR2,), own_modules=folder)).steps())
    found = [result for step in steps if isinstance(step, list) for one in step for result in one.results]
    # A WARN, as kvm_intel of 5.10 logs (ept_save_pdptrs()), is a result of its own.
    verdicts = {result.verdict for result in found if result.item == "cr2"}
    assert Verdict.PASS in verdicts and verdicts <= {Verdict.PASS, Verdict.SKIP}
