# SPDX-License-Identifier: GPL-2.0-only
"""A build is made again if one of its inputs changes, and a failed build shows a line of the compiler."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kvmtest.lab import build as lab
from kvmtest.lab import kernels
from kvmtest.lab.build import KVM, Unbuildable, build, change
from kvmtest.lab.error import LabError, NotFound
from kvmtest.lab.kernels import Kernel
from tests.lab import fakes


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The log of calls of make, a line each."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return fakes.programs(tmp_path / "bin", monkeypatch)


@pytest.fixture
def tree(tmp_path: Path, log: Path) -> Path:
    """A kernel tree."""
    return fakes.tree(tmp_path / "tree")


@pytest.fixture
def kernel(tmp_path: Path) -> Kernel:
    """A kernel whose headers are beside its modules."""
    return Kernel("9.9", "9.9.9", "", str(fakes.headers(tmp_path / "kernel").parent), "")


def test_the_same_is_built_once(kernel: Kernel, tree: Path, log: Path) -> None:
    first = build(kernel, str(tree))
    assert {path.name for path in Path(first).iterdir()} == {"kvm.ko", "kvm-amd.ko", "kvm-intel.ko", "tree"}
    assert build(kernel, str(tree)) == first
    (asked,) = log.read_text().splitlines()
    assert f"-C {kernel.modules}/build" in asked and "modules" in asked.split() and "CC=gcc" in asked
    assert "CONFIG_KVM_AMD=m CONFIG_KVM_INTEL=m" in asked
    # A compiler without the flag that the kernel was built with does without.
    assert "CONFIG_CC_HAS_MIN_FUNCTION_ALIGNMENT= " in asked


def test_what_differs_is_another_build_of_that_alone(kernel: Kernel, tree: Path, log: Path) -> None:
    ticks: list[str] = []
    builds = [build(kernel, str(tree), tick=ticks.append)]
    assert ticks == ["1 files, x86", "2 files, svm", "3 files, vmx", "4 files, kvm_main"]
    (tree / KVM / "svm/svm.c").write_text("svm, changed\n")
    ticks.clear()
    builds.append(build(kernel, str(tree), tick=ticks.append))
    assert ticks == ["1 files, svm"]
    assert [Path(folder, "kvm-amd.ko").read_bytes().count(b"svm, changed") for folder in builds] == [0, 1]
    builds.append(build(kernel, str(tree), edit=lambda kvm: change(kvm / "x86.c", "two\n", "2\n")))
    builds.append(build(kernel, str(tree), flags=("-DX",)))
    assert len(set(builds)) == 4 and "KVMTEST_FLAGS=-DX" in log.read_text().splitlines()[-1]
    assert (tree / KVM / "x86.c").read_text() == "one\ntwo\nthree\n"


def test_a_header_that_comes_or_goes_is_a_build_of_all(kernel: Kernel, tree: Path) -> None:
    """Objects know what they were made of by its path, and would stay."""
    ticks: list[str] = []
    header, as_the_kernels = tree / "include/linux/kvm_host.h", "struct kvm;\n"
    for number, text in enumerate((as_the_kernels, "struct kvm { int more; };\n", as_the_kernels)):
        header.write_text(text)
        (tree / KVM / "x86.c").write_text(f"{number}\n")
        ticks.clear()
        build(kernel, str(tree), tick=ticks.append)
        assert len(ticks) == 4


def test_a_file_that_is_gone_is_gone_from_the_build(kernel: Kernel, tree: Path) -> None:
    (tree / KVM / "more.c").write_text("more\n")
    first = build(kernel, str(tree))
    (tree / KVM / "more.c").unlink()
    second = build(kernel, str(tree))
    assert [(Path(folder, "tree", KVM, "more.c")).exists() for folder in (first, second)] == [True, False]


def test_the_trees_own_headers_come_first_where_they_differ(kernel: Kernel, tree: Path) -> None:
    first = build(kernel, str(tree))
    assert not (Path(first) / "tree/include/linux/kvm_host.h").exists()
    (tree / "include/linux/kvm_host.h").write_text("struct kvm { int more; };\n")
    second = build(kernel, str(tree))
    assert second != first and (Path(second) / "tree/include/linux/kvm_host.h").exists()
    assert not (Path(second) / "tree/include/linux/fs.h").exists()
    (place,) = lab.objects()
    makefile = (Path(place) / KVM / "Makefile").read_text()
    assert makefile.startswith(f"LINUXINCLUDE := -I{place}/arch/x86/include ") and f"-I{place}/include " in makefile
    assert f"include {place}/virt/kvm/Makefile.kvm" in makefile


def test_what_a_build_left_in_the_tree_is_none_of_its_source(kernel: Kernel, tree: Path) -> None:
    first = build(kernel, str(tree))
    for name in ("x86.o", "kvm.ko", ".x86.o.cmd", "kvm-asm-offsets.h", "modules.order"):
        (tree / KVM / name).write_text("made")
    assert build(kernel, str(tree)) == first


def test_the_compilers_first_errors_are_reported_by_the_trees_paths(kernel: Kernel, tree: Path) -> None:
    (tree / KVM / "x86.c").write_text("an error here\n")
    with pytest.raises(Unbuildable) as caught:
        build(kernel, str(tree))
    assert caught.value.errors == ("arch/x86/kvm/x86.c:1:2: error: an error here",)
    assert str(caught.value).startswith("KVM's modules do not build against the headers of 9.9.9: arch/x86/kvm/x86.c:1:2: error")


def test_what_is_missing_is_one_line(kernel: Kernel, tree: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="is not a kernel tree: it has no arch/x86/kvm/Makefile"):
        build(kernel, str(tmp_path))
    with pytest.raises(LabError, match="x86.c has 0 times the line 'four'"):
        build(kernel, str(tree), edit=lambda kvm: change(kvm / "x86.c", "four\n", "4\n"))
    monkeypatch.setenv("PATH", str(tmp_path / "none"))
    with pytest.raises(LabError, match="needs: apt-get install gcc make binutils$"):
        build(kernel, str(tree))


def test_the_kernels_own_compiler_is_taken_where_it_is_here(kernel: Kernel, tree: Path, log: Path) -> None:
    Path(kernel.modules, "build/.kernelvariables").write_text("CC = $(CROSS_COMPILE)gcc-99\n")
    build(kernel, str(tree))
    shutil.copy(log.parent / "gcc", log.parent / "gcc-99")
    build(kernel, str(tree), flags=("-DX",))
    assert [("CC=gcc-99" in line) for line in log.read_text().splitlines()] == [False, True]


@pytest.mark.program
def test_a_build_that_is_interrupted_ends_what_it_started(kernel: Kernel, tree: Path, log: Path) -> None:
    make = log.parent / "make"
    make.write_text(f"#!/bin/sh\nsleep 1000 & echo $! >{log}; wait\n")
    code = "import sys; from kvmtest.lab import build, kernels\nbuild.build(kernels.Kernel(*sys.argv[1:6]), sys.argv[6])"
    ours = subprocess.Popen([sys.executable, "-c", code, *kernel, str(tree)], stderr=subprocess.DEVNULL)
    while not log.read_text():
        time.sleep(0.01)
    sleeps = int(log.read_text())
    ours.send_signal(signal.SIGINT)
    assert ours.wait(60)
    while Path(f"/proc/{sleeps}").exists() and "Z" not in Path(f"/proc/{sleeps}/stat").read_text():
        time.sleep(0.01)
    assert not [entry for entry in os.listdir(Path(os.environ["XDG_CACHE_HOME"], "kvmtest/builds")) if entry.startswith(".")]


@pytest.mark.parametrize(
    ("version", "first"),
    [("6.12.118", "6.12"), ("6.2", "6.1"), ("6.9-rc1", "6.12"), ("5.4", "5.10"), ("5.19", "6.1"), ("7.0", "7.2"), ("9.1", "7.2")],
)
def test_the_nearest_kernel(version: str, first: str) -> None:
    assert kernels.nearest(version)[0] == first
