# SPDX-License-Identifier: GPL-2.0-only
"""contrib/git-bisect-kvm.sh with headers that build nothing and a kvmtest that is none: what each way to end says to git."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.program

_SCRIPT = Path(__file__).parents[1] / "contrib/git-bisect-kvm.sh"
_KVMTEST = """#!/bin/sh
case "$1 $2" in
"--version ") ;;
"lab kernels") echo "bookworm   6.1.0-fake  (made up)" ;;
"lab run") shift 2; echo "$*"; exit $(cat status) ;;
esac
"""
#: In the place of kbuild: says which C files there are, and fails on one that says so.
_MAKEFILE = """modules:
\t@! grep -q broken $(M)/*.c || { echo "x86.c: error: broken" >&2; exit 1; }
\t@touch $(M)/kvm.ko
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A kernel's tree as far as it matters, beside headers and a kvmtest."""
    for tool in ("git", "make", "gcc", "tar"):
        if not shutil.which(tool):
            pytest.skip(f"{tool} is not here")
    tree, headers = tmp_path / "linux", tmp_path / "headers"
    (tree / "arch/x86/kvm").mkdir(parents=True)
    (tree / "virt/kvm").mkdir(parents=True)
    (tree / "arch/x86/kvm/Makefile").write_text("include $(srctree)/virt/kvm/Makefile.kvm\n")
    (tree / "arch/x86/kvm/x86.c").write_text("int x;\n")
    (tree / "virt/kvm/Makefile.kvm").write_text("\n")
    (tree / "status").write_text("0")
    subprocess.run(["git", "init", "-q", tree], check=True)
    subprocess.run(["git", "-C", tree, "add", "-A"], check=True)
    (headers / "include/generated").mkdir(parents=True)
    (headers / "include/generated/utsrelease.h").write_text('#define UTS_RELEASE "6.1.0-fake"\n')
    (headers / "Makefile").write_text(_MAKEFILE)
    kvmtest = tmp_path / "kvmtest"
    kvmtest.write_text(_KVMTEST)
    kvmtest.chmod(kvmtest.stat().st_mode | stat.S_IXUSR)
    (tmp_path / "tmp").mkdir()
    return tree


def _step(tree: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    top = tree.parent
    given = arguments or ("svm", str(top / "headers"), "init.msi.host.cr2")
    settings = {**os.environ, "KVMTEST": str(top / "kvmtest"), "TMPDIR": str(top / "tmp"), **environment}
    return subprocess.run([_SCRIPT, *given], cwd=tree, env=settings, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("status", [0, 1, 125, 255])
def test_what_the_lab_says_is_passed_on(status: int, tree: Path) -> None:
    (tree / "status").write_text(str(status))
    done = _step(tree, KVMTEST_LAB="--module-param kvm_amd.npt=0")
    assert done.returncode == status
    assert done.stdout.startswith("--bisect --backend svm --kernel bookworm --kvm-modules ")
    assert done.stdout.endswith("arch/x86/kvm --module-param kvm_amd.npt=0 init.msi.host.cr2\n")
    assert not list((tree.parent / "tmp").iterdir())


def test_a_build_that_fails_is_125_and_the_files_are_those_that_lie_here(tree: Path) -> None:
    (tree / "arch/x86/kvm/x86.c").write_text("broken\n")
    done = _step(tree)
    assert done.returncode == 125 and "x86.c: error: broken" in done.stderr and "does not build" in done.stderr
    assert not list((tree.parent / "tmp").iterdir())


def test_what_no_commit_can_change_is_255(tree: Path) -> None:
    top = tree.parent
    assert _step(tree, "svm", str(top / "headers")).returncode == 255
    assert _step(tree, "svm", "/nonexistent", "init.msi.host.cr2").returncode == 255
    assert _step(tree, "tcg", str(top / "headers"), "init.msi.host.cr2").returncode == 255
    assert _step(tree, KVMTEST="/nonexistent").returncode == 255
    assert _step(top).returncode == 255
    (top / "headers/include/generated/utsrelease.h").write_text('#define UTS_RELEASE "5.10.0-other"\n')
    done = _step(tree)
    assert done.returncode == 255 and "does not list 5.10.0-other" in done.stderr
