# SPDX-License-Identifier: GPL-2.0-only
"""Reproducers in the style of KVM's selftests: their helpers, no guest code, and built in the newest tree that there is."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kvmtest.cli import main
from kvmtest.emit import selftest
from kvmtest.emit.repro import Check, Leaf, NoRepro
from kvmtest.kvm import Kvm
from kvmtest.lab import apt, deb, kernels
from kvmtest.lab.error import LabError
from kvmtest.scenario import program as p
from kvmtest.uapi import kvm as uapi
from tests.emit.made import OPS, msr_check, repro

_HEAD = ["cr3 after INIT: expected 0x0."]
_ALL = (1 << 64) - 1
#: Ops that a file in this style can have.
_PLAIN = (p.Ioctl, p.Put, p.Sum, p.Apart, p.Compare)
_HOSTS = tuple(op for op in OPS if isinstance(op, _PLAIN) and getattr(op, "on", 0) != p.NEW_VM)
_MANY = repro(*_HOSTS)._replace(
    checks=(
        Check("rax", p.Place("regs1", 0, 8), (1, 2), 0xFF),
        Check("st0", p.Place("xsave1", 32, 10), (1 << 79,), (1 << 80) - 1, 0, 0),
        Check("mp_state", p.Place("mp_state1", 0, 4), (1,), 0xFFFFFFFF),
    )
)
_LEAF = repro()._replace(
    body=p.Program({"cpuid1": p.Buffer("kvm_cpuid2", bytes(8))}, ((0, p.Ioctl(1, uapi.KVM_GET_CPUID2, "cpuid1")),)),
    checks=(Check("cpuid", Leaf("cpuid1", 1, 0, "edx"), (1,), 1 << 9),),
)
_LAST = repro(p.Ioctl(1, uapi.KVM_GET_REGS, "regs1"), p.Compare(p.Place("regs1", 0, 8, "rax"), (1, 2), p.Otherwise("fail", "")))
_FILES = {"many": _MANY, "leaf": _LEAF, "one": msr_check(0x5A), "last": _LAST}


def test_it_uses_what_the_selftests_have() -> None:
    text = selftest.source(msr_check(0x5A), _HEAD)
    for line in (
        '#include "kvm_util.h"', "vm = vm_create_barebones();", "vm_create_irqchip(vm);", "vcpu1 = __vm_vcpu_add(vm, 1);",
        "kvm_ioctl(vm->kvm_fd, KVM_GET_SUPPORTED_CPUID, &cpuid.head);", "vcpu_ioctl(vcpu1, KVM_SET_CPUID2, &cpuid.head);",
        "sysenter_cs = vcpu_get_msr(vcpu1, MSR_IA32_SYSENTER_CS);", "TEST_ASSERT(sysenter_cs == 0x5a,", "kvm_vm_free(vm);",
    ):
        assert line in text, line
    assert "KTAP" not in text and "need(" not in text and "/dev/kvm" not in text
    assert "#ifndef MSR_IA32_SYSENTER_CS\n#define MSR_IA32_SYSENTER_CS\t0x174\n#endif\n" in text


def test_each_check_is_asserted() -> None:
    text = selftest.source(_MANY, _HEAD)
    assert re.findall(r'"([\w:\[\]]+): expected', text) == ["rax", "st0[63:0]", "st0[79:64]", "mp_state"]
    assert "observed == 1 || observed == 2" in text
    assert '"nothing to show: 100 %% of \\"it\\""' in text


@pytest.mark.parametrize("op", [op for op in OPS if op not in _HOSTS])
def test_what_it_does_not_cover_is_refused(op: p.Op) -> None:
    with pytest.raises(NoRepro, match="--style c has it"):
        selftest.source(repro(op), _HEAD)


def test_the_command_writes_it_or_says_why_not(kvm: Kvm, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    to = tmp_path / "a.c"
    assert main(["repro", "--style", "selftest", "init.msi.host.cr3/ap,intel,xapic,plant-a", "-o", str(to)]) == 0
    assert "vm_create_barebones" in to.read_text()
    to.unlink()
    capsys.readouterr()
    status = main(["repro", "--style", "selftest", "init.msi.guest.rdx", "-o", str(to)])
    said = capsys.readouterr().err.splitlines()
    assert (status, to.exists()) == (1, False) and said[-1].startswith("kvmtest: init.msi.guest.rdx")


#: The parts of a tree that the selftests are built from.
_PARTS = (
    *(f"tools/{one}/" for one in ("include", "arch/x86", "scripts", "build", "lib")),
    *(f"{one}/" for one in ("include", "arch/x86", "scripts", "usr", "lib")),
)
_SELFTESTS = tuple(
    f"tools/testing/selftests/{one}" for one in ("kvm/", "lib.mk", "kselftest", "cgroup/", "rseq/", "vfio/", "clone3/")
)


@contextmanager
def _archive(download: Path) -> Iterator[tarfile.TarFile]:
    """The newest of Debian's sources of the kernel: of sid where the mirror has it, or what is installed."""
    try:
        here, found = apt.Apt("sid"), []
        if shutil.which("apt-get"):
            name = f"linux-source-{'.'.join(kernels.find('sid').release.split('.')[:2])}"
            found = here.closure(name, of="none of them")
        paths = here.download(found[:1], str(download)) if found else []
    except LabError:
        paths = []
    if paths:
        with deb.contents(paths[0]) as package:
            for member in package:
                if member.name.endswith(".tar.xz"):
                    with tarfile.open(fileobj=package.extractfile(member), mode="r|xz") as archive:
                        yield archive
                    return
    if not (installed := sorted(Path("/usr/src").glob("linux-source-*.tar.xz"))):
        pytest.skip("no source of the kernel is here, nor can it be fetched: apt-get install linux-source")
    with tarfile.open(installed[-1], mode="r|xz") as archive:
        yield archive


@pytest.mark.nightly
def test_it_is_built_by_the_kernels_makefile(tmp_path: Path) -> None:
    if not shutil.which("gcc") or not shutil.which("make"):
        pytest.skip("gcc and make are needed")
    tree = tmp_path / "tree"
    with _archive(tmp_path) as archive:
        for member in archive:
            name = member.name.removeprefix("./").partition("/")[2]
            if name.startswith(_SELFTESTS if "/selftests/" in name else _PARTS) or name in ("Makefile", "Kbuild", "Kconfig"):
                member.name = name
                archive.extract(member, tree, filter="fully_trusted")
    there = tree / "tools/testing/selftests/kvm"
    folder = "x86" if (there / "x86").is_dir() else "x86_64"
    for name, made in _FILES.items():
        (there / folder / f"repro_{name}.c").write_text(selftest.source(made, _HEAD))
    subprocess.run(["make", "-s", "-C", str(tree), "ARCH=x86", "headers"], check=True, capture_output=True)
    programs = " ".join(f"{folder}/repro_{name}" for name in _FILES)
    variables = [f"TEST_GEN_PROGS_{folder}={programs}", f"TEST_GEN_PROGS_EXTENDED_{folder}=", f"TEST_PROGS_{folder}="]
    command = ["make", "-s", "-C", str(there), "ARCH=x86_64", f"OUTPUT={tmp_path / 'out'}", *variables]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr
    assert not [line for line in done.stderr.splitlines() if "repro_" in line and "warning" in line], done.stderr
    if not os.access("/dev/kvm", os.W_OK):
        return
    one = tmp_path / "out" / folder / "repro_one"
    assert subprocess.run([one], capture_output=True, check=False).returncode == 0
    (there / folder / "repro_one.c").write_text(selftest.source(msr_check(0x5B), _HEAD))
    subprocess.run(command, capture_output=True, check=True)
    failed = subprocess.run([one], capture_output=True, text=True, check=False)
    assert failed.returncode == 254 and "msr.sysenter_cs: expected 0x5b, observed 0x5a" in failed.stderr
